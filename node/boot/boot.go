// Package boot makes a host of a machine that has nothing but the kernel and
// the initramfs of "make boot".
//
// Two processes share that. Init is process 1: it mounts, starts buoyd and
// starts it again, reaps, feeds the watchdog, and ends the machine in good
// order. The kernel panics when process 1 ends, so it reads nothing that comes
// from strangers. All that does, or that may take its time, is Machine's, in
// buoyd: drivers, the disk, the network, the clock.
package boot

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// State is the directory of what lasts: in memory, or a disk.
const State = "/var/lib"

// HasState says whether what lasts is there already, as after a restart of buoyd.
func HasState() bool { return mounted(State) }

// cmdlineFile is what the kernel was told.
const cmdlineFile = "/proc/cmdline"

// Reboot asks process 1 to end everything and start the machine again.
func Reboot() error { return ask(syscall.SIGTERM) }

func ask(sig syscall.Signal) error {
	if err := syscall.Kill(1, sig); err != nil {
		return fmt.Errorf("ask process 1: %w", err)
	}
	return nil
}

// Modprobe is what the kernel calls when it wants a module: "modprobe -q -- NAME".
func Modprobe(args []string) error {
	x, err := openModules()
	if err != nil {
		return err
	}
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		for _, module := range x.Find(name) {
			if err := x.Load(module); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLine is a file of one line, as the kernel has many; "" if it is not there.
func readLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
