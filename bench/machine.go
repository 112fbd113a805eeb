package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// description says where figures come from.
type description struct {
	CPU       string `json:"cpu"`
	CPUs      int    `json:"cpus"`
	MemoryMiB int    `json:"memoryMiB"`
	Kernel    string `json:"kernel"`
	Cgroups   string `json:"cgroups"`
	Disk      string `json:"disk"`
	Date      string `json:"date"`
	Load      string `json:"loadBefore"`
	LoadAfter string `json:"loadAfter"`
	// Noisy counts samples for which the machine did not become quiet.
	Noisy int `json:"noisySamples"`
}

func machine() description {
	d := description{CPUs: runtime.NumCPU(), Load: loadavg(), Date: time.Now().UTC().Format(time.DateOnly)}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			d.CPU = strings.TrimSpace(v)
			break
		}
	}
	d.MemoryMiB = number(read("/proc/meminfo"), "MemTotal:") / 1024
	d.Kernel = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	v1 := strings.Contains(read("/proc/self/mounts"), " cgroup ")
	v2 := strings.Contains(read("/proc/self/mounts"), " cgroup2 ")
	switch {
	case v1 && v2:
		d.Cgroups = "v1+v2 hybrid"
	case v1:
		d.Cgroups = "v1"
	default:
		d.Cgroups = "v2"
	}
	var st unix.Statfs_t
	if unix.Statfs(os.TempDir(), &st) == nil {
		d.Disk = map[int64]string{
			unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
			unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
		}[int64(st.Type)] //nolint:unconvert // another type on other processors
	}
	return d
}

func (d description) String() string {
	return fmt.Sprintf("%d × %s, %d MiB, Linux %s, cgroup %s, %s, %s; load before %s, after %s; %d samples taken although the machine was busy",
		d.CPUs, d.CPU, d.MemoryMiB, d.Kernel, d.Cgroups, d.Disk, d.Date, d.Load, d.LoadAfter, d.Noisy)
}

// read is a file of /proc, empty when it cannot be read.
func read(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(raw)
}

// number is the first number behind a word.
func number(text, word string) int {
	_, rest, ok := strings.Cut(text, word)
	if f := strings.Fields(rest); ok && len(f) > 0 {
		n, _ := strconv.Atoi(f[0])
		return n
	}
	return 0
}

func loadavg() string {
	f := strings.Fields(read("/proc/loadavg"))
	if len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// now is CLOCK_MONOTONIC, as the container's program reads it.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("BUG: no monotonic clock: " + err.Error())
	}
	return t.Nano()
}

const (
	pause     = 100 * time.Millisecond // of idleness before an isolated sample
	maxPauses = 50
	busyShare = 0.15 // of all CPUs, above which somebody else is at work
)

// rest waits until the machine was idle for a pause. It gives up after a while
// and counts that.
func (b *bench) rest(ctx context.Context) error {
	for range maxPauses {
		busy, total := ticks()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		busy2, total2 := ticks()
		if float64(busy2-busy) <= busyShare*float64(total2-total) {
			return nil
		}
	}
	b.report.Machine.Noisy++
	return nil
}

// ticks are the CPUs' time at work and at all.
func ticks() (busy, total int) {
	line, _, _ := strings.Cut(read("/proc/stat"), "\n")
	for i, f := range strings.Fields(line) {
		n, _ := strconv.Atoi(f)
		total += n
		if i != 4 && i != 5 { // idle, iowait
			busy += n
		}
	}
	return busy, total
}

// pss is a process's share of memory in KiB, rss all it has mapped.
func pss(pid int) int { return number(read(fmt.Sprintf("/proc/%d/smaps_rollup", pid)), "\nPss:") }
func rss(pid int) int { return number(read(fmt.Sprintf("/proc/%d/status", pid)), "VmRSS:") }

// named are the processes whose program has that name.
func named(comm string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range all {
		raw, err := os.ReadFile(f)
		if err == nil && string(bytes.TrimSpace(raw)) == comm {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// cpuTime is what the threads of a process have used.
func cpuTime(pid int) time.Duration {
	var sum time.Duration
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range all {
		if v := strings.Fields(read(f)); len(v) > 0 {
			ns, _ := strconv.ParseInt(v[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// written is what a process has sent to disks, in bytes.
func written(pid int) int { return number(read(fmt.Sprintf("/proc/%d/io", pid)), "\nwrite_bytes:") }

// disk is the space that a directory takes, in bytes.
func disk(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil // what is gone takes no space
	})
	return sum
}
