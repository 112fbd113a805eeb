//go:build linux && cgo

package shim

import (
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// explain turns what libcontainer says into words for a person. What only
// another request can change becomes Invalid; its init stage hands us nothing
// but text, so text is what this goes by.
func explain(err error) error {
	err = trim(err)
	for _, r := range refusals {
		m := r.said.FindStringSubmatch(err.Error())
		if m == nil || !r.anyCause && !slices.Contains(requestsFault, m[len(m)-1]) {
			continue
		}
		args := make([]any, 0, len(m)-1)
		for _, word := range m[1:] {
			args = append(args, word)
		}
		return errs.E(errs.Invalid, r.say, args...)
	}
	return err
}

// requestsFault are the causes that the machine's state does not explain.
var requestsFault = []string{
	unix.ENOENT.Error(), unix.ENOTDIR.Error(), unix.EISDIR.Error(), unix.ELOOP.Error(), unix.EINVAL.Error(),
	unix.ERANGE.Error(), unix.EACCES.Error(), unix.ENAMETOOLONG.Error(), unix.EEXIST.Error(), unix.EROFS.Error(),
}

// refusals are tried in order; the groups of said are the arguments of say,
// the last one the cause.
var refusals = []struct {
	said     *regexp.Regexp
	say      string
	anyCause bool
}{
	{
		said: regexp.MustCompile(`failed to write "([^"]*)": write \S*/cpuset\.(?:cpus|cpu_exclusive): (.*)$`),
		say:  "CPU set %q does not fit the CPUs of this machine: %s",
	},
	{
		said: regexp.MustCompile(`failed to write "([^"]*)": write \S*/([a-z0-9_.]+): (.*)$`),
		say:  "the kernel refuses the limit %q for %s: %s",
	},
	{
		said: regexp.MustCompile(`open sysctl (\S+) file: (?:.*: )?([^:]+)$`),
		say:  "sysctl %q cannot be set in a container here: %s",
	},
	{
		said: regexp.MustCompile(`failed to write sysctl (\S+) = "(.*?)": (?:.*: )?([^:]+)$`),
		say:  "sysctl %q does not take %q: %s",
	},
	{
		said:     regexp.MustCompile(`error mounting ".*?" to rootfs at "(.*?)": .*(cannot be mounted because it is (?:inside /proc|not of type proc))$`),
		say:      "nothing can be mounted on %q: it %s",
		anyCause: true,
	},
	{
		said:     regexp.MustCompile(`filesystem "(proc|sysfs)" (must be mounted on ordinary directory)$`),
		say:      "the image has no directory for %s: it %s",
		anyCause: true,
	},
	{
		said: regexp.MustCompile(`error mounting "(.*?)" to rootfs at "(.*?)": (?:.*: )?([^:]+)$`),
		say:  "%q cannot be mounted on %q: %s",
	},
	{
		said:     regexp.MustCompile(`error mounting ".*?" to rootfs at "(.*?)": .* is on (the top of rootfs) `),
		say:      "nothing can be mounted on %q: it is %s",
		anyCause: true,
	},
	{
		said: regexp.MustCompile(`failed to fulfil mount request: open (.*): ([^:]+)$`),
		say:  "%q cannot be mounted: %s",
	},
	{
		said:     regexp.MustCompile(`unable to set memory limit to (\d+) \(current usage: (\d+),`),
		say:      "memory limit %s is too small to start: %s bytes are in use already",
		anyCause: true,
	},
	{
		said: regexp.MustCompile(`^mkdir (.*): ([^:]+)$`),
		say:  "directory %q cannot be made in the image: %s",
	},
	{
		said: regexp.MustCompile(`chdir to cwd \("(.*?)"\) set in config.json failed: ([^:]+)$`),
		say:  "working directory %q cannot be entered: %s",
	},
	{
		said:     regexp.MustCompile(`current working directory is (outside of container)`),
		say:      "the working directory is %s, by a link of /proc",
		anyCause: true,
	},
}
