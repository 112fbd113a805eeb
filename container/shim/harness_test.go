//go:build linux && cgo

package shim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// bin has the programs, built once by TestMain. BUOY_TEST_BIN saves that: a
// folder with buoy-shim built with -tags buoyfail.
var bin string

func TestMain(m *testing.M) {
	if os.Getenv(testroot.Env) == "" {
		os.Exit(m.Run())
	}
	code, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer code()
	c := m.Run()
	code()
	os.Exit(c)
}

var cflags = []string{"-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s"}

func build() (func(), error) {
	if bin = os.Getenv("BUOY_TEST_BIN"); bin != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "buoy-bin")
	if err != nil {
		return nil, err
	}
	bin = dir
	for _, args := range [][]string{
		append([]string{"cc", "-o", dir + "/buoy-reaper", "../reaper/reaper.c"}, cflags...),
		append([]string{
			"cc", "-o", dir + "/buoy-init", "../init/init.c", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
			"-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie",
			"-Wl,--build-id=none,-z,noseparate-code,-z,norelro,-z,noexecstack",
		}, cflags...),
		{
			"go", "build", "-tags", "netgo,osusergo,seccomp,runc_nocriu,buoyfail", "-ldflags",
			"-s -w -linkmode external -extldflags -static", "-o", dir + "/buoy-shim", "../../cmd/buoy-shim",
		},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			os.RemoveAll(dir)
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return func() { os.RemoveAll(dir) }, nil
}

// node is a reaper with its shim, and an image.
type node struct {
	testing.TB
	*shimapi.Client
	dir, run, root string
	cgroup         string
	reaper         *exec.Cmd
	ended          chan error
	n              atomic.Int32
}

func startNode(t testing.TB) *node {
	t.Helper()
	testroot.Require(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{TB: t, dir: dir, run: filepath.Join(dir, "run"), root: filepath.Join(dir, "root")}
	n.cgroup = "/buoy-test-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(filepath.Dir(dir))
	for _, d := range []string{n.run, n.root + "/bin", n.root + "/etc", n.root + "/tmp"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "/bin/busybox", n.root+"/bin/busybox").CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
	for _, a := range []string{"sh", "sleep", "true", "false", "cat", "echo", "id", "kill", "ls", "seq", "env", "readlink", "mount", "dd", "head", "tail", "touch", "setsid", "stat", "ulimit", "sync", "nc", "wc", "stty", "tty", "tr", "mkfifo"} {
		_ = os.Symlink("busybox", n.root+"/bin/"+a)
	}
	write(t, n.root+"/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n")
	write(t, n.root+"/etc/group", "root:x:0:\nalice:x:1001:\nextra:x:1005:alice\n")
	write(t, n.root+"/bin/notexec", "x")
	write(t, n.root+"/bin/nointerp", "#!/nowhere/sh\n")
	_ = os.Chmod(n.root+"/bin/nointerp", 0o755)
	n.start()
	t.Cleanup(n.finish)
	return n
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (n *node) start() {
	n.Helper()
	n.reaper = exec.Command(bin+"/buoy-reaper", n.run, bin+"/buoy-shim")
	n.reaper.Env = append(os.Environ(), "BUOY_FAIL_FILE="+n.dir+"/fail")
	logFile, err := os.OpenFile(n.dir+"/shim.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	defer logFile.Close()
	n.reaper.Stderr = logFile
	if err := n.reaper.Start(); err != nil {
		n.Fatal(err)
	}
	ended := make(chan error, 1)
	n.ended = ended
	go func() { ended <- n.reaper.Wait() }()
	n.Client = shimapi.NewClient(n.run + "/shim.sock")
	n.awaitShim()
}

func (n *node) awaitShim() shimapi.Hello {
	n.Helper()
	var h shimapi.Hello
	n.until("the shim answers", func() bool {
		var err error
		h, err = n.Hello(n.Context())
		return err == nil
	})
	return h
}

func (n *node) until(what string, ok func() bool) {
	n.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			n.dumpLog()
			n.Fatalf("waited in vain until %s", what)
		}
	}
}

func (n *node) dumpLog() {
	raw, _ := os.ReadFile(n.dir + "/shim.log")
	n.Logf("shim.log:\n%s", raw)
}

// finish deletes all, quits, and looks for leaks.
func (n *node) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if n.Failed() {
		n.dumpLog()
	}
	var l []shimapi.Container
	for range 1000 { // the test may have killed the shim just now
		var err error
		if l, err = n.List(ctx); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, c := range l {
		if err := n.Delete(ctx, c.ID); err != nil {
			n.Errorf("Delete %s: %v", c.ID, err)
		}
	}
	n.noTraces(ctx)
	if err := n.Quit(ctx); err != nil {
		n.Errorf("Quit: %v", err)
		if h, err := n.Hello(ctx); err == nil {
			defer func() { _ = syscall.Kill(h.PID, syscall.SIGKILL) }()
		}
		_ = n.reaper.Process.Kill()
	}
	select {
	case err := <-n.ended:
		if err != nil {
			n.Errorf("reaper: %v", err)
		}
	case <-time.After(10 * time.Second):
		n.Errorf("the reaper does not end after Quit")
		n.dumpLog()
		_ = n.reaper.Process.Kill()
	}
	if left, _ := os.ReadDir(n.run); len(left) > 0 {
		n.Errorf("left in the run directory: %v", left)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasSuffix(p, n.cgroup) {
			_ = syscall.Rmdir(p)
			return filepath.SkipDir
		}
		return nil
	})
}

// noTraces fails the test if containers left anything.
func (n *node) noTraces(ctx context.Context) {
	n.Helper()
	for _, d := range []string{"shim", "lc"} {
		if left, _ := os.ReadDir(filepath.Join(n.run, d)); len(left) > 0 {
			n.Errorf("left in %s: %v", d, left)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.reaper.Process.Pid))
	if err != nil {
		n.Errorf("read mounts: %v", err)
	}
	if strings.Contains(string(mounts), n.run) {
		n.Errorf("mounts are left:\n%s", mounts)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(p, n.cgroup+"/") {
			n.Errorf("cgroup is left: %s", p)
		}
		return nil
	})
	h, err := n.Hello(ctx)
	if err != nil {
		n.Errorf("Hello: %v", err)
		return
	}
	kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.reaper.Process.Pid, n.reaper.Process.Pid))
	if got := strings.TrimSpace(string(kids)); got != strconv.Itoa(h.PID) {
		n.Errorf("children of the reaper: %q, want only the shim %d", got, h.PID)
	}
}

func (n *node) fds(pid int) int {
	l, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(l)
}

var caps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_SETPCAP"}

func process(args ...string) *specs.Process {
	return &specs.Process{
		Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin", "TERM=xterm"}, NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
}

func (n *node) spec(id string, args ...string) *specs.Spec {
	deny := specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}
	return &specs.Spec{
		Version: specs.Version, Hostname: id, Process: process(args...),
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: n.cgroup + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "cgroup"},
			},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny}},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// request is for a container of the test image with a fresh upper directory.
func (n *node) request(id string, args ...string) shimapi.RunRequest {
	n.Helper()
	layers := filepath.Join(n.dir, "layers", fmt.Sprintf("%s.%d", id, n.n.Add(1)))
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(layers, d), 0o755); err != nil {
			n.Fatal(err)
		}
	}
	return shimapi.RunRequest{
		ID: id, Launch: "l1", Spec: n.spec(id, args...),
		Rootfs: shimapi.Rootfs{Base: n.dir, Lower: []string{"root"}, Upper: layers + "/upper", Work: layers + "/work"},
		Log:    shimapi.Log{Path: filepath.Join(n.dir, id+".log")},
	}
}

func (n *node) mustRun(r shimapi.RunRequest) shimapi.Process {
	n.Helper()
	p, err := n.Run(n.Context(), r)
	if err != nil {
		n.dumpLog()
		n.Fatalf("Run %s: %v", r.ID, err)
	}
	return p
}

func (n *node) get(id string) (shimapi.Container, bool) {
	n.Helper()
	l, err := n.List(n.Context())
	if err != nil {
		n.Fatal(err)
	}
	for _, c := range l {
		if c.ID == id {
			return c, true
		}
	}
	return shimapi.Container{}, false
}

// exit waits for the end of a container.
func (n *node) exit(id string) shimapi.Exit {
	n.Helper()
	var e shimapi.Exit
	n.until(id+" has ended", func() bool {
		c, ok := n.get(id)
		if !ok {
			n.Fatalf("no container %s", id)
		}
		if c.Exit != nil {
			e = *c.Exit
		}
		return c.Exit != nil
	})
	return e
}

func (n *node) jobExit(id, job string) shimapi.Exit {
	n.Helper()
	var e shimapi.Exit
	n.until(id+"/"+job+" has ended", func() bool {
		c, _ := n.get(id)
		for _, j := range c.Jobs {
			if j.Job == job && j.Exit != nil {
				e = *j.Exit
				return true
			}
		}
		return false
	})
	return e
}

// output is what a log says, without times.
func (n *node) output(path string) string {
	n.Helper()
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		if _, rest, ok := strings.Cut(line, " "); ok {
			out.WriteString(rest)
		}
	}
	return out.String()
}

// killShim kills the shim and waits for the next.
func (n *node) killShim() {
	n.Helper()
	h := n.awaitShim()
	_ = syscall.Kill(h.PID, syscall.SIGKILL)
	n.until("the next shim answers", func() bool {
		now, err := n.Hello(n.Context())
		return err == nil && now.PID != h.PID
	})
}

func profile(t testing.TB, dir string, p specs.LinuxSeccomp) string {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("profile-%d.json", len(raw)))
	write(t, path, string(raw))
	return path
}

func runProgram(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}
