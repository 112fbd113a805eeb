package inventory

import (
	"bytes"
	"errors"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Process is what the kernel lists of one. PID and StartTime together name it
// for good.
type Process struct {
	PID, PPID    int
	NSPID        int     // its pid in the innermost pid namespace
	Comm         string  // name, at most 15 bytes
	Cmdline      string  // arguments joined by spaces; "[name]" for kernel threads and zombies
	State        string  // "R", "S", "D", "Z", "T", …
	User, System float64 // seconds of processor time
	RSS          int64   // bytes
	VMS          int64
	Swap         int64
	StartTime    uint64 // clock ticks after boot
	Threads      int
	UID          int
}

// maxCmdline is how much of a command line is shown.
const maxCmdline = 64 << 10

// Process reads one process; NotFound if there is none with that pid.
func (f FS) Process(pid int) (Process, error) {
	if pid <= 0 {
		return Process{}, errs.E(errs.Invalid, "process %d: a pid is above 0", pid)
	}
	p, err := f.process(pid, &buffers{page: int64(unix.Getpagesize())})
	if vanished(err) {
		return Process{}, errs.E(errs.NotFound, "process %d: %w", pid, err)
	}
	if err != nil {
		return Process{}, errs.E(errs.Unavailable, "process %d: %w", pid, err)
	}
	return p, nil
}

// Processes lists all processes by pid.
func (f FS) Processes() ([]Process, error) {
	pids, err := f.pids()
	if err != nil {
		return nil, err
	}
	return f.ProcessesOf(pids), nil
}

// ProcessesOf lists those of the pids that are there, by pid.
func (f FS) ProcessesOf(pids []int) []Process {
	processes := make([]Process, 0, len(pids))
	b := &buffers{page: int64(unix.Getpagesize())}
	for _, pid := range pids {
		if p, err := f.process(pid, b); err == nil {
			processes = append(processes, p)
		}
	}
	slices.SortFunc(processes, func(a, b Process) int { return a.PID - b.PID })
	return processes
}

// buffers keeps memory between processes.
type buffers struct {
	page int64
	buf  []byte
}

func (b *buffers) read(dir int, name string, limit int) ([]byte, error) {
	text, err := readAt(dir, name, b.buf, limit)
	if cap(text) > cap(b.buf) {
		b.buf = text
	}
	return text, err
}

// process reads all files below one open folder: once the process has ended it
// is empty, even if another one has got the pid.
func (f FS) process(pid int, b *buffers) (Process, error) {
	dir, err := retry(func() (int, error) {
		return unix.Open(f.proc(strconv.Itoa(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return Process{}, err
	}
	defer unix.Close(dir)
	p := Process{PID: pid, NSPID: pid}
	text, err := b.read(dir, "stat", 8<<10)
	if err != nil {
		return Process{}, err
	}
	if !p.parseStat(text, b.page) {
		return Process{}, errs.E(errs.Internal, "stat is %q", text)
	}
	if text, err = b.read(dir, "status", 64<<10); vanished(err) {
		return Process{}, err
	} else if err == nil {
		p.parseStatus(text)
	}
	text, err = b.read(dir, "cmdline", maxCmdline)
	switch {
	case vanished(err):
		return Process{}, err
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		p.Cmdline = p.Comm
	default:
		p.Cmdline = cmdline(text, p.Comm)
	}
	return p, nil
}

func cmdline(text []byte, comm string) string {
	text = bytes.TrimRight(text, "\x00 ")
	if len(text) == 0 {
		return "[" + comm + "]"
	}
	return clean(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
}

// parseStat reads "pid (comm) state ppid …"; comm may have blanks and brackets,
// nothing after it has.
func (p *Process) parseStat(text []byte, page int64) bool {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return false
	}
	p.Comm = clean(text[open+1 : end])
	words := bytes.Fields(text[end+1:]) // words[i] is field i+3 of proc(5)
	if len(words) < 22 {
		return false
	}
	num := func(field int) int64 {
		n, err := strconv.ParseInt(string(words[field-3]), 10, 64)
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	p.State = clean(words[0])
	p.PPID = int(num(4))
	p.User, p.System = float64(num(14))/ticks, float64(num(15))/ticks
	p.Threads = int(num(20))
	p.StartTime = uint64(num(22))
	p.VMS = num(23)
	p.RSS = scaled(num(24), page)
	return true
}

// parseStatus reads what only status has.
func (p *Process) parseStatus(text []byte) {
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch string(key) {
		case "NSpid":
			if words := bytes.Fields(value); len(words) > 0 {
				if pid := number(string(words[len(words)-1])); pid > 0 {
					p.NSPID = int(pid)
				}
			}
		case "VmSwap":
			p.Swap = scaled(number(string(bytes.TrimSpace(value))), 1024)
		case "Uid":
			if words := bytes.Fields(value); len(words) > 0 {
				p.UID = int(number(string(words[0])))
			}
		}
	}
}
