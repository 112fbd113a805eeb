package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
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
func (r *Runtime) CgroupOf(id string) string { return filepath.Join(r.cfg.Cgroup, id) }

// shimStart bounds the wait for a new shim: it takes 20 ms, on a loaded
// single-board computer a hundred times that.
const shimStart = 10 * time.Second

// Start makes sure that a shim of this version answers, under a reaper, outside
// the cgroup of the caller so that neither systemd nor a limit on buoyd reaches
// them. Containers of a shim that was already there run on.
func (r *Runtime) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shimStart)
	defer cancel()
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

// launch starts the reaper, detached, which starts the shim.
func (r *Runtime) launch(ctx context.Context) (shimapi.Hello, error) {
	log, err := os.OpenFile(filepath.Join(r.cfg.Run, "shim.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return shimapi.Hello{}, fmt.Errorf("start buoy-reaper: %w", err)
	}
	defer log.Close()
	// Not CommandContext: the reaper outlives whoever starts it.
	cmd := exec.Command(r.cfg.Reaper, r.cfg.Run, r.cfg.Shim) //nolint:noctx // see above
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return shimapi.Hello{}, fmt.Errorf("start buoy-reaper: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // lasts as long as the reaper, so until we end
	return r.await(ctx, ended)
}

// replace ends a shim; its reaper starts the program again.
func (r *Runtime) replace(ctx context.Context, pid int) (shimapi.Hello, error) {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return shimapi.Hello{}, fmt.Errorf("end the old buoy-shim: %w", err)
	}
	r.shim.Close()
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
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		hello, err := r.shim.Hello(ctx)
		if err == nil {
			return hello, nil
		}
		select {
		case <-ctx.Done():
			return hello, errs.E(errs.Unavailable, "buoy-shim does not answer; see %s", filepath.Join(r.cfg.Run, "shim.log"))
		case err := <-ended:
			return hello, errs.E(errs.Unavailable, "buoy-reaper ended at once (%v); see %s", err, filepath.Join(r.cfg.Run, "shim.log"))
		case <-tick.C:
		}
	}
}

// place moves the shim and its reaper to a cgroup of their own in every hierarchy.
func (r *Runtime) place(shim int) error {
	reaper, err := parent(shim)
	if err != nil {
		return err
	}
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, r.cfg.Cgroup, "@shim")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the shim's cgroup: %w", err)
		}
		if err := inheritCpuset(root, dir); err != nil {
			return err
		}
		for _, pid := range []int{reaper, shim} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0); err != nil {
				return fmt.Errorf("move buoy-shim to its cgroup: %w", err)
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
			return nil //nolint:nilerr // not cgroup v1
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		at := root
		for _, part := range strings.Split(rel, "/") {
			above, err := os.ReadFile(filepath.Join(at, name))
			if err != nil {
				return nil //nolint:nilerr // not the cpuset hierarchy
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

// End ends the shim and its reaper and removes our cgroups. Conflict:
// containers are left.
func (r *Runtime) End(ctx context.Context) error {
	err := r.shim.Quit(ctx)
	if err != nil && !errors.Is(err, errs.Unavailable) {
		return err
	}
	r.shim.Close()
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, r.cfg.Cgroup)
		for _, d := range []string{filepath.Join(dir, "@shim"), dir} {
			if err := removeCgroup(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clear deletes every container and ends the shim and its reaper.
func (r *Runtime) Clear(ctx context.Context) error {
	all, err := r.shim.List(ctx)
	if err != nil && !errors.Is(err, errs.Unavailable) {
		return err
	}
	for _, c := range all {
		if err := r.shim.Delete(ctx, c.ID); err != nil {
			return fmt.Errorf("delete container %s: %w", c.ID, err)
		}
	}
	return r.End(ctx)
}

// removeCgroup waits for the processes in it that are on their way out.
func removeCgroup(ctx context.Context, dir string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: something still runs in it: %w", dir, ctx.Err())
		case <-tick.C:
		}
	}
}

// cgroupRoots are the mount points of all cgroup hierarchies, v1 and v2.
func cgroupRoots() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var roots []string
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") && strings.HasPrefix(f[1], "/sys/fs/cgroup") {
			roots = append(roots, f[1])
		}
	}
	if len(roots) == 0 {
		return nil, errs.E(errs.Unavailable, "no cgroup hierarchy is mounted below /sys/fs/cgroup")
	}
	return roots, nil
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

// profiles keeps seccomp profiles as files named by their content, which is how
// the shim knows what it has compiled already.
type profiles struct {
	dir string

	mu    sync.Mutex // guards files
	files map[string]string
}

// file is the file that holds the profile for a container with these
// capabilities; build makes it the first time.
func (p *profiles) file(key string, build func() (any, error)) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.files[key]; ok {
		return f, nil
	}
	profile, err := build()
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(profile)
	if err != nil {
		return "", err
	}
	name, err := writeProfile(p.dir, raw)
	if err != nil {
		return "", err
	}
	if p.files == nil {
		p.files = map[string]string{}
	}
	p.files[key] = name
	return name, nil
}
