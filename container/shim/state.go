//go:build linux && cgo

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// phase is how far a container or job has come. What a shim finds as making or
// deleting, it removes.
type phase string

const (
	phaseMaking   phase = "making"
	phaseHeld     phase = "held"
	phaseRunning  phase = "running"
	phaseDeleting phase = "deleting"
)

// record is RUN_DIR/shim/ID/PHASE.json. Each phase has a file of its own and
// the furthest counts: replacing one file costs ext4 2 ms, because it flushes
// what is renamed over something.
type record struct {
	Phase   phase             `json:"phase"`
	Boot    string            `json:"boot"` // boot id: pids of another boot mean nothing
	Launch  string            `json:"launch"`
	Started time.Time         `json:"started"`
	Cgroups map[string]string `json:"cgroups"`
	Log     shimapi.Log       `json:"log"`
	Args    []string          `json:"args,omitempty"`
	Classic bool              `json:"classic,omitempty"` // libcontainer loads the seccomp filter, see seccomp.go
	shimapi.Process
}

// jobRecord is RUN_DIR/shim/ID/jobs/JOB/PHASE.json, and what a task knows of
// itself.
type jobRecord struct {
	Phase   phase       `json:"phase"`
	Args    []string    `json:"args"`
	Started time.Time   `json:"started"`
	Log     shimapi.Log `json:"log"`
	OOM     uint64      `json:"oom"`
	shimapi.Process
}

func (s *Server) containerDir(id string) string { return filepath.Join(s.stateDir(), id) }

func (c *container) rootfs() string           { return filepath.Join(c.dir, "rootfs") }
func (c *container) jobsDir() string          { return filepath.Join(c.dir, "jobs") }
func (c *container) jobDir(job string) string { return filepath.Join(c.jobsDir(), job) }
func (c *container) exitFile() string         { return filepath.Join(c.dir, "exit.json") }
func (c *container) save(r record) error      { return write(c.dir, r.Phase, r) }

func (t *task) exitFile() string {
	if t.job == "" {
		return t.c.exitFile()
	}
	return filepath.Join(t.c.jobDir(t.job), "exit.json")
}

// key names a task in the reaper's store and in the log mark.
func (t *task) key() string { return t.c.id + "/" + t.job }

// write makes dir's file of a phase: whole or not at all, should the shim be
// killed. It does not sync: no container survives what the page cache does not.
func write(dir string, p phase, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".new")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, string(p)+".json"))
}

// markDeleting records that rec is being removed. On a full disk, where removing
// is what helps, the file of the last phase is renamed instead. Without its
// directory, which somebody has removed, no later shim knows the container.
func (c *container) markDeleting(rec record) error {
	rec.Phase = phaseDeleting
	err := c.save(rec)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, p := range []phase{phaseRunning, phaseHeld, phaseMaking} {
		if os.Rename(filepath.Join(c.dir, string(p)+".json"), filepath.Join(c.dir, string(phaseDeleting)+".json")) == nil {
			return nil
		}
	}
	return err
}

// furthest reads the record of the furthest phase that dir has, and says which
// that is: a file's name counts, see markDeleting.
func furthest(dir string, v any) (p phase, err error) {
	for _, p = range []phase{phaseDeleting, phaseRunning, phaseHeld, phaseMaking} {
		if err = load(filepath.Join(dir, string(p)+".json"), v); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return p, err
}

// saveExit is durable: an exit code must outlive the machine.
func (t *task) saveExit(e shimapi.Exit) error {
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return atomicfile.Write(t.exitFile(), raw, 0o600)
}

func load(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// loadExit is nil when none is recorded. A file that a power cut left empty
// counts as none.
func loadExit(path string) *shimapi.Exit {
	var e shimapi.Exit
	if load(path, &e) != nil {
		return nil
	}
	return &e
}

func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// validName holds for ids of containers and jobs: they become file names,
// cgroup names and words of the reaper's protocol.
func validName(s string) bool {
	if s == "" || len(s) > 128 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '_', c == '-', c == '.', c == '+':
		default:
			return false
		}
	}
	return true
}
