package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/testleak"
)

func TestManager(t *testing.T) {
	testleak.Check(t)
	socket := filepath.Join(t.TempDir(), "notify")
	hears, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer hears.Close()
	hear := func() string {
		t.Helper()
		buf := make([]byte, 100)
		if err := hears.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := hears.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	m, err := newManager()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("what we start inherits %s=%s", name, v)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	opened, adopted, asked, ended := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { ended <- m.attend(ctx, func() { asked <- struct{}{} }, opened, adopted) }()
	close(adopted)
	close(opened)
	if got := hear(); got != "READY=1" {
		t.Error(got)
	}
	// A daemon that hangs is not alive: there is no word until alive returns.
	<-asked
	if got := hear(); got != "WATCHDOG=1" {
		t.Error(got)
	}
	<-asked
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for got := hear(); got != "STOPPING=1"; got = hear() {
		if got != "WATCHDOG=1" {
			t.Error(got)
		}
	}

	// Without a manager, or with a watchdog that is meant for another process.
	if m, err := newManager(); err != nil || m != (manager{}) || m.tell("READY=1") != nil {
		t.Errorf("%+v, %v", m, err)
	}
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", "1")
	if m, err := newManager(); err != nil || m.watchdog != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}
