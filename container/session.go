package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Session is the near side of a process that has a client: what it reads and
// writes goes through descriptors of ours and not through a log. Whoever reads
// its output slowly slows the process.
type Session struct {
	TTY bool

	master *os.File // of the terminal

	mu    sync.Mutex // guards stdin
	stdin *os.File   // nil: there is none, or it is closed

	outputs []*output // stdout and stderr, or what the terminal shows
	tap     *shimapi.Attachment
}

// Exec starts cmd as a job that has a client; req is the same in the shim's words.
func (r *Runtime) Exec(ctx context.Context, req shimapi.ExecRequest, cmd Command) (*Session, error) {
	if cmd.TTY {
		req.Process.ConsoleSize = &specs.Box{Width: uint(cmd.Width), Height: uint(cmd.Height)}
		return r.execTerminal(ctx, req, cmd.Open)
	}
	s := &Session{}
	theirs, err := s.pipes(cmd.Open)
	defer closeFiles(theirs)
	if err == nil {
		_, err = r.shim.Exec(ctx, req, theirs...)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// pipes are those of a job without a terminal; it gets the ends that are returned.
func (s *Session) pipes(open bool) (theirs []*os.File, err error) {
	var in *os.File
	if open {
		in, s.stdin, err = os.Pipe()
	} else {
		in, err = os.Open(os.DevNull)
	}
	theirs = append(theirs, in)
	for i := 0; i < 2 && err == nil; i++ {
		var out *os.File
		out, err = s.outputPipe()
		theirs = append(theirs, out)
	}
	return theirs, err
}

func (s *Session) outputPipe() (theirs *os.File, err error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return theirs, s.output(ours)
}

func (r *Runtime) execTerminal(ctx context.Context, req shimapi.ExecRequest, open bool) (*Session, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "console")
	defer theirs.Close()
	defer unix.Close(fds[0])
	if _, err := r.shim.Exec(ctx, req, theirs); err != nil {
		return nil, err
	}
	master, err := takeMaster(fds[0]) // it was sent before the job began
	if err != nil {
		return nil, err
	}
	s := &Session{TTY: true, master: master}
	if open {
		s.stdin = master
	}
	if err := s.output(master); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// takeMaster is the terminal that the shim has had sent to a socket.
func takeMaster(socket int) (*os.File, error) {
	var name [unix.PathMax]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, name[:], control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive the terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive the terminal: %d control messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive the terminal: %d descriptors, %w", len(fds), err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that who reads can be woken
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// Exit is how a process has ended.
type Exit = shimapi.Exit

// tapSize is what a client may lag behind, if the kernel allows that much.
const tapSize = 1 << 20

// Attach makes a Session of a container that runs or is held. open: the session
// can write to it, as far as it takes input. See shimapi.AttachRequest for what
// lossless means. Its output ends early when the shim does, or is done with a
// client that is too slow: Wait says so.
func (r *Runtime) Attach(ctx context.Context, id string, open, lossless bool) (*Session, error) {
	s := &Session{}
	var theirs []*os.File
	defer func() { closeFiles(theirs) }()
	for range 2 {
		end, err := s.outputPipe()
		theirs = append(theirs, end)
		if err != nil {
			s.Close()
			return nil, err
		}
		_, _ = unix.FcntlInt(end.Fd(), unix.F_SETPIPE_SZ, tapSize)
	}
	a, err := r.shim.Attach(ctx, shimapi.AttachRequest{ID: id, Lossless: lossless}, theirs[0], theirs[1])
	if err != nil {
		s.Close()
		return nil, err
	}
	s.tap, s.TTY = a, a.TTY
	if s.TTY {
		s.master = a.Input
	}
	if open {
		s.stdin = a.Input
	} else if a.Input != nil && !s.TTY {
		a.Input.Close()
	}
	return s, nil
}

// Output is what the process writes. With a terminal all of it is stdout.
func (s *Session) Output() (stdout, stderr io.Reader) {
	if len(s.outputs) == 1 {
		return s.outputs[0], bytes.NewReader(nil)
	}
	return s.outputs[0], s.outputs[1]
}

// Wait returns when all output of the container is in Output, or with the reason
// why no more comes. It is for sessions that Attach has made.
func (s *Session) Wait(ctx context.Context) error { return s.tap.Wait(ctx) }

// Write writes to the process's stdin.
func (s *Session) Write(p []byte) (int, error) {
	s.mu.Lock()
	in := s.stdin
	s.mu.Unlock()
	if in == nil {
		return 0, os.ErrClosed
	}
	return in.Write(p)
}

// CloseStdin ends our side of stdin. A terminal has no end.
func (s *Session) CloseStdin() {
	s.mu.Lock()
	in := s.stdin
	s.stdin = nil
	s.mu.Unlock()
	if in != nil && in != s.master {
		in.Close()
	}
}

// Resize sets the size of the terminal. Without one it is Invalid.
func (s *Session) Resize(width, height uint16) error {
	if s.master == nil {
		return errs.E(errs.Invalid, "it has no terminal")
	}
	raw, err := s.master.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	return errors.Join(err, ierr)
}

// Ended says that the job has: what it wrote can be read to the end, and what
// processes that it has left behind write after is not waited for.
func (s *Session) Ended() {
	for _, o := range s.outputs {
		o.end()
	}
}

// Close hangs up: a job's pipes are closed, or its terminal is.
func (s *Session) Close() {
	s.CloseStdin()
	for _, o := range s.outputs {
		o.file.Close()
	}
	if s.master != nil {
		s.master.Close()
	}
	if s.tap != nil {
		s.tap.Close()
	}
}

func (s *Session) output(f *os.File) error {
	raw, err := f.SyscallConn()
	s.outputs = append(s.outputs, &output{file: f, raw: raw})
	return err
}

// output reads a pipe or a terminal. When it is over, what is there is read and
// no more is waited for.
type output struct {
	file *os.File
	raw  syscall.RawConn
	over atomic.Bool
}

// Read implements io.Reader. EIO says that nobody has the terminal open; but
// somebody who still runs may open it again.
func (o *output) Read(p []byte) (n int, err error) {
	for {
		over := o.over.Load()
		read := func(fd uintptr) bool {
			for n, err = -1, unix.EINTR; errors.Is(err, unix.EINTR); {
				n, err = unix.Read(int(fd), p)
			}
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EIO)
		}
		var cerr error
		if over {
			cerr = o.raw.Control(func(fd uintptr) { read(fd) })
		} else {
			cerr = o.raw.Read(read)
		}
		switch {
		case errors.Is(cerr, os.ErrDeadlineExceeded):
			continue // it is over now
		case cerr != nil:
			return 0, cerr
		case n == 0, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EIO):
			return 0, io.EOF
		}
		return max(n, 0), err
	}
}

func (o *output) end() {
	o.over.Store(true)
	_ = o.file.SetReadDeadline(time.Unix(1, 0)) // wakes who reads; a closed file has woken him
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
