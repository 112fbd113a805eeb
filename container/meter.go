package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Meter reads what containers use. It keeps their files open, so that to read
// one again is a single system call: there are some 15 a container. It is not
// for use by several goroutines at once.
type Meter struct {
	sources []source
	room    int // for files that stay open
	runs    map[string]*run
	buf     []byte
}

// source is a file of a cgroup, and what it says.
type source struct {
	root, name string
	read       func(text []byte, s *Stats)
	needed     bool // each cgroup has it
}

// run is a container and its open files.
type run struct {
	process shimapi.Process
	cgroup  string
	files   []int      // descriptors, as the sources
	proc    int        // the directory of the process in /proc
	nics    []NICStats // of the last time
}

// What is in the place of a descriptor.
const (
	closed = -1
	absent = -2 // there is no such file
)

// NewMeter makes a Meter of the cgroups of this machine.
func NewMeter() (*Meter, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("find the cgroups: %w", err)
	}
	return newMeter(string(mounts))
}

// mayStayOpen are the files that a Meter keeps at most: half of what the daemon
// may have.
func mayStayOpen() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur/2, 1<<20))
}

// hierarchies are where the controllers are mounted: those of v1 by name, and
// v2's. On machines that have both, a controller is on one of them.
func hierarchies(mounts string) (v1 map[string]string, v2 string) {
	v1 = map[string]string{}
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != "/sys/fs/cgroup" && !strings.HasPrefix(f[1], "/sys/fs/cgroup/") {
			continue
		}
		switch f[2] {
		case "cgroup2":
			v2 = f[1]
		case "cgroup":
			for option := range strings.SplitSeq(f[3], ",") {
				v1[option] = f[1]
			}
		}
	}
	return v1, v2
}

// newMeter finds the files by the mounts.
func newMeter(mounts string) (*Meter, error) {
	m := &Meter{room: mayStayOpen(), runs: map[string]*run{}, buf: make([]byte, 64<<10)}
	v1, v2 := hierarchies(mounts)
	for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "blkio"} {
		switch root := v1[controller]; {
		case root != "":
			m.add(root, v1Files(controller))
		case v2 != "":
			m.add(v2, v2Files(controller))
		case controller == "cpu" || controller == "cpuacct" || controller == "memory":
			return nil, errs.E(errs.Unavailable, "the cgroup controllers cpu, cpuacct and memory are not all mounted below /sys/fs/cgroup")
		}
	}
	if v2 != "" {
		m.add(v2, []source{
			{name: "cpu.pressure", read: cpuPressure}, {name: "memory.pressure", read: memoryPressure}, {name: "io.pressure", read: ioPressure},
		})
	}
	return m, nil
}

func (m *Meter) add(root string, files []source) {
	for _, s := range files {
		s.root = root
		m.sources = append(m.sources, s)
	}
}

func v1Files(controller string) []source {
	return map[string][]source{
		"cpu":     {{name: "cpu.stat", read: cpuStat, needed: true}},
		"cpuacct": {{name: "cpuacct.usage", read: cpuacctUsage, needed: true}, {name: "cpuacct.stat", read: cpuacctStat}},
		"memory": {
			{name: "memory.usage_in_bytes", read: memoryUsage, needed: true},
			{name: "memory.stat", read: memoryStat, needed: true},
			{name: "memory.max_usage_in_bytes", read: memoryPeak},
			{name: "memory.oom_control", read: oomKills},
		},
		"pids": {{name: "pids.current", read: tasks}, {name: "pids.max", read: taskLimit}, {name: "cgroup.procs", read: processes}},
		"blkio": {
			{name: "blkio.throttle.io_service_bytes_recursive", read: blkioBytes}, {name: "blkio.throttle.io_serviced_recursive", read: blkioOps},
		},
	}[controller]
}

// v2Files has nothing for cpuacct: what that is in v1 is in cpu.
func v2Files(controller string) []source {
	return map[string][]source{
		"cpu": {{name: "cpu.stat", read: cpuStat, needed: true}},
		"memory": {
			{name: "memory.current", read: memoryUsage, needed: true},
			{name: "memory.stat", read: memoryStat, needed: true},
			{name: "memory.peak", read: memoryPeak},
			{name: "memory.max", read: memoryLimit},
			{name: "memory.swap.current", read: memorySwap},
			{name: "memory.events", read: oomKills},
		},
		"pids":  {{name: "pids.current", read: tasks}, {name: "pids.max", read: taskLimit}, {name: "cgroup.procs", read: processes}},
		"blkio": {{name: "io.stat", read: ioStat}},
	}[controller]
}

// Subject is what a Meter reads: the cgroup of a container, and a process that
// sees its NICs; the zero one: they are not its own.
type Subject struct {
	ID, Cgroup string
	Process    shimapi.Process
}

// Read reads what the containers use that run, by their place in all, and
// calls f with it. Files of those that are not in all are closed.
func (m *Meter) Read(all []Subject, f func(i int, s *Stats)) error {
	wanted := make(map[string]bool, len(all))
	var s Stats
	for i, subject := range all {
		wanted[subject.ID] = true
		s = Stats{}
		err := m.read(subject, &s)
		switch {
		case gone(err):
			m.drop(subject.ID) // of a later run of that name the files are others
		case err != nil:
			return fmt.Errorf("measure container %s: %w", subject.ID, err)
		default:
			f(i, &s)
		}
	}
	for id := range m.runs {
		if !wanted[id] {
			m.drop(id)
		}
	}
	return nil
}

// Close closes all files. The next Read opens them again.
func (m *Meter) Close() {
	for id := range m.runs {
		m.drop(id)
	}
}

func (m *Meter) drop(id string) {
	r, ok := m.runs[id]
	if !ok {
		return
	}
	for _, fd := range append(r.files, r.proc) {
		if fd >= 0 {
			_ = unix.Close(fd)
			m.room++
		}
	}
	delete(m.runs, id)
}

func (m *Meter) read(subject Subject, s *Stats) error {
	r := m.runs[subject.ID]
	if r != nil && r.process != subject.Process {
		m.drop(subject.ID)
		r = nil
	}
	if r == nil {
		r = m.begin(subject)
	}
	for i := range m.sources {
		text, err := m.text(r, i)
		if err != nil {
			return err
		}
		m.sources[i].read(text, s)
	}
	s.Memory.WorkingSet = s.Memory.Usage - min(s.Memory.Usage, s.Memory.inactive)
	r.nics = m.network(r)
	s.NICs = r.nics
	return nil
}

// begin opens nothing but the directory of the process: that of a later one
// with its pid would be another.
func (m *Meter) begin(subject Subject) *run {
	r := &run{process: subject.Process, cgroup: subject.Cgroup, files: slices.Repeat([]int{closed}, len(m.sources)), proc: absent}
	m.runs[subject.ID] = r
	if subject.Process.PID == 0 || m.room < 1 {
		return r
	}
	dir, err := OpenProc(subject.Process, "")
	if err != nil {
		return r // it has ended, as its cgroup will tell
	}
	defer dir.Close()
	if r.proc, err = unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		r.proc = absent
		return r
	}
	m.room--
	return r
}

// text is what a file of a run says until the next one is read; nil: this
// kernel has no such file.
func (m *Meter) text(r *run, i int) ([]byte, error) {
	if r.files[i] == absent {
		return nil, nil
	}
	s := &m.sources[i]
	fd := r.files[i]
	if fd == closed {
		var err error
		path := filepath.Join(s.root, r.cgroup, s.name)
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return m.missing(r, i, &fs.PathError{Op: "open", Path: path, Err: err})
		}
		if m.room > 0 {
			m.room--
			r.files[i] = fd
		} else {
			defer unix.Close(fd)
		}
	}
	n, err := unix.Pread(fd, m.buf, 0)
	for more := n; err == nil && more > pageful && n < len(m.buf); n += more {
		more, err = unix.Pread(fd, m.buf[n:], int64(n))
	}
	if err != nil {
		return m.missing(r, i, &fs.PathError{Op: "read", Path: s.name, Err: err})
	}
	return m.buf[:n], nil
}

// pageful is what a read gives at least of a file that goes on: the kernel
// gives a list as many whole lines at a time as a page holds.
const pageful = 3 << 10

// missing notes that a file that a kernel need not have is not there, or cannot
// be read, as those of pressure when that is switched off.
func (m *Meter) missing(r *run, i int, err error) ([]byte, error) {
	if m.sources[i].needed || errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	if fd := r.files[i]; fd >= 0 {
		_ = unix.Close(fd)
		m.room++
	}
	r.files[i] = absent
	return nil, nil
}

// network reads the NICs that a process of the run sees. The file is opened
// each time: while it is open its network namespace cannot go, nor the links in it.
func (m *Meter) network(r *run) []NICStats {
	if r.proc < 0 {
		return nil
	}
	fd, err := unix.Openat(r.proc, "net/dev", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // the process is ending
	}
	defer unix.Close(fd)
	n := 0
	for n < len(m.buf) { // seq_file gives a page at a time
		more, err := unix.Read(fd, m.buf[n:])
		if err != nil || more == 0 {
			break
		}
		n += more
	}
	return netDev(m.buf[:n], r.nics)
}
