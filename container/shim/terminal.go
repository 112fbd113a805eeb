//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// A container's terminal is a pty of its own devpts. The reaper keeps the
// master, so that the terminal does not hang up when a shim dies. What is
// written on it goes into a pipe of ours, and from there on is a stream like
// any other. The pipe's writing end need not be kept: it can be had from the
// reading one.

// masterSocket gives the two ends of a socket: libcontainer's init stage sends
// the master of the terminal that it makes to the second.
func masterSocket() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "master"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// takeMaster is what has been sent to the socket; the sender is done by now.
func takeMaster(socket *os.File) (int, error) {
	var name [unix.PathMax]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), name[:], control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, fmt.Errorf("receive the terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("receive the terminal: %d control messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive the terminal: %d descriptors, %w", len(fds), err)
	}
	return fds[0], nil
}

// keepTerminal takes the master of a container's terminal, on which nothing has
// been written yet, and makes its other side the container's output.
func (s *Server) keepTerminal(t *task, socket *os.File) error {
	master, err := takeMaster(socket)
	if err != nil {
		return err
	}
	t.c.mu.Lock()
	t.c.input, t.c.tty = master, true
	t.c.mu.Unlock()
	if err := unix.SetNonblock(master, true); err != nil {
		return err
	}
	if err := s.keeper.store("tty:"+t.c.id, master); err != nil {
		return err
	}
	file, err := openLog(t.rec.Log, 1)
	if err != nil {
		return errs.E(errs.Invalid, "open the log: %w", err)
	}
	own, err := duplicate(master)
	if err != nil {
		file.release()
		return err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		file.release()
		unix.Close(own)
		return fmt.Errorf("pipe: %w", err)
	}
	return s.read(t, &stream{name: "stdout", fd: p[0], file: file, tty: own, sink: p[1]})
}

// readFrom makes st, whose pipe has been kept, the output of a terminal again.
func (st *stream) readFrom(master int) (err error) {
	if st.tty, err = duplicate(master); err != nil {
		return err
	}
	if st.sink, err = unix.Open(fdPath(st.fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open the pipe of a terminal: %w", err)
	}
	return nil
}

func duplicate(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return n, nil
}

// pump moves what is written on st's terminal into its pipe. It is true when the
// pipe is full, and there may be more. A splice happens or does not: what a
// killed shim has taken from the terminal is in the pipe. EIO says that nobody
// has the terminal open now, which may change: it is /dev/console, too.
func (l *logs) pump(st *stream) (full bool) {
	for st.tty >= 0 {
		n, err := unix.Splice(st.tty, nil, st.sink, nil, pipeSize, unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EINTR), n > 0:
			continue
		case !errors.Is(err, unix.EAGAIN):
			return false
		}
		room := []unix.PollFd{{Fd: int32(st.sink), Events: unix.POLLOUT}}
		n2, err := unix.Poll(room, 0)
		return err == nil && n2 == 0
	}
	return false
}

// keepStdin makes the pipe that is the container's open stdin, and gives the
// end that is for the container.
func (s *Server) keepStdin(c *container) (*os.File, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	c.mu.Lock()
	c.input = p[1]
	c.mu.Unlock()
	end := os.NewFile(uintptr(p[0]), "stdin")
	// Who is attached must not be held up by a container that does not read.
	if err := errors.Join(unix.SetNonblock(p[1], true), s.keeper.store("stdin:"+c.id, p[1])); err != nil {
		return nil, errors.Join(err, end.Close())
	}
	return end, nil
}

// adoptInput takes back what the reaper has kept. No stdin: it has been closed,
// or never was open.
func (s *Server) adoptInput(c *container, kept map[string]int) {
	for _, name := range []string{"tty:" + c.id, "stdin:" + c.id} {
		if fd, ok := kept[name]; ok {
			delete(kept, name)
			c.input, c.tty = fd, name == "tty:"+c.id
		}
	}
}

// dropInput closes the container's terminal or open stdin, if it has one.
func (s *Server) dropInput(c *container) error {
	c.mu.Lock()
	fd, name := c.input, "stdin:"+c.id
	if c.tty {
		name = "tty:" + c.id
	}
	c.input = -1
	c.mu.Unlock()
	if fd < 0 {
		return nil
	}
	unix.Close(fd)
	return s.keeper.drop(name)
}

// closeStdin ends what Run was asked to keep open, if it is not closed already.
func (s *Server) closeStdin(r shimapi.Ref) error {
	c, err := s.alive(r.ID)
	if err != nil {
		return err
	}
	defer c.life.RUnlock()
	c.mu.Lock()
	tty := c.tty
	c.mu.Unlock()
	if tty {
		return nil
	}
	return s.dropInput(c)
}
