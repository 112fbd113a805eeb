//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// gate is our end of the socket on which buoy-init waits before the last exec;
// container/init/init.c has the protocol.
type gate struct {
	file  *os.File
	fd    int      // of file; asking it with Fd might make it block
	child *os.File // nil once the process has it
}

func newGate() (*gate, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	// Ours is non-blocking, so that waiting costs no thread.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	return &gate{os.NewFile(uintptr(fds[0]), "gate"), fds[0], os.NewFile(uintptr(fds[1]), "gate of buoy-init")}, nil
}

// adoptedGate is one that the reaper kept.
func adoptedGate(fd int) (*gate, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return &gate{file: os.NewFile(uintptr(fd), "gate"), fd: fd}, nil
}

func (g *gate) close() {
	g.file.Close()
	g.closeChild()
}

func (g *gate) closeChild() {
	if g.child != nil {
		g.child.Close()
		g.child = nil
	}
}

// letGo may come before buoy-init waits.
func (g *gate) letGo() error {
	_, err := g.file.Write([]byte{'g'})
	return err
}

// errHeldUp is about a job that has not started in time.
var errHeldUp = errs.E(errs.Unavailable, "it did not start within %s; something in the container may hold it up", startLimit)

// awaitReady returns when buoy-init waits at the gate, its filter loaded.
func (g *gate) awaitReady() error {
	var b [1]byte
	_, err := io.ReadFull(g.file, b[:])
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errHeldUp
	case err != nil:
		return errs.E(errs.Internal, "buoy-init ended before it was ready (out of memory?): %w", err)
	case b[0] == 'e':
		return g.report("", b[:])
	}
	return nil
}

// awaitExec returns when the program name has been exec'ed, or why not.
func (g *gate) awaitExec(name string) error {
	var b [1]byte
	_, err := g.file.Read(b[:])
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errHeldUp
	case err != nil:
		return fmt.Errorf("wait for %q to start: %w", name, err)
	}
	return g.report(name, b[:])
}

// report makes an error of what buoy-init says after 'e'.
func (g *gate) report(name string, head []byte) error {
	var m [3]byte
	if _, err := io.ReadFull(g.file, m[:]); err != nil || head[0] != 'e' {
		return errs.E(errs.Internal, "buoy-init talks nonsense at the gate: %q, %w", head, err)
	}
	errno := unix.Errno(uint16(m[1]) | uint16(m[2])<<8)
	switch m[0] {
	case 's':
		return errs.E(errs.Internal, "load the seccomp filter: %w", errno)
	case 'f':
		return errs.E(errs.Unavailable, "fork %q: %w", name, errno)
	case 'p':
		return errs.E(errs.Invalid, "command %q cannot start: its interpreter or loader is not in the image", name)
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return errs.E(errs.NotFound, "command %q not found in the image", name)
	case unix.EACCES, unix.ENOEXEC, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL, unix.E2BIG:
		return errs.E(errs.Invalid, "command %q is not executable: %w", name, errno)
	}
	return errs.E(errs.Internal, "exec %q: %w", name, errno)
}

// state is what a shim finds that has the gate back from the reaper.
func (g *gate) state() (released, failed bool) {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(g.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false, false
		case n <= 0 || err != nil:
			return true, false
		case b[0] != 'r':
			return false, true
		}
		_, _ = unix.Read(g.fd, b[:]) // 'r' was not read by the shim that died
	}
}
