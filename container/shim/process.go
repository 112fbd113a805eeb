//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// stubOptions is what buoy-init shall do before and instead of the program.
type stubOptions struct {
	init    bool
	seccomp string // profile
	classic bool   // libcontainer loads it
	gate    *gate
	ends    outputEnds
}

// fileList closes what only a start needs.
type fileList []*os.File

func (l fileList) close() {
	for _, f := range l {
		f.Close()
	}
}

// Descriptors of buoy-init, as container/init/init.c has them.
const initPath = "/proc/self/fd/3"

// stub is a process for libcontainer that starts as buoy-init.
func (s *Server) stub(sp *specs.Process, o stubOptions) (*libcontainer.Process, fileList, error) {
	opts := "-"
	extra := []*os.File{s.init, o.gate.child}
	var files fileList
	if o.seccomp != "" && !o.classic {
		f, err := s.bpf.open(o.seccomp)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
		extra = append(extra, f)
		opts += "s"
	}
	if o.init {
		opts += "i"
	}
	rlimits, err := rlimitsOf(sp)
	if err == nil {
		err = ownCaps(sp.Capabilities)
	}
	if err != nil {
		files.close()
		return nil, nil, err
	}
	p := &libcontainer.Process{
		Args: append([]string{initPath, opts}, sp.Args...), Env: sp.Env, Cwd: sp.Cwd,
		UID: int(sp.User.UID), GID: int(sp.User.GID),
		AppArmorProfile: sp.ApparmorProfile, Label: sp.SelinuxLabel,
		NoNewPrivileges: &sp.NoNewPrivileges, Rlimits: rlimits,
		Stdin: o.ends.stdin, Stdout: o.ends.stdout, Stderr: o.ends.stderr,
		ExtraFiles: extra,
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	for _, g := range sp.User.AdditionalGids {
		p.AdditionalGroups = append(p.AdditionalGroups, int(g))
	}
	p.Capabilities = &configs.Capabilities{}
	if c := sp.Capabilities; c != nil {
		*p.Capabilities = configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Permitted: c.Permitted,
			Inheritable: c.Inheritable, Ambient: c.Ambient,
		}
	}
	return p, files, nil
}

// identify learns who pid, our child, is.
func (t *task) identify(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	start, err := startTime(pid)
	if err != nil {
		unix.Close(fd)
		return err
	}
	t.pidfd = fd
	t.rec.Process = shimapi.Process{PID: pid, StartTime: start}
	return nil
}

// adoptable opens p, if it is still the same process.
func adoptable(p shimapi.Process) (pidfd int, err error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, err
	}
	if start, err := startTime(p.PID); err != nil || start != p.StartTime {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// startTime is field 22 of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	text, err := stat(pid, 22)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// parentOf is field 4 of /proc/PID/stat.
func parentOf(pid int) (int, error) {
	text, err := stat(pid, 4)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// stat is a field of /proc/PID/stat after the name, which may hold anything but
// is the last to hold a ")".
func stat(pid, field int) (string, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	i := strings.LastIndexByte(string(raw), ')')
	fields := strings.Fields(string(raw[i+1:]))
	if len(fields) <= field-3 {
		return "", fmt.Errorf("read field %d of process %d from %q", field, pid, raw)
	}
	return fields[field-3], nil
}

// trim takes the words of libcontainer that say nothing to a person.
func trim(err error) error {
	text := err.Error()
	for _, noise := range []string{
		"unable to start container process: ", "error during container init: ", "unable to create new parent process: ",
		"error starting setns process: ", "error executing setns process: ", "runc init error(s): ",
	} {
		text = strings.ReplaceAll(text, noise, "")
	}
	if text == err.Error() {
		return err
	}
	return &trimmed{text, err}
}

type trimmed struct {
	text string
	err  error
}

func (t *trimmed) Error() string { return t.text }
func (t *trimmed) Unwrap() error { return t.err }

// outputEnds is what a new process gets as 0, 1 and 2.
type outputEnds struct{ stdin, stdout, stderr *os.File }

func (e outputEnds) close() {
	for _, f := range []*os.File{e.stdin, e.stdout, e.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// openOutput makes t's pipes and log, puts the readers into the reaper's store
// and starts to read. Without stdin the process reads /dev/null.
func (s *Server) openOutput(t *task, stdin []byte) (e outputEnds, err error) {
	file, err := openLog(t.rec.Log, 2)
	if err != nil {
		return e, errs.E(errs.Invalid, "open the log: %w", err)
	}
	if e.stdin, err = openStdin(stdin); err != nil {
		return e, err
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
		if err := s.read(t, o.name, p[0], file); err != nil {
			return e, err
		}
	}
	return e, nil
}

// read makes fd, the reading end of a pipe of t, part of the log.
func (s *Server) read(t *task, name string, fd int, file *logFile) error {
	st := &stream{key: t.key() + "/" + name, name: name, fd: fd, file: file}
	t.out = append(t.out, st)
	return errors.Join(s.keeper.store("log:"+st.key, fd), s.logs.add(st))
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
// input survives the shim.
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
