package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watchdog is the machine's, which restarts it unless it is fed.
type watchdog struct {
	dev   *os.File
	tried bool // in vain
}

const watchdogTime = 60 // seconds that it waits

// feed keeps it quiet; the first time that there is one it is opened. said is
// what there is to tell of it.
func (w *watchdog) feed() (said string) {
	switch {
	case w.tried:
		return ""
	case w.dev != nil:
		_ = unix.IoctlWatchdogKeepalive(int(w.dev.Fd())) // if it fails, the machine will restart
		return ""
	}
	f, err := os.OpenFile("/dev/watchdog0", os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		w.tried = true
		return fmt.Sprintf("the watchdog is not used: %v", err)
	}
	w.dev = f
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, watchdogTime); err != nil {
		return fmt.Sprintf("%s restarts the machine if it hangs, after its own time", watchdogName())
	}
	return fmt.Sprintf("%s restarts the machine if it hangs for %d seconds", watchdogName(), watchdogTime)
}

// rest has it wait for nothing any more: the machine is to be off.
func (w *watchdog) rest() {
	if w.dev != nil {
		_, _ = w.dev.WriteString("V") // "magic close"; one that cannot be stopped goes on
		_ = w.dev.Close()
	}
}

func watchdogName() string {
	if name := readLine("/sys/class/watchdog/watchdog0/identity"); name != "" {
		return "watchdog " + name
	}
	return "a watchdog"
}
