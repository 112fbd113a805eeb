//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// dirs is every directory of a container's cgroup, one a hierarchy.
func dirs(paths map[string]string) []string {
	return slices.Compact(slices.Sorted(maps.Values(paths)))
}

// oomKills counts what the kernel killed for memory in the container so far.
func oomKills(paths map[string]string) uint64 {
	file := filepath.Join(paths["memory"], "memory.oom_control")
	if paths["memory"] == "" {
		file = filepath.Join(paths[""], "memory.events")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			kills, _ := strconv.ParseUint(strings.TrimSpace(n), 10, 64)
			return kills
		}
	}
	return 0
}

// pidsBelow lists the processes of a cgroup and of those below it.
func pidsBelow(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		got, err := cgroups.GetPids(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		pids = append(pids, got...)
		return nil
	})
	return pids, err
}

// killLimit is how long killed processes may take to go; one that waits for a
// dead disk takes for ever.
const killLimit = 10 * time.Second

// killCgroup kills everything in the cgroups and returns when nothing is left.
func killCgroup(paths map[string]string) error {
	deadline := time.Now().Add(killLimit)
	for wait := 200 * time.Microsecond; ; wait = min(wait*2, 20*time.Millisecond) {
		left, err := killOnce(paths)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errs.E(errs.Unavailable, "processes %v do not die (%s); try again", left, stateOf(left[0]))
		}
		time.Sleep(wait)
	}
}

// killOnce kills by cgroup.kill where there is a unified hierarchy (pure or
// beside the old ones), else pid by pid with the cgroup frozen, so that none
// can fork away. It returns who was there.
func killOnce(paths map[string]string) ([]int, error) {
	unified := paths[""] != "" && cgroups.WriteFile(paths[""], "cgroup.kill", "1") == nil
	var left []int
	for _, dir := range dirs(paths) {
		pids, err := pidsBelow(dir)
		if err != nil {
			return nil, fmt.Errorf("list the processes in %s: %w", dir, err)
		}
		left = append(left, pids...)
	}
	slices.Sort(left)
	left = slices.Compact(left)
	freezer := paths["freezer"]
	if len(left) > 0 && freezer != "" && !unified {
		freeze(freezer, "FROZEN")
	}
	for _, pid := range left {
		_ = unix.Kill(pid, unix.SIGKILL) // pids just read from our own cgroup
	}
	if len(left) > 0 && freezer != "" {
		freeze(freezer, "THAWED")
	}
	return left, nil
}

func freeze(dir, state string) { _ = cgroups.WriteFile(dir, "freezer.state", state) }

func stateOf(pid int) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "gone"
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return "state " + rest[:min(1, len(rest))]
}

// removeCgroup removes the empty cgroups.
func removeCgroup(paths map[string]string) error {
	var all error
	for _, dir := range dirs(paths) {
		if err := cgroups.RemovePath(dir); err != nil {
			all = errors.Join(all, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return all
}
