package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Node is a buoyd in a guest and a client of it on the host.
type Node struct {
	*buoy.Client
	Daemon *Process

	m *Machine
}

// guestReserve is less than the default, which is more than most guests have.
const guestReserve = "8MiB"

// Buoyd starts buoyd in the guest, with the directories of a real node unless
// args say others, and waits until it is ready.
func (m *Machine) Buoyd(args ...string) *Node {
	m.t.Helper()
	daemon, err := m.Spawn(m.t.Context(), append([]string{"buoyd", "--reserve", guestReserve}, args...)...)
	if err != nil {
		m.t.Fatal(err)
	}
	run := "/run/buoy"
	for i, arg := range args[:max(len(args)-1, 0)] {
		if arg == "--run" {
			run = args[i+1]
		}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return m.Dial(ctx, "unix", filepath.Join(run, "buoy.sock"))
	}
	client, err := buoy.New("http://localhost", buoy.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}}))
	if err != nil {
		m.t.Fatal(err)
	}
	n := &Node{Client: client, Daemon: daemon, m: m}
	m.t.Cleanup(func() {
		client.Close()
		if m.t.Failed() && !m.run.over() {
			said, _ := daemon.Output(context.WithoutCancel(m.t.Context()))
			m.t.Logf("buoyd of %s, process %d, said:\n%s", m.cfg.Name, daemon.PID, said)
		}
	})
	ctx, cancel := context.WithCancel(m.t.Context())
	ended := make(chan int, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if code, err := daemon.Wait(ctx); err == nil {
			ended <- code
		}
	})
	m.Await("buoyd is ready", func() bool {
		select {
		case code := <-ended:
			m.t.Fatalf("buoyd ended with %d", code) // what it said comes with the failure
		default:
		}
		h, err := client.Health(ctx)
		return err == nil && h.Ready
	})
	return n
}

// Kill ends buoyd as a crash would.
func (n *Node) Kill() {
	n.m.t.Helper()
	n.m.Must("kill", "-KILL", fmt.Sprint(n.Daemon.PID))
	if _, err := n.Daemon.Wait(n.m.t.Context()); err != nil {
		n.m.t.Fatal(err)
	}
}

// Await waits until a container is in a state.
func (n *Node) Await(name, state string) buoy.Container {
	n.m.t.Helper()
	var c buoy.Container
	n.m.Await(name+" is "+state, func() bool {
		var err error
		c, err = n.Container(n.m.t.Context(), name)
		return err == nil && c.State == state
	})
	return c
}

const (
	awaitLimit = time.Minute            // for what takes seconds on a guest that has a CPU for itself
	awaitPause = 200 * time.Millisecond // a question may cost the guest 50 ms of CPU
)

// Await waits for a condition that something else brings about.
func (m *Machine) Await(what string, ok func() bool) {
	m.t.Helper()
	m.await(awaitLimit, what, ok)
}

func (m *Machine) await(limit time.Duration, what string, ok func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(awaitPause) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: waited in vain: %s", m.cfg.Name, what)
		}
		if m.run.over() {
			m.t.Fatalf("%s has ended: waited in vain: %s", m.cfg.Name, what)
		}
	}
}

// Rootfs is a tar archive of files: an image for a container.
func Rootfs(t testing.TB, files ...File) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if f.From != "" {
			var err error
			if f.Data, err = os.ReadFile(f.From); err != nil {
				t.Fatal(err)
			}
		}
		h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Perm), Size: int64(len(f.Data)), Typeflag: tar.TypeReg}
		if f.Link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
