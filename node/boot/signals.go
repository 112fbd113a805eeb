package boot

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// meant are the signals that process 1 acts upon: how each ends the machine; 0:
// it does not, a child has ended.
var meant = map[os.Signal]int{
	unix.SIGCHLD: 0,
	unix.SIGTERM: unix.LINUX_REBOOT_CMD_RESTART,
	unix.SIGINT:  unix.LINUX_REBOOT_CMD_RESTART, // Ctrl-Alt-Del
	unix.SIGUSR2: unix.LINUX_REBOOT_CMD_POWER_OFF,
	unix.SIGPWR:  unix.LINUX_REBOOT_CMD_POWER_OFF,
}

// hear gives those that are meant, and has all others do nothing: Go's runtime
// would end the program at some of them, and the kernel panics when process 1
// ends. They are caught and dropped, not ignored, since whom process 1 starts
// would inherit that.
func hear() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	dropped := make(chan os.Signal, 1) // nobody reads it
	const last = 64
	for sig := syscall.Signal(1); sig <= last; sig++ {
		if _, ok := meant[sig]; ok {
			signal.Notify(signals, sig)
		} else if sig != unix.SIGURG { // the runtime's own, and harmless
			signal.Notify(dropped, sig)
		}
	}
	return signals
}
