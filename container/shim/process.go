//go:build linux && cgo

package shim

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// stubOptions is what buoy-init shall do before and instead of the program.
type stubOptions struct {
	init    bool
	seccomp string // profile
	classic bool   // libcontainer loads it
	gate    *gate
	ends    processEnds
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
	if o.init && o.ends.console != nil {
		opts += "t"
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
		ConsoleSocket: o.ends.console,
		ExtraFiles:    extra,
	}
	if o.ends.console == nil {
		p.Stdin, p.Stdout, p.Stderr = o.ends.stdin, o.ends.stdout, o.ends.stderr
	}
	if size := sp.ConsoleSize; size != nil {
		p.ConsoleWidth, p.ConsoleHeight = uint16(size.Width), uint16(size.Height)
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
			Bounding: c.Bounding, Effective: unreadable(c.Effective), Permitted: c.Permitted,
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
