package apps

import (
	"regexp"
	"strings"
)

// levelHead is how much of a line is looked at for its level.
const levelHead = 300

var (
	// keyedLevel is level=warn, "level":"warn", "severity": "ERROR", "level":30 (pino).
	keyedLevel = regexp.MustCompile(`(?i)(?:^|[\s{,"'])(?:level|lvl|loglevel|log\.level|severity)["']?\s*[=:]\s*["']?([a-z]+|[1-6]0)\b`)
	// klogLevel is I0115 10:30:00.
	klogLevel = regexp.MustCompile(`^([IWEF])\d{4} \d\d:`)
	// boxedLevel is [warn], <error>, (info), |DEBUG|.
	boxedLevel = regexp.MustCompile(`[\[<(|]\s*([A-Za-z]{3,9})\s*[\]>)|]`)
	// firstLevel is "error: no such file", "WARNING:root:no more".
	firstLevel = regexp.MustCompile(`^([A-Za-z]{3,9}):`)
	// loudLevel is INFO among other words.
	loudLevel = regexp.MustCompile(`(?:^|[\s:\-\]])([A-Z]{3,9})(?:$|[\s:\-\[])`)
)

// levels are the words that programs use, in the four of ours.
var levels = map[string]string{
	"trace": "DEBUG", "debug": "DEBUG", "verbose": "DEBUG", "10": "DEBUG", "20": "DEBUG",
	"info": "INFO", "information": "INFO", "notice": "INFO", "log": "INFO", "i": "INFO", "30": "INFO",
	"warn": "WARN", "warning": "WARN", "wrn": "WARN", "w": "WARN", "40": "WARN",
	"err": "ERROR", "error": "ERROR", "eror": "ERROR", "severe": "ERROR", "e": "ERROR", "50": "ERROR",
	"crit": "FATAL", "critical": "FATAL", "alert": "FATAL", "emerg": "FATAL", "emergency": "FATAL", "fatal": "FATAL", "panic": "FATAL",
	"f": "FATAL", "60": "FATAL",
}

// levelOf guesses how grave a line is. Who says nothing says INFO, also on stderr, where
// many programs write all they have to say.
func levelOf(line string) string {
	line = line[:min(len(line), levelHead)]
	for _, form := range []*regexp.Regexp{keyedLevel, klogLevel, boxedLevel, firstLevel, loudLevel} {
		for _, found := range form.FindAllStringSubmatch(line, 4) {
			if level, ok := levels[strings.ToLower(found[1])]; ok {
				return level
			}
		}
	}
	return "INFO"
}
