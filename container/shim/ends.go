//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// processEnds is what a new process gets as 0, 1 and 2; or a socket, to which
// the master of its terminal is sent.
type processEnds struct{ stdin, stdout, stderr, console *os.File }

// endsOf are those that a caller has given, if any.
func endsOf(files fileList, terminal bool) (processEnds, error) {
	switch {
	case len(files) == 0 && !terminal:
		return processEnds{}, nil
	case len(files) == 3 && !terminal:
		return processEnds{stdin: files[0], stdout: files[1], stderr: files[2]}, nil
	case len(files) == 1 && terminal:
		return processEnds{console: files[0]}, nil
	}
	return processEnds{}, errs.E(errs.Invalid, "a job has no descriptors, or three, or one and a terminal; not %d", len(files))
}

func (e processEnds) close() {
	for _, f := range []*os.File{e.stdin, e.stdout, e.stderr, e.console} {
		if f != nil {
			f.Close()
		}
	}
}

// giveTo makes the pipes those of the root of a user namespace, who then makes
// them those of the process's user, for whom else /dev/stdout could not be opened.
func (e processEnds) giveTo(config *configs.Config) error {
	uid, err := config.HostRootUID()
	if err != nil || uid == 0 {
		return err
	}
	gid, err := config.HostRootGID()
	if err != nil {
		return err
	}
	for _, f := range []*os.File{e.stdin, e.stdout, e.stderr} {
		if f == nil {
			continue
		}
		st, err := f.Stat()
		if err == nil && st.Mode()&os.ModeNamedPipe != 0 {
			err = f.Chown(uid, gid)
		}
		if err != nil {
			return fmt.Errorf("give a pipe to the container's root: %w", err)
		}
	}
	return nil
}

// openOutput makes t's log and the pipes to it, puts the readers into the
// reaper's store and starts to read.
func (s *Server) openOutput(t *task) (e processEnds, err error) {
	file, err := openLog(t.rec.Log, 2)
	if err != nil {
		return e, errs.E(errs.Invalid, "open the log: %w", err)
	}
	for _, o := range []struct {
		name string
		end  **os.File
	}{{"stdout", &e.stdout}, {"stderr", &e.stderr}} {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return e, fmt.Errorf("pipe: %w", err)
		}
		*o.end = os.NewFile(uintptr(p[1]), o.name)
		if err := s.read(t, &stream{name: o.name, fd: p[0], file: file, tty: -1, sink: -1}); err != nil {
			return e, err
		}
	}
	return e, nil
}

// read makes st part of t's log.
func (s *Server) read(t *task, st *stream) error {
	st.key = t.key() + "/" + st.name
	t.out = append(t.out, st)
	return errors.Join(s.keeper.store("log:"+st.key, st.fd), s.logs.add(st))
}

// dropOutput logs what is left and closes.
func (s *Server) dropOutput(t *task) {
	s.logs.remove(drainLimit, t.out...)
	for _, st := range t.out {
		if err := s.keeper.drop("log:" + st.key); err != nil {
			s.log.Error("drop a pipe", "error", err)
		}
	}
}

// openStdin puts data into a memory file: no one has to feed a pipe, and the
// input survives the shim. No data is /dev/null.
func openStdin(data []byte) (*os.File, error) {
	if len(data) == 0 {
		return os.Open(os.DevNull)
	}
	fd, err := unix.MemfdCreate("stdin", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "stdin")
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep the input: %w", err), f.Close())
	}
	return f, nil
}
