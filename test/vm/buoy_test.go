package vm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const (
	image   = "/images/busybox.tar"
	webPort = 8081
)

// host is a machine for buoy, with an image for containers.
func host(t *testing.T, cfg Config) *Machine {
	rootfs := append(Busybox(t, "/"), File{Path: "/www/hello", Perm: 0o644, Data: []byte("hello from inside\n")})
	cfg.Files = append(cfg.Files, File{Path: image, Data: Rootfs(t, rootfs...)})
	cfg.Forward = append(cfg.Forward, webPort)
	return Start(t, cfg)
}

// web is a container that answers at webPort of its machine.
func web(name string) buoy.CreateRequest {
	return buoy.CreateRequest{
		Name: name, Flist: image, Init: true, Command: []string{"/bin/httpd", "-f", "-p", "80", "-h", "/www"},
		NICs: []buoy.NIC{{Type: "default"}}, Ports: []string{fmt.Sprintf("%d:80", webPort)},
	}
}

func (n *Node) create(t *testing.T, r buoy.CreateRequest) {
	t.Helper()
	if err := n.Create(t.Context(), r); err != nil {
		t.Fatalf("create %s: %v", r.Name, err)
	}
}

func awaitWeb(m *Machine) {
	m.t.Helper()
	m.Await("the published port answers", func() bool {
		text, err := fetch("http://" + m.Addr(webPort) + "/hello")
		return err == nil && text == "hello from inside\n"
	})
}

// traces is what buoy could leave on a machine.
func traces(m *Machine) string {
	m.t.Helper()
	return m.Must("sh", "-c", `
		for link in /sys/class/net/*; do echo "link $link"; done
		nft list ruleset
		find /sys/fs/cgroup -type d
		sort /proc/mounts
		cat /proc/sys/net/ipv4/ip_forward
		ls -a /run /var/lib
		ls /proc | grep '^[0-9]' | while read pid; do
			tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -o '^[^ ]*buoy[^ ]*'
		done
		true`)
}

func TestBuoyOnCgroupV2(t *testing.T) {
	t.Parallel()
	m := host(t, Config{Name: "v2", Files: Program(t, "/usr/sbin/nft")})
	before := traces(m)
	args := []string{"--dev", "--publish", "0.0.0.0"}
	n := m.Buoyd(args...)

	n.create(t, web("web"))
	awaitWeb(m)

	hungry := buoy.CreateRequest{Name: "hungry", Flist: image, Command: []string{"/bin/tail", "/dev/zero"}}
	hungry.Limits.Memory = 16 << 20
	n.create(t, hungry)
	if c := n.Await("hungry", "halted"); c.Reason != "OOMKilled" || !c.OOM {
		t.Errorf("out of memory: reason %q, oom %v, message %q", c.Reason, c.OOM, c.Message)
	}

	pid := n.Await("web", "running").PID
	n.Kill()
	awaitWeb(m) // without its daemon
	n = m.Buoyd(args...)
	if c := n.Await("web", "running"); c.PID != pid {
		t.Errorf("after kill -9 of buoyd its pid is %d, was %d", c.PID, pid)
	}

	shim := m.Must("pidof", "buoy-shim")
	m.Must("kill", "-KILL", shim)
	m.Await("another shim listens", func() bool {
		if now, err := m.Run(t.Context(), "pidof", "buoy-shim"); err != nil || strings.TrimSpace(now) == shim {
			return false
		}
		conn, err := m.Dial(t.Context(), "unix", "/run/buoy/shim.sock")
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	if c := n.Await("web", "running"); c.PID != pid {
		t.Errorf("after kill -9 of buoy-shim its pid is %d, was %d", c.PID, pid)
	}
	n.create(t, buoy.CreateRequest{Name: "later", Flist: image, Command: []string{"/bin/sleep", "1000"}})
	awaitWeb(m)

	n.create(t, buoy.CreateRequest{Name: "shell", Flist: image, Command: []string{"/bin/sh"}, TTY: true, Stdin: true})
	s, err := n.Attach(t.Context(), "shell", buoy.AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("seq 3000; tty; exit 3\n")); err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	if code, err := s.Copy(&screen, &screen); err != nil || code != 3 || !strings.Contains(screen.String(), "\r\n2999\r\n3000\r\n/dev/pts/0\r\n") {
		t.Errorf("a terminal: %d, %v, %q", code, err, screen.String())
	}

	n.Kill()
	m.Must("buoyd", "reset", "--yes")
	m.Await("closed namespaces are gone", func() bool { return !strings.Contains(m.Must("ls", "/sys/class/net"), "bv") })
	if diff := cmp.Diff(before, traces(m)); diff != "" {
		t.Errorf("buoyd reset leaves (-before +after):\n%s", diff)
	}
}

// TestPowerCut cuts the power under containers of every policy, and then reboots
// the machine through the API.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	m := host(t, Config{Name: "cut", Disks: []*Disk{NewDisk(t, "data", 256)}})
	args := []string{"--data", "/disk/data/buoy", "--run", "/run/buoy"}
	n := m.Buoyd(args...)

	// What each was before the cut is in its name.
	sleep := func(name, restart string) buoy.CreateRequest {
		return buoy.CreateRequest{Name: name, Flist: image, Init: true, Restart: restart, Command: []string{"/bin/sleep", "100000"}}
	}
	want := map[string]string{}
	for _, policy := range []struct{ name, restart, ran, stopped string }{
		{"none", "", "running", "halted"},
		{"no", "no", "halted", "halted"},
		{"always", "always", "running", "running"},
		{"unless-stopped", "unless-stopped", "running", "halted"},
	} {
		want["stopped-"+policy.name], want["ran-"+policy.name] = policy.stopped, policy.ran
		n.create(t, sleep("stopped-"+policy.name, policy.restart))
		if err := n.Stop(t.Context(), "stopped-"+policy.name); err != nil {
			t.Fatal(err)
		}
		n.create(t, sleep("ran-"+policy.name, policy.restart))
	}
	ended := sleep("ended", "on-failure")
	ended.Command = []string{"/bin/true"}
	n.create(t, ended)
	n.Await("ended", "halted")
	want["ended"] = "halted"
	n.create(t, web("web"))
	want["web"] = "running"
	m.Kill() // at once: what was answered is on the disk

	m.PowerOn()
	n = m.Buoyd(args...)
	for name, state := range want {
		c := n.Await(name, state)
		if reason := map[string]string{"ran-no": "Rebooted", "stopped-no": "Stopped", "ended": "Exited"}[name]; reason != "" && c.Reason != reason {
			t.Errorf("%s is %s for the reason %q (%s), want %q", name, state, c.Reason, c.Message, reason)
		}
	}
	awaitWeb(m)

	counted(t, m, n)
	boot := m.Must("cat", "/proc/sys/kernel/random/boot_id")
	if err := n.Reboot(t.Context(), false); err == nil {
		t.Error("the machine goes down and its daemon answers")
	}
	if err := m.AwaitOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.PowerOn()
	if now := m.Must("cat", "/proc/sys/kernel/random/boot_id"); now == boot {
		t.Error("it is the same boot")
	}
	n = m.Buoyd(args...)
	if c := n.Await("web", "running"); c.Reason != "" {
		t.Errorf("it runs for the reason %q", c.Reason)
	}
	awaitWeb(m)
}

// counted wants what a container writes to a disk in its figures.
func counted(t *testing.T, m *Machine, n *Node) {
	t.Helper()
	const wrote = 8 << 20
	n.create(t, buoy.CreateRequest{Name: "writer", Flist: image, Init: true, Command: []string{"/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1M count=8 conv=fsync; sleep 100000"}})
	m.Await("what is written is counted", func() bool {
		s, err := n.ContainerStats(t.Context(), "writer", buoy.StatsOptions{})
		return err == nil && s.IO != nil && s.IO.WriteBytes >= wrote && s.IO.Writes > 0
	})
	if s, err := n.ContainerStats(t.Context(), "web", buoy.StatsOptions{}); err != nil || s.IO == nil || s.IO.WriteBytes >= wrote {
		t.Errorf("one that writes nothing: %+v, %v", s.IO, err)
	}
}
