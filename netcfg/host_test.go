package netcfg

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/testroot"
)

// childEnv makes this test binary play the daemon on a machine of its own.
const childEnv = "BUOY_NETCFG_TEST_CHILD"

// The other tests name the host's namespace; a daemon does not.
func TestInOwnNamespace(t *testing.T) {
	testroot.Require(t)
	if dir := os.Getenv(childEnv); dir != "" {
		playDaemon(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInOwnNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS: TestInOwnNamespace") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func playDaemon(t *testing.T, dir string) {
	here, before := threadNS(t), ""
	look := func() string {
		out, err := exec.CommandContext(t.Context(), "sh", "-ec",
			"ip link set lo up; ip link; ip -4 addr; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	before = look()
	n, err := New(Config{Instance: "own", StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	var starts []time.Duration
	for i := range 50 {
		at := time.Now()
		ns, err := n.Netns(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := container{fmt.Sprint("c", i), ns, netip.AddrFrom4([4]byte{172, 18, 0, byte(2 + i)})}
		if err := n.Attach(t.Context(), ns.Path(), c.link()); err != nil {
			t.Fatal(err)
		}
		starts = append(starts, time.Since(at))
		defer ns.Close()
		if i > 0 {
			continue
		}
		serve(t, ns.Path(), "web", "172.18.0.2:80")
		f := c.forward(TCP, "127.0.0.1:8080", 80)
		if err := n.CheckFree(f); err != nil {
			t.Error(err)
		}
		setPorts(t, n, f)
		if got := call("/proc/self/ns/net", TCP, "127.0.0.1:8080"); got != "web 172.18.0.1" {
			t.Errorf("answer %q", got)
		}
	}
	t.Log("namespace and link:", starts)
	at := time.Now()
	if err := n.Reset(t.Context()); err != nil {
		t.Error(err)
	}
	t.Log("reset with 50 links:", time.Since(at))
	if after := look(); after != before {
		t.Errorf("left:\n%s", diff(after, before))
	}
	if self, err := os.Readlink("/proc/self/ns/net"); err != nil || self != here {
		t.Errorf("the process is in %s now, was in %s: %v", self, here, err)
	}
}
