package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/cleanup"
)

// instance is a buoyd of this tree with everything it looks after.
type instance struct {
	dir    string // data and run are below it
	client *buoy.Client
	shim   *shimapi.Client
	cmd    *exec.Cmd
	ended  chan struct{}
}

func (i *instance) data() string { return filepath.Join(i.dir, "data") }
func (i *instance) run() string  { return filepath.Join(i.dir, "run") }

func program(name string) string { return filepath.Join(os.Getenv("BUOY_BIN"), name) }

// startInstance starts buoyd, with more arguments, and waits until it is ready.
// When it fails nothing is left.
func startInstance(ctx context.Context, dir string, args ...string) (i *instance, err error) {
	i = &instance{dir: dir, ended: make(chan struct{})}
	i.shim = shimapi.NewClient(filepath.Join(i.run(), "shim.sock"))
	if i.client, err = buoy.New("unix://" + filepath.Join(i.run(), "buoy.sock")); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "buoyd.log"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Not CommandContext: Ctrl-C must leave it to end, which resets.
	args = append([]string{"--data", i.data(), "--run", i.run(), "--node-id", "525400123456"}, args...)
	i.cmd = exec.Command(program("buoyd"), args...) //nolint:noctx // see above
	i.cmd.Stdout, i.cmd.Stderr = log, log
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's Ctrl-C is for us
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = i.cmd.Wait(); close(i.ended) }()
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	undo.Push(func() error { return i.end(context.WithoutCancel(ctx)) })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		h, err := i.client.Health(ctx)
		if err == nil && h.Ready {
			break
		}
		select {
		case <-i.ended:
			deadline = time.Time{}
		case <-ctx.Done():
			return nil, ctx.Err()
		default:
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("buoyd does not get ready: %w\n%s", err, text)
		}
	}
	undo.Keep()
	return i, nil
}

// end stops buoyd and removes all that the instance made on this machine.
func (i *instance) end(ctx context.Context) error {
	i.client.Close()
	i.shim.Close()
	_ = i.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-i.ended:
	case <-time.After(20 * time.Second):
		_ = i.cmd.Process.Kill()
		<-i.ended
	}
	out, err := exec.CommandContext(ctx, program("buoyd"), "reset", "--yes", "--data", i.data(), "--run", i.run()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("buoyd reset: %w\n%s", err, out)
	}
	return nil
}

// pids are those of our resident programs.
func (i *instance) pids(ctx context.Context) (buoyd, shim, reaper int, err error) {
	h, err := i.shim.Hello(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.PID))
	if err != nil {
		return 0, 0, 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if len(f) < 2 {
		return 0, 0, 0, fmt.Errorf("no parent in %q", raw)
	}
	reaper, err = strconv.Atoi(f[1])
	return i.cmd.Process.Pid, h.PID, reaper, err
}

// firstOf is what the container's program said of when it began.
func (i *instance) firstOf(ctx context.Context, name string) (int64, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		r, err := i.client.Logs(ctx, name, buoy.LogOptions{Stream: "stdout"})
		if err != nil {
			return 0, err
		}
		raw, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return 0, err
		}
		if line, _, ok := strings.Cut(string(raw), "\n"); ok {
			return strconv.ParseInt(line, 10, 64)
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("container %s says nothing", name)
		}
	}
}

// rootDirs are what every runtime expects to be there.
var rootDirs = []string{"bin", "dev", "etc", "proc", "sys", "tmp"}

// makeRoot makes the root filesystem, as a directory and as an archive.
func (b *bench) makeRoot() error {
	b.rootfs, b.image = filepath.Join(b.dir, "rootfs"), filepath.Join(b.dir, "rootfs.tar")
	for _, d := range rootDirs {
		if err := os.MkdirAll(filepath.Join(b.rootfs, d), 0o755); err != nil {
			return err
		}
	}
	code, err := os.ReadFile(b.first)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.rootfs, "bin/first"), code, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(b.image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = w.AddFS(os.DirFS(b.rootfs))
	return errors.Join(err, w.Close(), f.Close())
}

// sleeper is a request for a container of the benchmark's program.
func (b *bench) sleeper(name string, nics ...buoy.NIC) buoy.CreateRequest {
	return buoy.CreateRequest{Name: name, Flist: b.rootfs, Entrypoint: []string{"/bin/first", "stay"}, NICs: nics, StopGrace: 10}
}

var defaultNIC = buoy.NIC{Type: "default"}
