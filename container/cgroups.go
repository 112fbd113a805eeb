package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Names below our cgroup: those of containers end in idMark, which no id has and
// which keeps ids like "tasks" off the kernel's own files.
const (
	idMark     = "@"
	shimCgroup = "@shim"
)

// place moves the shim and its reaper to a cgroup of their own in every hierarchy.
func (r *Runtime) place(shim int) error {
	pids := []int{shim}
	if reaper, err := r.reaperOf(shim); err != nil {
		return err
	} else if reaper != 0 {
		pids = []int{reaper, shim}
	}
	return r.Beside(pids...)
}

// Beside moves processes of ours that outlive us out of our cgroup, into the
// shim's.
func (r *Runtime) Beside(pids ...int) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, r.cfg.Cgroup, shimCgroup)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the shim's cgroup: %w", err)
		}
		if err := inheritCpuset(root, dir); err != nil {
			return err
		}
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0); err != nil {
				return fmt.Errorf("move process %d to the shim's cgroup: %w", pid, err)
			}
		}
	}
	return nil
}

// inheritCpuset fills what cgroup v1 leaves empty in a new cpuset, which then
// takes no process.
func inheritCpuset(root, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.clone_children")); err != nil {
			return nil // not cgroup v1
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		at := root
		for part := range strings.SplitSeq(rel, "/") {
			above, err := os.ReadFile(filepath.Join(at, name))
			if err != nil {
				return nil // not the cpuset hierarchy
			}
			at = filepath.Join(at, part)
			have, err := os.ReadFile(filepath.Join(at, name))
			if err == nil && strings.TrimSpace(string(have)) == "" {
				err = os.WriteFile(filepath.Join(at, name), above, 0)
			}
			if err != nil {
				return fmt.Errorf("set up cpuset %s: %w", at, err)
			}
		}
	}
	return nil
}

// Sweep removes the cgroups of containers that are not live, and what runs in them.
func (r *Runtime) Sweep(ctx context.Context, live func(id string) bool) error {
	return r.eachCgroup(func(dir string) error {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		for _, e := range entries {
			id, _ := strings.CutSuffix(e.Name(), idMark)
			if e.IsDir() && e.Name() != shimCgroup && !live(id) {
				err = errors.Join(err, removeCgroup(ctx, filepath.Join(dir, e.Name())))
			}
		}
		return err
	})
}

// Clean removes the cgroup of a container that the shim does not know, and what
// runs in it: the shim cannot find it again when its record of it is damaged.
func (r *Runtime) Clean(ctx context.Context, id string) error {
	return r.eachCgroup(func(dir string) error { return removeCgroup(ctx, filepath.Join(dir, id+idMark)) })
}

// eachCgroup calls f with our directory in every hierarchy.
func (r *Runtime) eachCgroup(f func(dir string) error) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		err = errors.Join(err, f(filepath.Join(root, r.cfg.Cgroup)))
	}
	return err
}

// removeCgroup removes a cgroup with those below it, after killing what is in
// them, and waits for what is on its way out.
func removeCgroup(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, cgroupWait)
	defer cancel()
	for {
		left, err := tryRemoveCgroup(dir)
		if err != nil || !left {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: something runs in it and cannot be killed: %w", dir, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// cgroupWait is how long a killed process may take to leave: one in an
// uninterruptible wait for a disk takes its time.
const cgroupWait = 10 * time.Second

func tryRemoveCgroup(dir string) (left bool, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		l, err := tryRemoveCgroup(filepath.Join(dir, e.Name()))
		if err != nil {
			return false, err
		}
		left = left || l
	}
	if left {
		return true, nil
	}
	err = os.Remove(dir)
	switch {
	case err == nil || errors.Is(err, os.ErrNotExist):
		return false, nil
	case !errors.Is(err, syscall.EBUSY):
		return false, fmt.Errorf("remove cgroup: %w", err)
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("remove cgroup: %w", err)
	}
	for text := range strings.FieldsSeq(string(procs)) {
		if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone
		}
	}
	return true, nil
}

// cgroupRoots are the mount points of all cgroup hierarchies, v1 and v2.
func cgroupRoots() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	return parseCgroupRoots(string(raw))
}

func parseCgroupRoots(mounts string) ([]string, error) {
	var roots []string
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") && (f[1] == "/sys/fs/cgroup" || strings.HasPrefix(f[1], "/sys/fs/cgroup/")) {
			roots = append(roots, f[1])
		}
	}
	if len(roots) == 0 {
		return nil, errs.E(errs.Unavailable, "no cgroup hierarchy is mounted below /sys/fs/cgroup")
	}
	return roots, nil
}
