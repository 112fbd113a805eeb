package live

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// These tests do to a node what a hostile container, a careless operator or the
// OOM killer may do, and want it whole afterwards.

// endure is a program that ends with 7 when it is asked to.
const endure = "trap 'exit 7' TERM; while :; do sleep 0.05; done"

// pids are the shim's and its reaper's, 0 for one that does not run.
func (d *daemon) pids() (shim, reaper int) {
	d.t.Helper()
	if h, err := shimapi.NewClient(filepath.Join(d.run(), "shim.sock")).Hello(context.WithoutCancel(d.t.Context())); err == nil {
		shim = h.PID
	}
	raw, err := os.ReadFile(filepath.Join(d.run(), "reaper.lock"))
	if err != nil {
		return shim, 0
	}
	reaper, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil { // it is just being written
		return shim, 0
	}
	if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", reaper)); err != nil || !strings.Contains(string(cmd), d.run()) {
		reaper = 0
	}
	return shim, reaper
}

// slay kills what pids gave.
func (d *daemon) slay(pids ...int) {
	d.t.Helper()
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} { // all at once, as far as they can tell
		for _, pid := range pids {
			if pid <= 1 {
				d.t.Fatalf("nothing to kill: %v", pids)
			}
			if err := syscall.Kill(pid, sig); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

// awaitShim waits for a shim that is not old, under a reaper, both in their cgroup.
func (d *daemon) awaitShim(old int) {
	d.t.Helper()
	d.await("another shim and reaper are in their cgroup", func() bool {
		shim, reaper := d.pids()
		return shim != 0 && shim != old && reaper != 0 && d.inCgroup(shim) && d.inCgroup(reaper)
	})
}

func (d *daemon) inCgroup(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(raw), "/"+d.instance()+"/@shim")
}

// goodbye stops and deletes a container and wants the exit code that it gave.
func (d *daemon) goodbye(name string, code int) {
	d.t.Helper()
	ctx := d.t.Context()
	pid := d.awaitState(name, "running").PID
	d.await(name+" heeds SIGTERM", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, _ := strings.Cut(string(status), "SigCgt:\t")
		mask, perr := strconv.ParseUint(strings.SplitN(rest, "\n", 2)[0], 16, 64)
		return err == nil && perr == nil && mask&(1<<(syscall.SIGTERM-1)) != 0
	})
	if err := d.client.Stop(ctx, name); err != nil {
		d.t.Errorf("stop %s: %v", name, err)
	}
	c, err := d.client.Container(ctx, name)
	if err != nil || c.ExitCode == nil || *c.ExitCode != code {
		d.t.Errorf("%s has the reason %q, %q, %v; want exit code %d", name, c.Reason, c.Message, err, code)
	}
	if err := d.client.Delete(ctx, name); err != nil {
		d.t.Errorf("delete %s: %v", name, err)
	}
}

// TestAttackReaper: without a reaper everything goes on but the shim's safety
// net, PID 1 is not taken for the reaper, and the next shim has one again.
func TestAttackReaper(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "old", endure)
	r.NICs = []buoy.NIC{{Type: "default"}}
	d.create(r)
	shim, reaper := d.pids()
	d.slay(reaper)
	d.create(sh(t, "new", endure))
	if j := d.exec("new", "/bin/echo", "hi"); j.Stdout != "hi\n" {
		t.Errorf("job without a reaper: %+v", j)
	}
	d.create(buoy.CreateRequest{Name: "held", Flist: image(t), Standby: true})
	if err := d.client.Start(t.Context(), "held"); err != nil {
		t.Error(err)
	}
	if err := d.client.Delete(t.Context(), "held"); err != nil {
		t.Error(err)
	}
	d.killAndStart()
	if d.inCgroup(1) {
		t.Fatal("PID 1 is in the shim's cgroup")
	}
	d.goodbye("new", 7)
	c := d.awaitState("old", "running")
	d.slay(shim)
	d.awaitShim(shim)
	if now := d.awaitState("old", "running"); now.PID != c.PID {
		t.Errorf("old had pid %d and has %d", c.PID, now.PID)
	}
	d.goodbye("old", 255) // nobody of ours is its parent
	d.empty(t)
}

// TestAttackAllPrograms: containers outlive reaper, shim and buoyd together.
func TestAttackAllPrograms(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "box", endure)
	r.NICs = []buoy.NIC{{Type: "default"}}
	d.create(r)
	c := d.awaitState("box", "running")
	for _, daemonToo := range []bool{false, true} {
		shim, reaper := d.pids()
		d.slay(shim, reaper)
		if daemonToo {
			d.killAndStart()
		}
		d.awaitShim(shim)
		if now := d.awaitState("box", "running"); now.PID != c.PID {
			t.Errorf("box had pid %d and has %d", c.PID, now.PID)
		}
	}
	if err := d.client.Restart(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	d.goodbye("box", 7)
	d.empty(t)
}

// TestAttackStorm kills shim and buoyd while clients make and remove containers.
// What somebody else runs does not notice, and nothing is left.
func TestAttackStorm(t *testing.T) {
	const clients, kills = 6, 8
	d := newDaemon(t)
	r := sh(t, "bystander", endure)
	r.NICs = []buoy.NIC{{Type: "default"}}
	d.create(r)
	c := d.awaitState("bystander", "running")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for i := range clients {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ { // errors are expected, damage is not
				r := sh(t, fmt.Sprintf("storm-%d-%d", i, n%2), endure)
				r.NICs, r.Ports = []buoy.NIC{{Type: "default"}}, []string{fmt.Sprintf("%d:80", 21000+2*i+n%2)}
				_ = d.client.Create(ctx, r)
				_ = d.client.Restart(ctx, r.Name)
				_ = d.client.Delete(ctx, r.Name)
			}
		})
	}
	for i := range kills {
		if shim, _ := d.pids(); i%2 == 0 && shim != 0 {
			d.slay(shim)
			d.awaitShim(shim)
		} else {
			d.killAndStart()
		}
	}
	stop()
	wg.Wait()
	d.killAndStart()
	if now := d.awaitState("bystander", "running"); now.PID != c.PID {
		t.Errorf("the bystander had pid %d and has %d", c.PID, now.PID)
	}
	for _, c := range d.list() {
		if err := d.client.Delete(t.Context(), c.Name); err != nil {
			t.Errorf("delete %s: %v", c.Name, err)
		}
	}
	d.empty(t)
}

// TestAttackRunDir damages what lies in RUN. Containers may be lost by it, but
// not left running unseen, and the node works on.
func TestAttackRunDir(t *testing.T) {
	d := newDaemon(t)
	again := func(name string) int {
		t.Helper()
		if err := d.client.Start(t.Context(), name); errors.Is(err, buoy.ErrNotFound) {
			d.create(sh(t, name, endure))
		} else if err != nil {
			t.Fatal(err)
		}
		return d.awaitState(name, "running").PID
	}
	spoil := func(pattern, text string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(d.run(), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("nothing is at %s: %v", pattern, err)
		}
		for _, f := range files {
			if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, text := range []string{"", "null", `{"phase":`, "\x00\xff"} {
		again("box")
		spoil("containers/box/launch.json", text)
		d.killAndStart()
		d.awaitState("box", "running")

		pid := again("box")
		spoil("shim/box/*.json", text)
		d.killShim()
		d.awaitState("box", "halted")
		d.await("the process that nobody can know has ended", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	again("box")
	if err := os.Remove(filepath.Join(d.run(), "exits")); err != nil {
		t.Fatal(err)
	}
	d.killShim()
	d.goodbye("box", 7)
	again("box")
	if err := os.RemoveAll(d.run()); err != nil {
		t.Fatal(err)
	}
	d.goodbye("box", 7)
	d.killAndStart()
	again("box")
	d.goodbye("box", 7)
	d.empty(t)
}

// TestAttackFromInside tries the ways out of a container that has what
// containers have by default. docs/security.md says what that is.
func TestAttackFromInside(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "box", Flist: image(t), NICs: []buoy.NIC{{Type: "default"}}, Init: true, Command: []string{"/bin/sleep", "1000"}})
	hidden := "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats"
	var all strings.Builder
	for what, script := range map[string]string{
		"mount":              "mount -t tmpfs x /tmp",
		"bind":               "mount --bind / /tmp",
		"remount /proc/sys":  "mount -o remount,rw,bind /proc/sys",
		"unmount /proc/sys":  "umount /proc/sys",
		"another proc":       "mount -t proc x /tmp",
		"user namespace":     "unshare -U true",
		"mount namespace":    "unshare -m true",
		"other namespaces":   "for n in u i n p C; do unshare -$n true && exit; done; false",
		"enter namespaces":   "nsenter -t 1 -m -u -i -n true",
		"core_pattern":       "echo x > /proc/sys/kernel/core_pattern",
		"uevent_helper":      "echo x > /sys/kernel/uevent_helper",
		"sysctl":             "echo 1 > /proc/sys/vm/drop_caches",
		"own network's":      "echo 1 > /proc/sys/net/ipv4/ip_forward",
		"sysrq":              "echo h > /proc/sysrq-trigger",
		"interrupts":         "for f in /proc/irq/*/smp_affinity; do echo 1 > $f && exit; done; false",
		"own OOM score":      "echo -1000 > /proc/self/oom_score_adj",
		"hidden":             "for f in " + hidden + "; do head -c 1 /proc/$f | grep . && exit; ls -A /proc/$f | grep -v ^/proc/ && exit; done; ls -A /sys/firmware /sys/devices/virtual/powercap | grep -v -e : -e '^$'",
		"cgroup release":     "for c in /sys/fs/cgroup/*/ $(ls -d /sys/fs/cgroup/cgroup.procs); do echo x > ${c%cgroup.procs}/release_agent && exit; mkdir ${c%cgroup.procs}/x && exit; done; false",
		"leave the cgroup":   "for f in $(find /sys/fs/cgroup -name cgroup.procs) $(find /sys/fs/cgroup -name '*.max') $(find /sys/fs/cgroup -name '*limit_in_bytes'); do echo 0 > $f && exit; done; false",
		"disk":               "mknod /tmp/d b 254 0; head -c 1 /tmp/d",
		"memory":             "mknod /tmp/m c 1 1; head -c 1 /tmp/m",
		"kernel log":         "mknod /tmp/k c 1 11; head -c 1 /tmp/k",
		"dmesg":              "dmesg",
		"tun":                "mknod /tmp/t c 10 200; : <> /tmp/t",
		"fuse":               "mknod /tmp/f c 10 229; : <> /tmp/f",
		"devices":            "ls /dev | grep -vxE 'console|core|fd|full|mqueue|null|ptmx|pts|random|shm|stderr|stdin|stdout|tty|urandom|zero'",
		"host name":          "hostname evil",
		"clock":              "date -s 2020-01-01 2>&1 | grep permitted && exit 1",
		"module":             "insmod /bin/busybox",
		"swap":               "swapoff -a; head -c 65536 /dev/zero > /tmp/s; mkswap /tmp/s; swapon /tmp/s",
		"links":              "ip link add x type dummy; ip link set eth0 down",
		"addresses":          "ip addr add 192.0.2.1/32 dev lo",
		"rules":              "ip route add blackhole 192.0.2.2",
		"the host's network": "ip link | grep -E '^[0-9]+:' | grep -v -e ' lo:' -e ' eth0'",
		"other processes":    fmt.Sprintf("kill -0 %d; ls -d /proc/[0-9]* | wc -l | grep -vxE '[0-9]'", d.cmd.Process.Pid),
		"buoy-init":          "echo x > /proc/1/exe",
		"buoy-init's memory": "head -c 1 /proc/1/mem",
		"own program":        "echo x > /proc/self/exe",
		"kernel memory":      "head -c 1 /proc/kcore",
		"host's root":        "ls /proc/1/root/../../../../" + d.dir,
		"leaked descriptors": "for p in 1 self; do for f in $(ls /proc/$p/fd); do [ $f -le 3 ] || exit 0; readlink /proc/$p/fd/$f | grep -v -e ^/dev/null -e ^pipe: -e ^/memfd:stdin -e ^/proc/ -e ^/tmp/said && exit 0; done; done; false",
		"more capabilities":  "grep -e Cap /proc/self/status | grep -v -e CapInh:.0000000000000000 -e CapAmb:.0000000000000000 -e 00000000a80425fb",
		"no filter":          "grep -e Seccomp: -e NoNewPrivs: /proc/1/status /proc/self/status | grep -v -e Seccomp:.2 -e NoNewPrivs:.1",
	} {
		fmt.Fprintf(&all, "( %s ) >/tmp/said 2>&1 && echo '%s: '$(head -c 200 /tmp/said)\n", script, strings.ReplaceAll(what, "'", "’"))
	}
	all.WriteString("echo all tried\n")
	if j := d.exec("box", "/bin/sh", "-c", all.String()); j.Stdout != "all tried\n" {
		t.Errorf("what works (%s): %s%s", j.State, j.Stdout, j.Stderr)
	}
	for fd := range 24 { // as CVE-2024-21626
		dir := fmt.Sprintf("/proc/self/fd/%d", fd)
		r := buoy.ExecRequest{Command: []string{"/bin/ls", d.dir}, Workdir: dir}
		if result, err := d.client.ExecWait(t.Context(), "box", r); err == nil {
			t.Errorf("a job is in %s: %+v", dir, result)
		}
	}
}

// TestAttackLinks: links of an image, of a volume or of a running container
// never lead to a file of the node.
func TestAttackLinks(t *testing.T) {
	d := newDaemon(t)
	host := t.TempDir()
	secret := filepath.Join(host, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	untouched := func(what string) {
		t.Helper()
		raw, err := os.ReadFile(secret)
		entries, _ := os.ReadDir(host)
		if err != nil || string(raw) != "secret" || len(entries) != 1 {
			t.Fatalf("%s: the node's file says %q, %v, beside %v", what, raw, err, entries)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	volume := []buoy.Mount{{Type: "volume", Source: "v", Target: "/vol"}, {Type: "tmpfs", Target: "/vol2/sub"}}
	for _, link := range []string{"proc", "sys", "dev", "etc", "etc/hosts", "etc/resolv.conf", "vol", "vol2"} {
		for _, to := range []string{host, "../../../../../../../.." + host, secret, "/", "/proc/self/fd/3"} {
			root := t.TempDir()
			for _, dir := range []string{"bin", filepath.Dir(link)} {
				if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(root+"/bin/busybox", busybox, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
				t.Fatal(err)
			}
			what := link + " -> " + to
			err := d.client.Create(t.Context(), buoy.CreateRequest{Name: "box", Flist: root, Mounts: volume, Command: []string{"/bin/busybox", "sh", "-c", "echo x > /" + link + "/x; echo x > /" + link}})
			if e, ok := errors.AsType[*buoy.Error](err); err != nil && (!ok || e.Status != http.StatusBadRequest) {
				t.Errorf("%s: %v", what, err)
			}
			if err == nil {
				d.awaitState("box", "halted")
			}
			if err := d.client.Delete(t.Context(), "box"); err != nil {
				t.Fatal(err)
			}
			untouched(what)
		}
	}
	// A link that changes between a directory and the node's while files come and go.
	d.create(sh(t, "racer", "mkdir -p /r/a; while :; do ln -sfn a /r/l; ln -sfn "+host+" /r/l; mv /r/a /r/b; mv /r/b /r/a; done"))
	for range 200 {
		_ = d.client.Upload(t.Context(), "racer", "/r/l/secret", strings.NewReader("evil"))
		_ = d.client.RemoveFile(t.Context(), "racer", "/r/l/../l/secret")
	}
	untouched("upload")
}

// TestAttackFlood: a fork bomb, a flood of output and of connections stay what
// they are, and the node answers meanwhile.
func TestAttackFlood(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "bomb", "f() { f | f & }; f 2>/dev/null; exec sleep 1000"))
	d.create(sh(t, "loud", "yes 'a line of output that is neither long nor short'"))
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for range 400 {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
		if _, err := c.Write([]byte("POST /nodes HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")); err != nil {
			t.Fatal(err)
		}
	}
	d.await("the log was rotated", func() bool {
		_, err := os.Stat(filepath.Join(d.data(), "containers/loud/log/console.log.1"))
		return err == nil
	})
	if raw, err := filepath.Glob("/sys/fs/cgroup/pids/" + d.instance() + "/bomb@/pids.max"); err == nil && len(raw) == 1 {
		if most, err := os.ReadFile(raw[0]); err != nil || strings.TrimSpace(string(most)) != "4096" {
			t.Errorf("the bomb may have %q processes: %v", most, err)
		}
	}
	d.create(sh(t, "calm", endure))
	d.goodbye("calm", 7)
	for _, name := range []string{"bomb", "loud"} {
		if err := d.client.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	d.empty(t)
}

// TestAttackEndurance: what comes and goes leaves nothing in the programs.
func TestAttackEndurance(t *testing.T) {
	d := newDaemon(t)
	cycle := func(n int) {
		for i := range n {
			r := sh(t, "box", "exec sleep 1000")
			r.NICs, r.Ports = []buoy.NIC{{Type: "default"}}, []string{"21900:80"}
			d.create(r)
			if i%3 == 0 {
				d.exec("box", "/bin/true")
			}
			if err := d.client.Delete(t.Context(), "box"); err != nil {
				t.Fatal(err)
			}
		}
	}
	shim, reaper := d.pids()
	count := func() (n int) {
		for _, pid := range []int{shim, reaper, d.cmd.Process.Pid} {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))
			if err != nil {
				t.Fatal(err)
			}
			n += len(fds) + strings.Count(string(mounts), d.dir)
		}
		return n
	}
	cycle(10) // what is made once
	before := count()
	cycle(60)
	// Connections that are kept and starts that are prepared come and go.
	deadline := time.Now().Add(10 * time.Second)
	for ; count() > before+20 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
	}
	if after := count(); after > before+20 {
		t.Errorf("%d descriptors and mounts before 60 cycles, %d after", before, after)
	}
	d.empty(t)
}
