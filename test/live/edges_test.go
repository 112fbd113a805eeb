package live

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestPortTakenWhileHalted: a process of the node takes a port that belongs to
// a container which does not run. The start says so, and works when it is free.
func TestPortTakenWhileHalted(t *testing.T) {
	d := newDaemon(t)
	port := freePort(t)
	r := sh(t, "web", "httpd -f -p 80 -h /www")
	r.NICs, r.Ports, r.Init = []buoy.NIC{{Type: "default"}}, []string{fmt.Sprintf("127.0.0.1:%d:80", port)}, true
	d.create(r)
	if err := d.client.Stop(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	err = d.client.Start(t.Context(), "web")
	if !errors.Is(err, buoy.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("127.0.0.1:%d/tcp is in use by a process on the host", port)) {
		t.Errorf("start while the port is taken: %v", err)
	}
	if c, err := d.client.Container(t.Context(), "web"); err != nil || c.Reason != "StartFailed" || !strings.Contains(c.Message, "in use") {
		t.Errorf("%s: %s, %v", c.Reason, c.Message, err)
	}
	l.Close()
	if err := d.client.Start(t.Context(), "web"); err != nil {
		t.Errorf("start when it is free again: %v", err)
	}
	if err := d.client.Restart(t.Context(), "web"); err != nil {
		t.Errorf("its own port is in its way: %v", err)
	}
}

// TestTruncatedIsTrue only when something of a job's output is not there.
func TestTruncatedIsTrue(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "box", Flist: image(t)})
	for kib, want := range map[int]bool{10: false, 1500: false, 4000: true} {
		script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo %s; i=$((i+1)); done", kib, strings.Repeat("x", 1023))
		j := d.exec("box", "/bin/sh", "-c", script)
		if whole := len(j.Stdout) == kib<<10; whole == want || j.Truncated != want {
			t.Errorf("%d KiB: %d bytes, truncated %v", kib, len(j.Stdout), j.Truncated)
		}
	}
}
