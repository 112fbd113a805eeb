package confine

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a confined program says of what it tries, instead of the tests.
func TestMain(m *testing.M) {
	if os.Getenv("BUOY_TEST_CONFINED") != "" {
		tryThings()
		return
	}
	os.Exit(m.Run())
}

func tryThings() {
	started := make(chan struct{})
	stop := make(chan struct{})
	go func() { // a thread that is there before, and calls nothing
		close(started)
		<-stop
	}()
	<-started
	say := func(what string, err error) { fmt.Printf("%s: %v\n", what, err) }
	say("capabilities", Capabilities(unix.CAP_CHOWN))
	say("calls", Calls())
	for range 3 { // from several threads
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			say("shell", exec.Command("/bin/sh", "-c", "echo out").Run())
			_, err := unix.PtraceGetEventMsg(os.Getppid())
			say("ptrace", err)
			say("mount", unix.Mount("none", "/mnt", "tmpfs", 0, ""))
			say("namespace", unix.Unshare(unix.CLONE_NEWUSER))
			_, err = os.ReadFile("/proc/self/status")
			say("file", err)
		}()
		<-ended
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Seccomp:") || strings.HasPrefix(line, "NoNewPrivs:") || strings.HasPrefix(line, "CapEff:") || strings.HasPrefix(line, "CapPrm:") {
			fmt.Print(line)
		}
	}
	close(stop)
}

// TestConfined: a program that was confined starts no other, looks into no other,
// and goes on otherwise.
func TestConfined(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "BUOY_TEST_CONFINED=1")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said := string(out)
	for what, n := range map[string]int{
		"calls: <nil>\n": 1, "shell: fork/exec /bin/sh: operation not permitted\n": 3, "ptrace: operation not permitted\n": 3,
		"mount: operation not permitted\n": 3, "namespace: operation not permitted\n": 3, "file: <nil>\n": 3, "NoNewPrivs:\t1\n": 1, "Seccomp:\t2\n": 1,
	} {
		if got := strings.Count(said, what); got != n {
			t.Errorf("%q is there %d times, want %d, in:\n%s", what, got, n, said)
		}
	}
	const all = ^uint64(1) // but CAP_CHOWN
	var eff, prm uint64
	if _, err := fmt.Sscanf(said[strings.Index(said, "CapPrm:"):], "CapPrm:\t%x\nCapEff:\t%x\n", &prm, &eff); err != nil {
		t.Fatal(err)
	}
	switch {
	case strings.Contains(said, "capabilities: <nil>\n") && (eff|prm)&all != 0:
		t.Errorf("capabilities %x, %x are left", prm, eff)
	case !strings.Contains(said, "capabilities: <nil>\n") && !strings.Contains(said, "capabilities: drop capabilities: "+error(unix.ENOTSUP).Error()): // of cgo, which the race detector is
		t.Error(said)
	}
}
