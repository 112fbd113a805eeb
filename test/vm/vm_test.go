package vm

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/test/vm/agent"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	m := Start(t, Config{
		Name: "one", NoBuoy: true, Cgroup: CgroupHybrid, Memory: 384, Forward: []int{8000}, Kernel: []string{"vm.test=yes"},
		Files: append(Program(t, "/usr/bin/ldd"), File{Path: "/srv/hello", Data: []byte("hello from a guest")}),
	})
	if out := m.Must("uname", "-n"); out != "one" {
		t.Errorf("its name is %q", out)
	}
	if line, err := m.Get(t.Context(), "/proc/cmdline"); err != nil || !strings.Contains(string(line), "vm.test=yes") {
		t.Errorf("started with %q, %v", line, err)
	}
	if list := m.Must("ls", "/sys/fs/cgroup"); !strings.Contains(list, "memory") || !strings.Contains(list, "unified") {
		t.Errorf("hybrid cgroups are %q", list)
	}

	r, err := m.Exec(t.Context(), agent.Command{Args: []string{"sh", "-c", `cat; echo $A; pwd; echo err >&2; exit 3`}, Env: []string{"A=b"}, Dir: "/tmp", Stdin: []byte("in\n")})
	exit := (*agent.ExitError)(nil)
	if !errors.As(err, &exit) || r.Code != 3 || string(r.Stdout) != "in\nb\n/tmp\n" || string(r.Stderr) != "err\n" {
		t.Errorf("a command: %+v, %v", r, err)
	}
	if _, err := m.Run(t.Context(), "no-such-program"); err == nil || errors.As(err, &exit) && exit.Result.Code != 3 {
		t.Errorf("no program: %v", err)
	}

	if err := m.Put(t.Context(), "/new/dir/file", 0o700, []byte("#!/bin/sh\necho put\n")); err != nil {
		t.Fatal(err)
	}
	if out := m.Must("/new/dir/file"); out != "put" {
		t.Errorf("a file that was put says %q", out)
	}

	web, err := m.Spawn(t.Context(), "httpd", "-f", "-vv", "-p", "8000", "-h", "/srv")
	if err != nil {
		t.Fatal(err)
	}
	m.Await("the forwarded port answers", func() bool {
		text, err := fetch("http://" + m.Addr(8000) + "/hello")
		return err == nil && text == "hello from a guest"
	})
	conn, err := m.Dial(t.Context(), "tcp", "127.0.0.1:8000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /hello HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(text), "hello from a guest") {
		t.Errorf("from inside: %q, %v", text, err)
	}
	m.Await("its output is there", func() bool {
		said, err := web.Output(t.Context())
		return err == nil && strings.Count(said, "hello") == 2
	})
	if err := web.Signal(t.Context(), "TERM"); err != nil {
		t.Error(err)
	}
	if code, err := web.Wait(t.Context()); err != nil || code != 128+15 {
		t.Errorf("it ended with %d, %v", code, err)
	}

	m.Must("sh", "-c", "echo heard >/dev/console")
	m.Await("the console has it", func() bool { return strings.Contains(m.Console(), "heard") })
	if err := m.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context(), "true"); err == nil {
		t.Error("a machine that is off runs commands")
	}
}

func TestVLANBetweenMachines(t *testing.T) {
	t.Parallel()
	const vlan = 100
	w := NewWire(t)
	a := Start(t, Config{Name: "a", NoBuoy: true, Memory: 384, Wires: []*Wire{w}})
	b := Start(t, Config{Name: "b", NoBuoy: true, Memory: 384, Wires: []*Wire{w}})
	for m, addr := range map[*Machine]string{a: "10.77.0.1/24", b: "10.77.0.2/24"} {
		m.Must("ip", "link", "set", "eth1", "up")
		m.Must("ip", "link", "add", "link", "eth1", "name", "eth1.100", "type", "vlan", "id", "100")
		m.Must("ip", "addr", "add", addr, "dev", "eth1.100")
		m.Must("ip", "link", "set", "eth1.100", "up")
	}
	if mac := a.Must("cat", "/sys/class/net/eth1/address"); mac != MAC("a", 1).String() {
		t.Errorf("eth1 of a is %s, not %s", mac, MAC("a", 1))
	}
	ping := func() error {
		_, err := a.Run(t.Context(), "ping", "-c", "1", "-W", "1", "10.77.0.2")
		return err
	}
	a.Await("a reaches b", func() bool { return ping() == nil })
	if got := w.Frames(vlan); got < 4 { // ARP and ICMP, there and back
		t.Errorf("%d frames in VLAN %d", got, vlan)
	}
	w.Cut(b)
	if ping() == nil {
		t.Error("a reaches b over a cable that is cut")
	}
	w.Mend(b)
	if err := ping(); err != nil {
		t.Errorf("mended: %v", err)
	}

	// Another VLAN on the same wire is another network.
	b.Must("ip", "link", "add", "link", "eth1", "name", "eth1.200", "type", "vlan", "id", "200")
	b.Must("ip", "addr", "flush", "dev", "eth1.100")
	b.Must("ip", "addr", "add", "10.77.0.2/24", "dev", "eth1.200")
	b.Must("ip", "link", "set", "eth1.200", "up")
	if ping() == nil {
		t.Error("VLAN 100 reaches VLAN 200")
	}
}

// TestNothingIsLeftByACrash ends a test program in the middle, as a panic of
// another goroutine or a timeout would.
func TestNothingIsLeftByACrash(t *testing.T) {
	Require(t)
	const crash = "BUOY_VM_CRASH"
	if os.Getenv(crash) != "" {
		Start(t, Config{Name: "crashing", Disks: []*Disk{NewDisk(t, "d", 8)}})
		os.Exit(1)
	}
	dir := t.TempDir()
	rerun(t, t.Name(), crash+"=1", "TMPDIR="+dir)
	left, err := fs.Glob(os.DirFS(dir), "buoy-*")
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
	eventually(t, "QEMU is gone", func() bool { return !runs("mac=" + MAC("crashing", 0).String()) })
}
