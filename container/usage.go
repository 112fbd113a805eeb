package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Usage is what a container uses.
type Usage struct {
	CPU    time.Duration // since its start
	Memory int64         // bytes, without page cache that is not in use
	// Periods of its CPU limit since its start, and those in which it was held
	// up; without a limit there are none.
	Periods, Throttled uint64
}

// Usage reads what containers use, from their cgroups alone: three or four
// files each. One that does not run is left out.
func (r *Runtime) Usage(ids []string) (map[string]Usage, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("find the cgroups: %w", err)
	}
	from, err := meterIn(string(mounts))
	if err != nil {
		return nil, err
	}
	all := make(map[string]Usage, len(ids))
	for _, id := range ids {
		u, err := from.read(r.CgroupOf(id))
		switch {
		case gone(err):
		case err != nil:
			return nil, fmt.Errorf("usage of container %s: %w", id, err)
		default:
			all[id] = u
		}
	}
	return all, nil
}

// meter is where the cgroup controllers are mounted. On a unified hierarchy it
// is one place.
type meter struct {
	cpu, cpuacct, memory string
	unified              bool
	buf                  []byte
}

// meterIn finds the controllers among the mounts. On machines that have both
// kinds of hierarchies they are on the old ones.
func meterIn(mounts string) (*meter, error) {
	m := &meter{buf: make([]byte, 16<<10)} // memory.stat is a page at most
	unified := ""
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != "/sys/fs/cgroup" && !strings.HasPrefix(f[1], "/sys/fs/cgroup/") {
			continue
		}
		switch f[2] {
		case "cgroup2":
			unified = f[1]
		case "cgroup":
			options := strings.Split(f[3], ",")
			for controller, to := range map[string]*string{"cpu": &m.cpu, "cpuacct": &m.cpuacct, "memory": &m.memory} {
				if slices.Contains(options, controller) {
					*to = f[1]
				}
			}
		}
	}
	if unified != "" && m.cpu == "" && m.cpuacct == "" && m.memory == "" {
		m.cpu, m.cpuacct, m.memory, m.unified = unified, unified, unified, true
	}
	if m.cpu == "" || m.cpuacct == "" || m.memory == "" {
		return nil, errs.E(errs.Unavailable, "the cgroup controllers cpu, cpuacct and memory are not all mounted below /sys/fs/cgroup")
	}
	return m, nil
}

func (m *meter) read(cgroup string) (u Usage, err error) {
	var cpu, inactive uint64
	var memory int64
	stat := filepath.Join(m.cpu, cgroup, "cpu.stat")
	if m.unified {
		err = m.fields(stat, field{"usage_usec", &cpu}, field{"nr_periods", &u.Periods}, field{"nr_throttled", &u.Throttled})
		u.CPU = time.Duration(cpu) * time.Microsecond
		memory = m.number(filepath.Join(m.memory, cgroup, "memory.current"), &err)
		err = errors.Join(err, m.fields(filepath.Join(m.memory, cgroup, "memory.stat"), field{"inactive_file", &inactive}))
	} else {
		err = m.fields(stat, field{"nr_periods", &u.Periods}, field{"nr_throttled", &u.Throttled})
		u.CPU = time.Duration(m.number(filepath.Join(m.cpuacct, cgroup, "cpuacct.usage"), &err))
		memory = m.number(filepath.Join(m.memory, cgroup, "memory.usage_in_bytes"), &err)
		err = errors.Join(err, m.fields(filepath.Join(m.memory, cgroup, "memory.stat"), field{"total_inactive_file", &inactive}))
	}
	u.Memory = max(memory-int64(min(inactive, 1<<62)), 0)
	return u, err
}

// field is a line "name number" and where the number goes.
type field struct {
	name string
	to   *uint64
}

// fields reads lines of a file. Those that are not there leave 0.
func (m *meter) fields(path string, want ...field) error {
	text, err := m.file(path)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		for _, f := range want {
			if string(name) != f.name {
				continue
			}
			if *f.to, err = strconv.ParseUint(string(value), 10, 64); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return nil
}

// number reads a file that holds one number.
func (m *meter) number(path string, err *error) int64 {
	text, ferr := m.file(path)
	var n uint64
	if ferr == nil {
		n, ferr = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	*err = errors.Join(*err, ferr)
	return int64(min(n, 1<<63-1))
}

// file reads a small file of the kernel with as few calls as can be: there are
// thousands. What it returns is good until the next call.
func (m *meter) file(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, m.buf)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return m.buf[:n], nil
}
