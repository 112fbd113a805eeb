package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/programs"
	"github.com/buoy-edge/buoy/internal/version"
)

// Config says where a Runtime lives.
type Config struct {
	Run    string // required: directory of sockets and of what lasts until reboot
	Cgroup string // required: path of our cgroup below each hierarchy's root, "/buoy"
	Reaper string // required: program buoy-reaper
	Shim   string // required: program buoy-shim
	Log    *slog.Logger
}

// Runtime runs containers through the node's one shim.
type Runtime struct {
	cfg     Config
	shim    *shimapi.Client
	seccomp profiles
}

// NewRuntime checks cfg. Nothing happens before Start.
func NewRuntime(cfg Config) (*Runtime, error) {
	for name, v := range map[string]string{"Run": cfg.Run, "Cgroup": cfg.Cgroup, "Reaper": cfg.Reaper, "Shim": cfg.Shim} {
		if v == "" {
			return nil, fmt.Errorf("container runtime: %s is missing", name)
		}
	}
	return &Runtime{
		cfg:     cfg,
		shim:    shimapi.NewClient(filepath.Join(cfg.Run, "shim.sock")),
		seccomp: profiles{dir: filepath.Join(cfg.Run, "seccomp")},
	}, nil
}

// Shim is the client of the node's shim.
func (r *Runtime) Shim() *shimapi.Client { return r.shim }

// CgroupOf is the cgroup path of a container below each hierarchy's root.
func (r *Runtime) CgroupOf(id string) string { return filepath.Join(r.cfg.Cgroup, id+idMark) }

// shimStart bounds the wait for a new shim: it takes 20 ms, and on a machine that
// has just booted, with few and busy CPUs, took more than ten seconds (2026-12).
const shimStart = 30 * time.Second

// Start makes sure that a shim of this version answers, under a reaper, outside
// the cgroup of the caller so that neither systemd nor a limit on buoyd reaches
// them. Containers of a shim that was already there run on.
func (r *Runtime) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shimStart)
	defer cancel()
	if err := r.point(); err != nil {
		return err
	}
	hello, err := r.shim.Hello(ctx)
	switch {
	case errors.Is(err, errs.Unavailable):
		if hello, err = r.launch(ctx); err != nil {
			return err
		}
	case err != nil:
		return err
	case hello.Version != shimapi.Version || hello.Build != version.Version:
		r.cfg.Log.Info("replacing the shim of another version", "old", hello.Build)
		if hello, err = r.replace(ctx, hello.PID); err != nil {
			return err
		}
	}
	return r.place(hello.PID)
}

// shimLink is where the reaper finds the shim. It outlives daemons whose
// programs lie elsewhere than those of its own time.
func (r *Runtime) shimLink() string { return filepath.Join(r.cfg.Run, "buoy-shim") }

// point makes our shim the one that the reaper starts.
func (r *Runtime) point() error {
	if now, err := os.Readlink(r.shimLink()); err == nil && now == r.cfg.Shim {
		return nil
	}
	tmp := r.shimLink() + ".new"
	err := os.Remove(tmp)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.Symlink(r.cfg.Shim, tmp)
	}
	if err == nil {
		err = os.Rename(tmp, r.shimLink())
	}
	if err != nil {
		return fmt.Errorf("say where buoy-shim is: %w", err)
	}
	return nil
}

// launch starts the reaper, detached, which starts the shim.
func (r *Runtime) launch(ctx context.Context) (shimapi.Hello, error) {
	_, ended, err := programs.Detach(filepath.Join(r.cfg.Run, "shim.log"), r.cfg.Reaper, r.cfg.Run, r.shimLink())
	if err != nil {
		return shimapi.Hello{}, err
	}
	return r.await(ctx, ended)
}

// replace ends a shim; its reaper, if it lives, starts the program again.
func (r *Runtime) replace(ctx context.Context, pid int) (shimapi.Hello, error) {
	reaper, err := r.reaperOf(pid)
	if err != nil {
		return shimapi.Hello{}, err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return shimapi.Hello{}, fmt.Errorf("end the old buoy-shim: %w", err)
	}
	r.shim.Close()
	if reaper == 0 {
		if h, err := r.launch(ctx); err != nil || h.PID != pid {
			return h, err
		}
	}
	for {
		h, err := r.await(ctx, nil)
		if err != nil || h.PID != pid {
			return h, err
		}
	}
}

// await polls for a listening shim, which has no other way to say so: its
// reaper may be one that an earlier buoyd started.
func (r *Runtime) await(ctx context.Context, ended <-chan error) (shimapi.Hello, error) {
	const least, most = 2 * time.Millisecond, 50 * time.Millisecond
	for pause := least; ; pause = min(pause*3/2, most) {
		hello, err := r.shim.Hello(ctx)
		if err == nil {
			return hello, nil
		}
		select {
		case <-ctx.Done():
			return hello, errs.E(errs.Unavailable, "buoy-shim does not answer; see %s", filepath.Join(r.cfg.Run, "shim.log"))
		case err := <-ended:
			if err == nil { // another one serves here already and is starting its shim again
				ended = nil
				continue
			}
			return hello, errs.E(errs.Unavailable, "buoy-reaper ended at once (%v); see %s", err, filepath.Join(r.cfg.Run, "shim.log"))
		case <-time.After(pause):
		}
	}
}

// Clear removes every container, the shim, its reaper and our cgroups. A shim
// that is not there is started first: it knows what its forerunner left.
func (r *Runtime) Clear(ctx context.Context) error {
	if err := r.Start(ctx); err != nil {
		return err
	}
	all, err := r.shim.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := r.shim.Delete(ctx, c.ID); err != nil {
			return fmt.Errorf("delete container %s: %w", c.ID, err)
		}
	}
	if err := r.shim.Quit(ctx); err != nil {
		return err
	}
	r.shim.Close()
	return r.eachCgroup(func(dir string) error { return removeCgroup(ctx, dir) })
}

// reaperOf is the reaper of a shim, 0 if it has died: then the shim's parent is
// PID 1 or another process that is not ours to touch.
func (r *Runtime) reaperOf(shim int) (int, error) {
	pid, err := parent(shim)
	if err != nil {
		return 0, err
	}
	raw, err := os.ReadFile(filepath.Join(r.cfg.Run, "reaper.lock"))
	if err != nil || strings.TrimSpace(string(raw)) != strconv.Itoa(pid) {
		return 0, nil //nolint:nilerr // no lock, no reaper
	}
	return pid, nil
}

func parent(pid int) (int, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("find buoy-reaper: %w", err)
	}
	// pid (comm) state ppid: comm may hold anything but is the last to hold ")".
	_, rest, _ := strings.Cut(string(raw[strings.LastIndexByte(string(raw), ')'):]), " ")
	f := strings.Fields(rest)
	if len(f) < 2 {
		return 0, fmt.Errorf("find buoy-reaper: /proc/%d/stat has no parent", pid)
	}
	return strconv.Atoi(f[1])
}
