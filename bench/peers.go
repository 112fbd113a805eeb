package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// specText is what buoy makes of a request without options, but for the mounts
// of /etc/hosts and the like, which others need not make.
//
//go:embed spec.json
var specText []byte

// caps are docker's default set.
var caps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// cli is another runtime's command line.
type cli struct {
	program string
	start   func(id string) []string
	remove  func(id string) []string
	logs    func(id string) []string // where start does not print what the container prints
}

// findPeers looks for runtimes and leaves out, with the reason, what does not
// start a container here.
func (b *bench) findPeers(ctx context.Context) error {
	profile, err := b.profile(ctx)
	if err != nil {
		return err
	}
	bundle, err := b.bundle(profile)
	if err != nil {
		return err
	}
	for _, p := range []string{os.Getenv("BUOY_BENCH_RUNC"), "runc", "crun"} {
		b.try(ctx, p, 1, func(path string) cli { return b.oci(path, bundle) })
	}
	b.try(ctx, "podman", 4, func(path string) cli { return b.podman(path, profile) })
	b.try(ctx, "docker", 4, func(path string) cli { return b.docker(ctx, path, profile) })
	b.try(ctx, "ctr", 4, func(path string) cli {
		return cli{
			program: path,
			start: func(id string) []string {
				return []string{"run", "--rm", "--seccomp", "--seccomp-profile", profile, "--rootfs", b.rootfs, id, "/bin/first"}
			},
			remove: func(string) []string { return nil },
		}
	})
	return nil
}

// try adds a peer that can start a container.
func (b *bench) try(ctx context.Context, name string, every int, with func(path string) cli) {
	path, err := exec.LookPath(name)
	if err != nil {
		b.report.NotRun = append(b.report.NotRun, filepath.Base(name)+" is not installed")
		return
	}
	c := with(path)
	s := starter{name: title(ctx, path), every: every, start: c.run, remove: c.end}
	_, err = s.start(ctx, "try")
	if rerr := s.remove(ctx, "try"); err == nil {
		err = rerr
	}
	if err != nil {
		b.report.NotRun = append(b.report.NotRun, fmt.Sprintf("%s: %v", s.name, err))
		return
	}
	b.peers = append(b.peers, s)
}

// title is the program's name and version.
func title(ctx context.Context, path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), "-")
	out, _ := exec.CommandContext(ctx, path, "--version").Output()
	for word := range strings.FieldsSeq(string(out)) {
		if v := strings.Trim(word, ","); v != "" && v[0] >= '0' && v[0] <= '9' {
			return name + " " + v
		}
	}
	return name
}

// profile is the seccomp profile that buoyd gives containers.
func (b *bench) profile(ctx context.Context) (string, error) {
	if err := b.inst.client.Create(ctx, b.sleeper("profile")); err != nil {
		return "", err
	}
	if err := b.inst.client.Delete(ctx, "profile"); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(b.inst.run(), "seccomp", "*.json"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("found %d seccomp profiles of buoyd: %w", len(files), err)
	}
	return files[0], nil
}

// bundle makes what runc and crun are told to run.
func (b *bench) bundle(profile string) (string, error) {
	var s specs.Spec
	if err := json.Unmarshal(specText, &s); err != nil {
		return "", err
	}
	s.Root.Path = b.rootfs
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	raw, err := os.ReadFile(profile)
	if err == nil {
		err = json.Unmarshal(raw, &s.Linux.Seccomp)
	}
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "bundle")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if raw, err = json.Marshal(s); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644)
}

func (b *bench) oci(path, bundle string) cli {
	root := "--root=" + filepath.Join(b.dir, filepath.Base(path))
	return cli{
		program: path,
		start:   func(id string) []string { return []string{root, "run", "--detach", "--bundle", bundle, id} },
		remove:  func(id string) []string { return []string{root, "delete", "--force", id} },
	}
}

func (b *bench) podman(path, profile string) cli {
	runtime := "crun"
	if _, err := exec.LookPath(runtime); err != nil {
		runtime = "runc"
	}
	dir := filepath.Join(b.dir, "podman")
	common := []string{
		"--root=" + dir + "/root", "--runroot=" + dir + "/run", "--tmpdir=" + dir + "/tmp", "--storage-driver=vfs",
		"--cgroup-manager=cgroupfs", "--events-backend=none", "--log-level=error", "--runtime=" + runtime,
	}
	with := func(args ...string) []string { return append(append([]string{}, common...), args...) }
	return cli{
		program: path,
		start: func(id string) []string {
			return with("run", "--detach", "--name="+id, "--network=none", "--log-driver=k8s-file", "--ulimit=host",
				"--security-opt=seccomp="+profile, "--security-opt=no-new-privileges", "--rootfs", b.rootfs, "/bin/first", "stay")
		},
		remove: func(id string) []string { return with("rm", "--force", "--time=1", id) },
		logs:   func(id string) []string { return with("logs", id) },
	}
}

func (b *bench) docker(ctx context.Context, path, profile string) cli {
	_ = exec.CommandContext(ctx, path, "import", b.image, "buoy-bench").Run() // try will say so
	return cli{
		program: path,
		start: func(id string) []string {
			return []string{
				"run", "--detach", "--name=buoy-bench-" + id, "--network=none", "--security-opt=seccomp=" + profile,
				"--security-opt=no-new-privileges", "buoy-bench", "/bin/first", "stay",
			}
		},
		remove: func(id string) []string { return []string{"rm", "--force", "buoy-bench-" + id} },
		logs:   func(id string) []string { return []string{"logs", "buoy-bench-" + id} },
	}
}

// run starts a container and waits for its first word and for the end of the
// command line.
func (c cli) run(ctx context.Context, id string) (s sample, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return s, err
	}
	defer r.Close()
	var stderr bytes.Buffer
	errs, err := os.CreateTemp("", "buoy-bench-stderr-") // a pipe would be open as long as the container
	if err != nil {
		w.Close()
		return s, err
	}
	defer os.Remove(errs.Name())
	defer errs.Close()
	cmd := exec.CommandContext(ctx, c.program, c.start(id)...)
	cmd.Stdout, cmd.Stderr = w, errs
	begin := now()
	err = oneHierarchy(cmd.Start)
	w.Close()
	if err != nil {
		return s, err
	}
	err = cmd.Wait()
	s.answer = time.Duration(now() - begin)
	if err != nil {
		_, _ = errs.Seek(0, 0)
		_, _ = stderr.ReadFrom(errs)
		return s, fmt.Errorf("%w: %s", err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	first, err := c.firstWord(ctx, r, id)
	s.first = time.Duration(first - begin)
	return s, err
}

func (c cli) firstWord(ctx context.Context, r *os.File, id string) (int64, error) {
	var line []byte
	if c.logs != nil {
		out, err := command(ctx, c.program, c.logs(id)...)
		if err != nil {
			return 0, err
		}
		line = out
	} else {
		if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return 0, err
		}
		buf := make([]byte, 64)
		n, err := r.Read(buf)
		if err != nil {
			return 0, err
		}
		line = buf[:n]
	}
	return strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
}

func (c cli) end(ctx context.Context, id string) error {
	if args := c.remove(id); args != nil {
		_, err := command(context.WithoutCancel(ctx), c.program, args...)
		return err
	}
	return nil
}

func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := oneHierarchy(cmd.Run)
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(name), args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), err
}

// unified is where hybrid systems have cgroup v2.
const unified = "/sys/fs/cgroup/unified"

// oneHierarchy runs f, which starts a process, on a thread that sees cgroup v1
// only: crun refuses hybrid systems. The thread is thrown away.
func oneHierarchy(f func() error) error {
	var st unix.Statfs_t
	if unix.Statfs(unified, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Unmount(unified, unix.MNT_DETACH))
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// sample is how long after the request a container's program ran, and its
// answer came.
type sample struct{ first, answer time.Duration }

// starter starts containers its own way.
type starter struct {
	name   string
	every  int // takes part in every so manieth round
	start  func(ctx context.Context, id string) (sample, error)
	remove func(ctx context.Context, id string) error
}

// ours starts containers through REST.
func (b *bench) ours(name string, request func(id string) buoy.CreateRequest) starter {
	return starter{
		name: name, every: 1,
		start: func(ctx context.Context, id string) (s sample, err error) {
			r := request(id)
			begin := now()
			if err := b.inst.client.Create(ctx, r); err != nil {
				return s, err
			}
			s.answer = time.Duration(now() - begin)
			first, err := b.inst.firstOf(ctx, id)
			s.first = time.Duration(first - begin)
			return s, err
		},
		remove: func(ctx context.Context, id string) error {
			return b.inst.client.Delete(context.WithoutCancel(ctx), id)
		},
	}
}
