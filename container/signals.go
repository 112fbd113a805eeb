package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Heeds says whether a signal can have any effect on the first process of a
// pid namespace. The kernel drops one from outside that the process neither
// catches nor blocks (sig_task_ignored, SIGNAL_UNKILLABLE), so waiting for such
// a process to end is waiting for nothing. When in doubt it says yes.
func Heeds(pid int, sig unix.Signal) bool {
	if sig == unix.SIGKILL {
		return true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		name, mask, _ := strings.Cut(line, ":")
		if name != "SigCgt" && name != "SigBlk" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err != nil || bits&(1<<(sig-1)) != 0 {
			return true
		}
	}
	return false
}
