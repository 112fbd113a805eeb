package boot

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// leastMemory is what the image itself, the kernel and the daemon take (200 MB,
// 2026-12), and a little for containers.
const leastMemory = 384 << 20

// readMemory is all the memory that the kernel has, in bytes.
func readMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return field(string(text), "MemTotal:") << 10
}

// scarce says what is to be said of so much memory.
func scarce(bytes int64) string {
	if bytes == 0 || bytes >= leastMemory {
		return ""
	}
	return fmt.Sprintf("the machine has %d MiB of memory, and buoy without a system below it wants %d: programs may be killed; give it more", bytes>>20, leastMemory>>20)
}

// oomKills is how often the kernel has killed a process for its memory.
func oomKills() string {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return ""
	}
	return strconv.FormatInt(field(string(text), "oom_kill"), 10)
}

// field is the number behind a name, in lines of names and numbers.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			n, _ := strconv.ParseInt(words[1], 10, 64) // the kernel's
			return n
		}
	}
	return 0
}

// osRelease is a value of an os-release(5) file.
func osRelease(text, key string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}
