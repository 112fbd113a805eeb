package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// uevents is the socket on which the kernel says what becomes of devices and
// modules.
func uevents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("hear of devices: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, errors.Join(fmt.Errorf("hear of devices: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// hearOfDevices puts a token into news when a device on PCI or a driver comes or
// goes, until ctx ends or f fails. It closes f.
func hearOfDevices(ctx context.Context, f *os.File, news chan<- struct{}) error {
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer func() {
		if stop() {
			f.Close()
		}
	}()
	buf := make([]byte, 8<<10) // the kernel's have 2 KiB at most
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // then some were missed
			return fmt.Errorf("hear of devices: %w", err)
		case err == nil && !matters(buf[:n]):
			continue
		}
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

// matters says whether a message of the kernel, as add@/devices/… and then
// KEY=VALUE with zeros between them, may be about a GPU or its driver.
func matters(message []byte) bool {
	for part := range bytes.SplitSeq(message, []byte{0}) {
		switch string(part) {
		case "SUBSYSTEM=pci", "SUBSYSTEM=drm", "SUBSYSTEM=module", "SUBSYSTEM=drivers":
			return true
		}
	}
	return false
}
