package boot

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	last := time.Duration(0)
	for failed := range 100 {
		g := gap(failed)
		if g < leastGap || g > mostGap || g < last {
			t.Fatalf("after %d failures it waits %v, before %v", failed, g, last)
		}
		last = g
	}
	if last != mostGap {
		t.Errorf("it waits %v at most", last)
	}
}

func TestVerdict(t *testing.T) {
	killed, crashed := syscall.WaitStatus(syscall.SIGKILL), syscall.WaitStatus(syscall.SIGSEGV)
	for _, c := range []struct {
		status syscall.WaitStatus
		oom    bool
		want   string
	}{
		{killed, true, "out of memory"},
		{killed, false, "signal, killed"},
		{crashed, true, "signal, segmentation fault"},
		{2 << 8, false, "correct the kernel's parameters"},
		{1 << 8, false, "ended with 1"},
		{0, false, "ended with 0"},
	} {
		if got := verdict(c.status, c.oom); !strings.Contains(got, c.want) {
			t.Errorf("status %v, oom %v: %q", c.status, c.oom, got)
		}
	}
}

func TestScarce(t *testing.T) {
	if text := scarce(leastMemory - 1); !strings.Contains(text, "383 MiB") || !strings.Contains(text, "give it more") {
		t.Errorf("little: %q", text)
	}
	for _, enough := range []int64{0, leastMemory, 1 << 40} {
		if text := scarce(enough); text != "" {
			t.Errorf("%d: %q", enough, text)
		}
	}
	if n := field("MemTotal:       1024 kB\nMemFree: 3 kB\n", "MemTotal:"); n != 1024 {
		t.Errorf("MemTotal is %d", n)
	}
}

func TestWhole(t *testing.T) {
	last := filepath.Join(t.TempDir(), "last")
	if err := whole(last, 400); err == nil || !strings.Contains(err.Error(), last+", is missing") || !strings.Contains(err.Error(), "400 MiB") {
		t.Errorf("without its end: %v", err)
	}
	if err := os.WriteFile(last, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := whole(last, 400); err != nil {
		t.Error(err)
	}
}

func TestOSRelease(t *testing.T) {
	const text = "NAME=buoy\nPRETTY_NAME=\"buoy v1\"\nBUILD_ID=2026-12-01T00:00:00Z\n"
	if got := osRelease(text, "PRETTY_NAME"); got != "buoy v1" {
		t.Errorf("%q", got)
	}
	if got := osRelease(text, "BUILD_ID"); got != "2026-12-01T00:00:00Z" {
		t.Errorf("%q", got)
	}
	if got := osRelease(text, "NONE"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestConsole has a screen that takes nothing beside one that does.
func TestConsole(t *testing.T) {
	var screen bytes.Buffer
	stuck, held := io.Pipe()
	c := &console{}
	c.add(&screen)
	c.add(held)
	c.say("%d lines", 2)
	c.follow(strings.NewReader("one\r\n" + strings.Repeat("x", lineLen+1) + "\nlast"))
	for range consoleQueue {
		c.line(nil)
	}
	c.drain(50 * time.Millisecond) // for the one that is stuck
	stuck.Close()
	c.wg.Wait()
	got := screen.String()
	if !strings.HasPrefix(got, "buoy: 2 lines\none\nxxx") || !strings.Contains(got, "x\nx\nlast\n") {
		t.Errorf("%.200q", got)
	}
}

func TestUevent(t *testing.T) {
	action, alias := uevent([]byte("add@/devices/x\x00ACTION=add\x00DEVPATH=/devices/x\x00MODALIAS=pci:v1d2\x00SEQNUM=7\x00"))
	if action != "add" || alias != "pci:v1d2" {
		t.Errorf("%q of %q", action, alias)
	}
	if action, alias := uevent([]byte("libudev\x00\xfe\xed")); action != "" || alias != "" {
		t.Errorf("udev's: %q of %q", action, alias)
	}
}

func TestHasKey(t *testing.T) {
	for set, want := range map[string]bool{"10000000000000 0": true, "3 0 10000000000000 0": true, "8000000000000000 0": false, "ffffffffffffffff": false, "": false, "zz 0": false} {
		if got := hasKey(set, keyPower); got != want {
			t.Errorf("%q: %v", set, got)
		}
	}
	press := make([]byte, eventLen)
	press[atType], press[atCode], press[atValue] = eventKey, keyPower, 1
	if !pressed(press) {
		t.Error("a press is none")
	}
	press[atValue] = 0
	if pressed(press) {
		t.Error("a release is a press")
	}
}

// FuzzUevent: a device that says what it likes names one driver at most, and is
// none of the kernel's other messages.
func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@/devices/pci0000:00/usb1\x00ACTION=add\x00DEVPATH=/devices/pci0000:00/usb1\x00SUBSYSTEM=usb\x00MODALIAS=usb:v1D6Bp0002d0510dc09dsc00dp01ic09isc00ip00in00\x00SEQNUM=1\x00"))
	f.Add([]byte("libudev\x00\xfe\xed\xca\xfe"))
	f.Add([]byte("\x00=\x00ACTION\x00MODALIAS="))
	f.Fuzz(func(t *testing.T, message []byte) {
		action, alias := uevent(message)
		if strings.ContainsRune(action+alias, 0) {
			t.Fatalf("%q, %q", action, alias)
		}
		for key, value := range map[string]string{"ACTION=": action, "MODALIAS=": alias} {
			if value != "" && !bytes.Contains(append(append([]byte{0}, message...), 0), []byte("\x00"+key+value+"\x00")) {
				t.Fatalf("%s%q is not in %q", key, value, message)
			}
		}
	})
}
