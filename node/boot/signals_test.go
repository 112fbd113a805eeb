package boot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSignals sends every signal to process 1 of a namespace of its own, which
// the kernel treats as it does that of a machine: those that are not meant have
// no effect.
func TestSignals(t *testing.T) {
	const last = unix.SIGPWR
	if os.Getpid() == 1 {
		signals := hear()
		fmt.Println("ready")
		for sig := range signals {
			fmt.Println(sig)
			if sig == last {
				os.Exit(0)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSignals$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("SKIPPED: %v: needs root, or user namespaces", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	hears := func(want string) {
		t.Helper()
		if lines.Scan(); lines.Text() != want {
			t.Errorf("it says %q, want %q", lines.Text(), want)
		}
	}
	send := func(sig syscall.Signal) {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Errorf("before %v: %v", sig, err)
		}
	}
	hears("ready")
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if _, ok := meant[sig]; !ok && sig != unix.SIGKILL && sig != unix.SIGSTOP { // which would come from outside
			send(sig)
		}
	}
	for _, sig := range []syscall.Signal{unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGUSR2, last} {
		send(sig)
		hears(sig.String())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it has ended: %v", err)
	}
	for sig, how := range map[syscall.Signal]int{unix.SIGCHLD: 0, unix.SIGTERM: unix.LINUX_REBOOT_CMD_RESTART, unix.SIGINT: unix.LINUX_REBOOT_CMD_RESTART, unix.SIGUSR2: unix.LINUX_REBOOT_CMD_POWER_OFF, last: unix.LINUX_REBOOT_CMD_POWER_OFF} {
		if meant[sig] != how {
			t.Errorf("%v ends the machine by %#x, want %#x", sig, meant[sig], how)
		}
	}
}
