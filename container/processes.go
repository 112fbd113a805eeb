package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// PIDs are all processes in the container's cgroup, as the host numbers them.
// Those that it moved to cgroups below are among them.
func PIDs(c shimapi.Container) ([]int, error) {
	dir := cgroupDir(c, "pids")
	var pids []int
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil || !e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
		for line := range strings.FieldsSeq(string(raw)) {
			pid, err := strconv.Atoi(line)
			if err != nil {
				return err
			}
			if pid > 0 { // 0: in a pid namespace that is not ours to see
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// gone says that a cgroup was removed before, or while, its file was read.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// cgroupDir is the container's directory for a controller, on whichever kind of
// hierarchy this machine has it.
func cgroupDir(c shimapi.Container, controller string) string {
	if dir, ok := c.Cgroups[controller]; ok {
		return dir
	}
	return c.Cgroups[""]
}

// MemoryUse is what the container's memory cgroup says, in bytes. Limit is 0
// when there is none.
type MemoryUse struct {
	Usage, Limit, Cache, Active, Inactive, Swap int64
}

// Memory reads the container's memory use.
func Memory(c shimapi.Container) (MemoryUse, error) {
	dir := cgroupDir(c, "memory")
	usage, limit, swap := "memory.usage_in_bytes", "memory.limit_in_bytes", ""
	if _, err := os.Stat(filepath.Join(dir, "memory.current")); err == nil {
		usage, limit, swap = "memory.current", "memory.max", "memory.swap.current"
	}
	var m MemoryUse
	var err error
	if m.Usage, err = readNumber(filepath.Join(dir, usage)); err != nil {
		return m, err
	}
	if m.Limit, err = readNumber(filepath.Join(dir, limit)); err != nil {
		return m, err
	}
	// cgroup v1 has no "none": it says a number near 2^63 rounded to pages.
	if m.Limit >= 1<<62 {
		m.Limit = 0
	}
	if swap != "" {
		m.Swap, err = readNumber(filepath.Join(dir, swap))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return m, err
	}
	fields := map[string]*int64{"file": &m.Cache, "cache": &m.Cache, "active_file": &m.Active, "active_anon": &m.Active, "inactive_file": &m.Inactive, "inactive_anon": &m.Inactive}
	if swap == "" {
		fields["swap"] = &m.Swap
	}
	for line := range strings.Lines(string(stat)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to := fields[name]; to != nil {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return m, err
			}
			*to += n
		}
	}
	return m, nil
}

// readNumber reads a file that holds one number, or "max", which is 0.
func readNumber(path string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(raw))
	if text == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return int64(min(n, 1<<63-1)), err
}
