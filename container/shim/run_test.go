//go:build linux && cgo

package shim_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
	"github.com/buoy-edge/buoy/internal/thread"
)

func TestRun(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("a", "sh", "-c", "echo hello; echo oops >&2; printf tail; exit 7"))
	if e := n.exit("a"); e.Code != 7 || e.Signal != 0 || e.OOM || e.Lost {
		t.Errorf("exit %+v, want code 7", e)
	}
	got := n.output(n.dir + "/a.log")
	for _, want := range []string{"stdout F hello\n", "stderr F oops\n", "stdout P tail\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("log %q lacks %q", got, want)
		}
	}
	if _, err := n.Run(t.Context(), n.request("a", "true")); !errors.Is(err, errs.Exists) {
		t.Errorf("second Run: %v, want Exists", err)
	}
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Errorf("second Delete: %v", err)
	}
}

func TestRunFails(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct {
		name string
		edit func(*shimapi.RunRequest)
		kind errs.Kind
		text string
	}{
		{"missing", func(r *shimapi.RunRequest) { r.Spec.Process.Args = []string{"nope"} }, errs.NotFound, `command "nope" not found in the image`},
		{"missing-path", func(r *shimapi.RunRequest) { r.Spec.Process.Args = []string{"/bin/nope"} }, errs.NotFound, `command "/bin/nope" not found in the image`},
		{"mode", func(r *shimapi.RunRequest) { r.Spec.Process.Args = []string{"notexec"} }, errs.Invalid, "is not executable"},
		{"directory", func(r *shimapi.RunRequest) { r.Spec.Process.Args = []string{"/tmp"} }, errs.Invalid, "is not executable"},
		{"interpreter", func(r *shimapi.RunRequest) { r.Spec.Process.Args = []string{"nointerp"} }, errs.Invalid, "interpreter"},
		{"init-missing", func(r *shimapi.RunRequest) { r.Spec.Process.Args = []string{"nope"}; r.Init = true }, errs.NotFound, "not found in the image"},
		{"user", func(r *shimapi.RunRequest) { r.User = "bob" }, errs.Invalid, `user "bob" is not in the image's /etc/passwd`},
		{"group", func(r *shimapi.RunRequest) { r.User = "alice:crew" }, errs.Invalid, `group "crew" is not in the image's /etc/group`},
		{"uid", func(r *shimapi.RunRequest) { r.User = "2147483648" }, errs.Invalid, "ids are 0 to 2147483647"},
		{"layer", func(r *shimapi.RunRequest) { r.Rootfs.Lower = []string{"nolayer"} }, errs.NotFound, "nolayer"},
		{"mount", func(r *shimapi.RunRequest) {
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such", Options: []string{"rbind"}})
		}, errs.Invalid, "/no/such"},
		{"target", func(r *shimapi.RunRequest) {
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/etc/passwd/x", Type: "tmpfs", Source: "tmpfs"})
		}, errs.Invalid, `cannot be mounted on "/etc/passwd/x": not a directory`},
		{"below-proc", func(r *shimapi.RunRequest) {
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/proc/sys/x", Type: "tmpfs", Source: "tmpfs"})
		}, errs.Invalid, "/proc"},
		{"relative", func(r *shimapi.RunRequest) {
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "x/../..", Type: "tmpfs", Source: "tmpfs"})
		}, errs.Invalid, "nothing can be mounted"},
		{"cpus", func(r *shimapi.RunRequest) {
			r.Spec.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0-4000"}
		}, errs.Invalid, `CPU set "0-4000" does not fit the CPUs of this machine`},
		{"sysctl", func(r *shimapi.RunRequest) {
			r.Spec.Linux.Sysctl = map[string]string{"net.nothing.like_it": "1"}
		}, errs.Invalid, `sysctl "net.nothing.like_it" cannot be set`},
		{"sysctl-value", func(r *shimapi.RunRequest) {
			r.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "maybe"}
		}, errs.Invalid, `sysctl "net.ipv4.ip_forward" does not take "maybe"`},
		{"host-sysctl", func(r *shimapi.RunRequest) {
			r.Spec.Linux.Sysctl = map[string]string{"kernel.panic": "1"}
		}, errs.Invalid, "kernel.panic"},
		{"cwd", func(r *shimapi.RunRequest) { r.Spec.Process.Cwd = "/etc/passwd" }, errs.Invalid, "/etc/passwd"},
		{"rlimit", func(r *shimapi.RunRequest) { r.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, errs.Invalid, "RLIMIT_X"},
		{"memory", func(r *shimapi.RunRequest) {
			limit := int64(64 << 10)
			r.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		}, errs.Invalid, "memory limit 65536 is too small"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := n.request("f-"+c.name, "true")
			c.edit(&r)
			_, err := n.Run(t.Context(), r)
			if !errors.Is(err, c.kind) || err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Run: %v, want %v with %q", err, c.kind, c.text)
			}
			t.Log(err)
			if _, ok := n.get(r.ID); ok {
				t.Error("it is listed")
			}
			n.noTraces(t.Context())
		})
	}
}

func TestUser(t *testing.T) {
	n := startNode(t)
	for i, c := range []struct{ user, want string }{
		{"", "uid=0(root) gid=0(root) /root"},
		{"alice", "uid=1000(alice) gid=1001(alice) groups=1005(extra) /home/alice"},
		{"1000:1005", "uid=1000(alice) gid=1005(extra)"},
		{"4711", "uid=4711 gid=0(root)"},
	} {
		r := n.request(fmt.Sprintf("u%d", i), "sh", "-c", "echo $(id) $HOME")
		r.User = c.user
		n.mustRun(r)
		n.exit(r.ID)
		if got := n.output(r.Log.Path); !strings.Contains(got, c.want) {
			t.Errorf("user %q: %q, want %q", c.user, got, c.want)
		}
	}
}

func TestSignalsAndOOM(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("s", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done"))
	n.until("the trap is set", func() bool {
		if err := n.Signal(t.Context(), shimapi.SignalRequest{ID: "s", Signal: int(syscall.SIGTERM)}); err != nil {
			return errors.Is(err, errs.NotFound)
		}
		time.Sleep(20 * time.Millisecond)
		c, _ := n.get("s")
		return c.Exit != nil
	})
	if e := n.exit("s"); e.Code != 3 {
		t.Errorf("exit %+v, want 3", e)
	}
	if err := n.Signal(t.Context(), shimapi.SignalRequest{ID: "s", Signal: 15}); !errors.Is(err, errs.NotFound) {
		t.Errorf("signal an ended one: %v", err)
	}
	n.mustRun(n.request("k", "sleep", "1000"))
	if err := n.Kill(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if c, _ := n.get("k"); c.Exit == nil || c.Exit.Code != 137 || c.Exit.Signal != 9 || c.Exit.OOM {
		t.Errorf("killed: %+v", c.Exit)
	}
	r := n.request("oom", "sh", "-c", "x=x; while :; do x=$x$x; done")
	limit := int64(16 << 20)
	r.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	n.mustRun(r)
	if e := n.exit("oom"); !e.OOM || e.Signal != 9 {
		t.Errorf("out of memory: %+v", e)
	}
}

// traced looks into a process as one could that has the capabilities of
// containers: the kernel asks the same for that as for tracing it.
func traced(pid int) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, known := range capability.ListKnown() {
		if slices.Contains(caps, "CAP_"+strings.ToUpper(known.String())) {
			data[known/32].Permitted |= 1 << (known % 32)
			data[known/32].Effective |= 1 << (known % 32)
		}
	}
	return thread.Own(func() error {
		if err := unix.Capset(&head, &data[0]); err != nil {
			return err
		}
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err
	})
}

func TestHold(t *testing.T) {
	n := startNode(t)
	r := n.request("h", "sh", "-c", "echo go")
	r.Hold = true
	p := n.mustRun(r)
	if c, _ := n.get("h"); c.Status != shimapi.Held {
		t.Errorf("status %s, want held", c.Status)
	}
	if _, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: "h", Job: "j", Process: process("true")}); !errors.Is(err, errs.Conflict) {
		t.Errorf("Exec in a held one: %v, want Conflict", err)
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID))
	if string(comm) != "buoy-init\n" {
		t.Errorf("who waits is %q", comm)
	}
	if err := traced(p.PID); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("who is in its container can look into buoy-init: %v", err)
	}
	if err := n.Release(t.Context(), "h"); err != nil {
		t.Fatal(err)
	}
	if e := n.exit("h"); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if err := n.Release(t.Context(), "h"); !errors.Is(err, errs.Conflict) {
		t.Errorf("second Release: %v, want Conflict", err)
	}
	r = n.request("h2", "nope")
	r.Hold = true
	n.mustRun(r)
	if err := n.Release(t.Context(), "h2"); !errors.Is(err, errs.NotFound) {
		t.Errorf("Release of a missing command: %v", err)
	}
	if e := n.exit("h2"); e.Code != 127 {
		t.Errorf("exit %+v, want 127", e)
	}
	r = n.request("h3", "true")
	r.Hold = true
	n.mustRun(r)
	if err := n.Delete(t.Context(), "h3"); err != nil {
		t.Error(err)
	}
}

func TestInit(t *testing.T) {
	n := startNode(t)
	r := n.request("none")
	r.Init = true
	p := n.mustRun(r)
	if got := procFile(p.PID, "cmdline"); got != "buoy-init\x00" {
		t.Errorf("command line of the init: %q", got)
	}
	if got := procFile(p.PID, "comm"); got != "buoy-init\n" {
		t.Errorf("name of the init: %q", got)
	}
	if err := traced(p.PID); err != nil {
		t.Errorf("nobody can look into a process that has its filter: %v", err)
	}
	if err := n.Signal(t.Context(), shimapi.SignalRequest{ID: "none", Signal: 15}); err != nil {
		t.Fatal(err)
	}
	if e := n.exit("none"); e.Code != 0 {
		t.Errorf("exit %+v (pid %d)", e, p.PID)
	}
	// Orphans are reaped: the shell leaves twenty behind.
	r = n.request("reap", "sh", "-c", "for i in $(seq 20); do (sleep 0.01 & ) ; done; trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done")
	r.Init = true
	p = n.mustRun(r)
	n.until("it is up", func() bool { return strings.Contains(n.output(r.Log.Path), "up") })
	if got := procFile(p.PID, "cmdline"); got != "buoy-init\x00" {
		t.Errorf("command line of the init: %q", got)
	}
	n.until("no orphan is left, alive or dead", func() bool {
		return len(strings.Fields(procFile(p.PID, fmt.Sprintf("task/%d/children", p.PID)))) == 1
	})
	if err := n.Signal(t.Context(), shimapi.SignalRequest{ID: "reap", Signal: int(syscall.SIGUSR1)}); err != nil {
		t.Fatal(err)
	}
	if e := n.exit("reap"); e.Code != 9 {
		t.Errorf("exit %+v, want the child's 9", e)
	}
	r = n.request("sig", "sh", "-c", "kill -9 $$")
	r.Init = true
	n.mustRun(r)
	if e := n.exit("sig"); e.Code != 137 {
		t.Errorf("exit %+v, want 137", e)
	}
}

func procFile(pid int, name string) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	return string(raw)
}

func (n *node) cgroupPids(id string) []string {
	c, _ := n.get(id)
	raw, _ := os.ReadFile(filepath.Join(c.Cgroups["pids"], "cgroup.procs"))
	if c.Cgroups["pids"] == "" {
		raw, _ = os.ReadFile(filepath.Join(c.Cgroups[""], "cgroup.procs"))
	}
	return strings.Fields(string(raw))
}

func TestRoots(t *testing.T) {
	n := startNode(t)
	bare := filepath.Join(n.dir, "bare:,\\ x") // a name with all that overlayfs escapes
	if err := os.MkdirAll(bare+"/sbin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(n.root+"/bin/busybox", bare+"/sbin/sh"); err != nil {
		t.Fatal(err)
	}
	r := n.request("ro", "/sbin/sh", "-c", "test -d /proc/1 && read x < /etc/resolv.conf && echo $x; echo x > /f || echo readonly")
	r.Rootfs = shimapi.Rootfs{Base: n.dir, Lower: []string{filepath.Base(bare)}}
	write(t, n.dir+"/resolv", "nameserver 192.0.2.1\n")
	r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: n.dir + "/resolv", Options: []string{"rbind", "ro"}})
	n.mustRun(r)
	n.exit("ro")
	if got := n.output(r.Log.Path); !strings.Contains(got, "nameserver 192.0.2.1") || !strings.Contains(got, "readonly") {
		t.Errorf("read-only root: %q", got)
	}
	r = n.request("many", "sh", "-c", "echo ok; readlink /etc/mtab")
	for i := range 120 {
		d := fmt.Sprintf("a-rather-long-layer-name-0123456789abcdef0123456789abcdef-%d", i)
		if err := os.MkdirAll(filepath.Join(n.dir, d, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		r.Rootfs.Lower = append([]string{d}, r.Rootfs.Lower...)
	}
	_ = os.Symlink("/proc/mounts", n.root+"/etc/mtab")
	n.mustRun(r)
	n.exit("many")
	if got := n.output(r.Log.Path); got != "stdout F ok\nstdout F /proc/mounts\n" {
		t.Errorf("120 layers: %q", got)
	}
}

func TestVolume(t *testing.T) {
	n := startNode(t)
	data := n.root + "/data"
	for _, d := range []string{"/sub"} {
		if err := os.MkdirAll(data+d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write(t, data+"/sub/file", "content")
	_ = os.Link(data+"/sub/file", data+"/hard")
	_ = os.Symlink("/etc/passwd", data+"/link")
	_ = os.Chown(data+"/sub/file", 1000, 1001)
	_ = syscall.Chmod(data+"/sub/file", 0o4711)
	_ = syscall.Setxattr(data+"/sub/file", "user.x", []byte("y"), 0)
	_ = os.Chown(data, 1000, 1000)
	_ = os.Symlink("/../../../data", n.root+"/evil")
	src := filepath.Join(n.dir, "vol")
	_ = os.Mkdir(src, 0o755)
	for i, path := range []string{"/data", "/evil"} {
		if i > 0 {
			os.RemoveAll(src)
			_ = os.Mkdir(src, 0o755)
		}
		r := n.request(fmt.Sprintf("v%d", i), "sh", "-c", "stat -c '%U %a %h' /data/sub/file; touch /data/new")
		r.Volumes = []shimapi.Volume{{Source: src, Path: path}}
		n.mustRun(r)
		n.exit(r.ID)
		if i == 0 {
			if got := n.output(r.Log.Path); got != "stdout F alice 4711 2\n" {
				t.Errorf("in the volume: %q", got)
			}
			if _, err := os.Stat(src + "/new"); err != nil {
				t.Errorf("the volume is not mounted: %v", err)
			}
		}
		var b [8]byte
		if k, err := syscall.Getxattr(src+"/sub/file", "user.x", b[:]); err != nil || string(b[:k]) != "y" {
			t.Errorf("attribute: %q, %v", b[:max(k, 0)], err)
		}
		if to, _ := os.Readlink(src + "/link"); to != "/etc/passwd" {
			t.Errorf("link to %q", to)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(src, &st); err != nil || st.Uid != 1000 {
			t.Errorf("owner of the volume: %d", st.Uid)
		}
	}
}

func TestSeccomp(t *testing.T) {
	n := startNode(t)
	errno := uint(13)
	p := profile(t, n.dir, specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"symlink", "symlinkat"}, Action: specs.ActErrno, ErrnoRet: &errno},
	}})
	for _, nnp := range []bool{true, false} {
		r := n.request(fmt.Sprintf("sc-%v", nnp), "sh", "-c", "busybox ln -s a /tmp/b; busybox grep -E 'Seccomp:|NoNew' /proc/1/status; sleep 1000")
		r.Seccomp = p
		r.Spec.Process.NoNewPrivileges = nnp
		n.mustRun(r)
		n.until("it is filtered", func() bool { return strings.Contains(n.output(r.Log.Path), "Seccomp:") })
		got := n.output(r.Log.Path)
		want := map[bool]string{true: "NoNewPrivs:\t1", false: "NoNewPrivs:\t0"}[nnp]
		if !strings.Contains(got, "Permission denied") || !strings.Contains(got, "Seccomp:\t2") || !strings.Contains(got, want) {
			t.Errorf("no_new_privs %v: %q", nnp, got)
		}
		job := process("sh", "-c", "busybox ln -s a /tmp/c")
		job.NoNewPrivileges = nnp
		_, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: r.ID, Job: "j", Process: job, Seccomp: p, Log: shimapi.Log{Path: n.dir + "/j.log"}})
		if err != nil {
			t.Fatal(err)
		}
		if e := n.jobExit(r.ID, "j"); e.Code != 1 {
			t.Errorf("job under seccomp: %+v %s", e, n.output(n.dir+"/j.log"))
		}
	}
}

// TestParallel starts and deletes many at once, and twice each id.
func TestParallel(t *testing.T) {
	n := startNode(t)
	h := n.awaitShim()
	for range 2 {
		var wg sync.WaitGroup
		for i := range 60 {
			r := n.request("p"+strconv.Itoa(i), "sh", "-c", "echo $HOSTNAME; sleep 1000")
			wg.Go(func() {
				if _, err := n.Run(t.Context(), r); err != nil {
					t.Errorf("Run: %v", err)
				}
				wg.Go(func() { _, _ = n.List(t.Context()) })
				if i%2 == 0 {
					_, _ = n.Exec(t.Context(), shimapi.ExecRequest{ID: r.ID, Job: "j", Process: process("sleep", "1000")})
				}
				for range 2 {
					wg.Go(func() {
						if err := n.Delete(t.Context(), r.ID); err != nil {
							t.Errorf("Delete: %v", err)
						}
					})
				}
			})
		}
		wg.Wait()
		n.noTraces(t.Context())
	}
	n.until("descriptors are closed", func() bool { return n.fds(h.PID) < 60 })
	if got := n.fds(n.reaper.Process.Pid); got > 12 {
		t.Errorf("the reaper has %d descriptors", got)
	}
}

// TestDeleteRacesRun deletes what is just being made.
func TestDeleteRacesRun(t *testing.T) {
	n := startNode(t)
	for i := range 30 {
		r := n.request("r", "sleep", "1000")
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = n.Run(t.Context(), r) })
		time.Sleep(time.Duration(i) * time.Millisecond)
		if err := n.Delete(t.Context(), "r"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		wg.Wait()
		if err := n.Delete(t.Context(), "r"); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	n.noTraces(t.Context())
}

func TestWatchAndQuit(t *testing.T) {
	n := startNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan shimapi.Event, 10)
	done := make(chan error, 1)
	go func() { done <- n.Watch(ctx, func(e shimapi.Event) { events <- e }) }()
	<-events
	n.mustRun(n.request("w", "sh", "-c", "exit 5"))
	if e := <-events; e.ID != "w" || e.Launch != "l1" || e.Exit == nil || e.Exit.Code != 5 {
		t.Errorf("event %+v", e)
	}
	if err := n.Quit(t.Context()); !errors.Is(err, errs.Conflict) {
		t.Errorf("Quit with a container: %v, want Conflict", err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("Watch returned nil")
	}
}

// TestCapabilities: who is not root has none to use, as with docker, whatever
// the container's root has.
func TestCapabilities(t *testing.T) {
	n := startNode(t)
	none := "CapPrm: 0000000000000000 CapEff: 0000000000000000"
	for i, c := range []struct {
		user string
		init bool
		root bool
	}{{"", false, true}, {"", true, true}, {"alice", false, false}, {"alice", true, false}, {"4711:0", false, false}} {
		r := n.request(fmt.Sprintf("caps%d", i), "sh", "-c", "while read -r a b; do case $a in Cap*) echo -n $a $b' ';; esac; done < /proc/self/status; echo; sleep 1000")
		r.User, r.Init = c.user, c.init
		n.mustRun(r)
		job := shimapi.ExecRequest{ID: r.ID, Job: "j", User: c.user, Process: process("sh", "-c", "while read -r a b; do case $a in Cap*) echo -n $a $b' ';; esac; done < /proc/self/status; echo")}
		job.Log.Path = r.Log.Path + ".job"
		if _, err := n.Exec(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		n.jobExit(r.ID, "j")
		for _, log := range []string{r.Log.Path, job.Log.Path} {
			n.until("it has spoken", func() bool { return strings.Contains(n.output(log), "CapBnd") })
			got := n.output(log)
			if strings.Contains(got, none) == c.root || strings.Contains(got, "CapBnd: 0000000000000000") {
				t.Errorf("user %q, init %v: %s", c.user, c.init, got)
			}
			if !strings.Contains(got, "CapInh: 0000000000000000") || !strings.Contains(got, "CapAmb: 0000000000000000") {
				t.Errorf("user %q, init %v: %s", c.user, c.init, got)
			}
		}
	}
}

// TestAllCapabilities asks for more than this node may have to give.
func TestAllCapabilities(t *testing.T) {
	n := startNode(t)
	r := n.request("caps-all", "true")
	var all []string
	lacks := ""
	for _, known := range capability.ListKnown() {
		name := "CAP_" + strings.ToUpper(known.String())
		all = append(all, name)
		if have, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(known), 0, 0, 0); err != nil || have == 0 {
			lacks = name
		}
	}
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	n.mustRun(r)
	if e := n.exit("caps-all"); e.Code != 0 {
		t.Errorf("with all capabilities: %+v", e)
	}
	if lacks == "" {
		return // there is none to refuse
	}
	r = n.request("caps-one", "true")
	one := []string{lacks}
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one}
	if _, err := n.Run(t.Context(), r); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), lacks) {
		t.Errorf("with %s: %v, want Invalid that names it", lacks, err)
	}
}

// TestUserNamespace maps root to 100000: once with layers that belong to the
// mapped ids, once with the ordinary ones, which are mapped while mounted.
func TestUserNamespace(t *testing.T) {
	n := startNode(t)
	_ = os.Chmod(filepath.Dir(n.dir), 0o711)
	_ = os.Chmod(n.run, 0o711)
	shifted := filepath.Join(n.dir, "shifted")
	if out, err := runProgram("sh", "-c", "cp -a "+n.root+" "+shifted+" && chown -hR 100000:100000 "+shifted); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, lower := range []string{"shifted", "root"} {
		r := n.request("ns-"+lower, "sh", "-c", "echo x > /new; stat -c %U /bin/busybox /new; cat /proc/self/uid_map")
		r.Rootfs.Lower = []string{lower}
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		r.Spec.Linux.UIDMappings, r.Spec.Linux.GIDMappings = ids, ids
		r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		if lower == "shifted" {
			_ = os.Chown(r.Rootfs.Upper, 100000, 100000)
		}
		n.mustRun(r)
		n.exit(r.ID)
		got := n.output(r.Log.Path)
		if !strings.Contains(got, "F root\nstdout F root\n") || !strings.Contains(got, "100000") {
			t.Errorf("%s: %q", lower, got)
		}
		var st syscall.Stat_t
		want := map[string]uint32{"shifted": 100000, "root": 0}[lower]
		if err := syscall.Stat(r.Rootfs.Upper+"/new", &st); err != nil || st.Uid != want {
			t.Errorf("%s: new file belongs to %d on disk (%v), want %d", lower, st.Uid, err, want)
		}
	}
}

// TestUserNamespaceRefused has a layer on a file system that cannot map ids.
func TestUserNamespaceRefused(t *testing.T) {
	testroot.Require(t)
	over := t.TempDir()
	if err := syscall.Mount("overlay", over, "overlay", 0, "lowerdir="+t.TempDir()+":"+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(over, syscall.MNT_DETACH) })
	n := startNode(t)
	r := n.request("ns-over", "true")
	r.Rootfs.Lower = []string{over}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	r.Spec.Linux.UIDMappings, r.Spec.Linux.GIDMappings = ids, ids
	r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	if _, err := n.Run(t.Context(), r); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "idmapped mounts") {
		t.Errorf("a layer that cannot be mapped: %v, want a Conflict that says so", err)
	}
	n.noTraces(t.Context())
}

// TestNamespacesAndLimits gives a network namespace by an open file of ours, the
// host's, limits above what may be raised, and a sysctl.
func TestNamespacesAndLimits(t *testing.T) {
	n := startNode(t)
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	own, _ := os.Readlink("/proc/self/ns/net")
	for _, path := range []string{fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()), ""} {
		r := n.request("net", "sh", "-c", "readlink /proc/self/ns/net; ulimit -n; ulimit -Hn; cat /proc/sys/kernel/msgmax; cat /proc/self/oom_score_adj")
		r.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 4096, Hard: 1 << 40}}
		r.Spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4242"}
		if r.Spec.Linux.Namespaces[1].Path = path; path == "" {
			r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces[:1], r.Spec.Linux.Namespaces[2:]...)
			r.Spec.Mounts[5] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
		}
		n.mustRun(r)
		n.exit("net")
		got := n.output(r.Log.Path)
		if !strings.HasPrefix(got, "stdout F "+own+"\nstdout F 4096\n") || !strings.Contains(got, "F 4242\nstdout F 0\n") {
			t.Errorf("network %q: %q", path, got)
		}
		os.Remove(r.Log.Path)
		if err := n.Delete(t.Context(), "net"); err != nil {
			t.Error(err)
		}
	}
}
