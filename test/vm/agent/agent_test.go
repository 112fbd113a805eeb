package agent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/test/vm/agent"
)

func serve(t *testing.T, off func()) *agent.Client {
	s := httptest.NewServer(agent.NewServer(off).Handler())
	t.Cleanup(s.Close)
	return agent.NewClient(strings.TrimPrefix(s.URL, "http://"))
}

func TestRun(t *testing.T) {
	c := serve(t, nil)
	r, err := c.Run(t.Context(), agent.Command{Args: []string{"sh", "-c", "cat; echo $A; pwd; echo err >&2"}, Env: []string{"A=b"}, Dir: "/", Stdin: []byte("in\n")})
	if err != nil || string(r.Stdout) != "in\nb\n/\n" || string(r.Stderr) != "err\n" {
		t.Errorf("%+v, %v", r, err)
	}
	exit := (*agent.ExitError)(nil)
	if _, err := c.Run(t.Context(), agent.Command{Args: []string{"sh", "-c", "echo why >&2; kill -9 $$"}}); !errors.As(err, &exit) || exit.Result.Code != 137 || !strings.HasSuffix(err.Error(), "exit code 137: why") {
		t.Errorf("killed: %v", err)
	}
	for _, args := range [][]string{{"/no/such/program"}, nil} {
		if _, err := c.Run(t.Context(), agent.Command{Args: args}); err == nil || errors.As(err, &exit) && exit.Result.Code != 137 {
			t.Errorf("%v: %v", args, err)
		}
	}
	// What a command leaves behind does not hold its answer up.
	if r, err := c.Run(t.Context(), agent.Command{Args: []string{"sh", "-c", "sleep 5 & echo $!"}}); err != nil || len(r.Stdout) == 0 {
		t.Errorf("a daemon: %+v, %v", r, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	c := serve(t, nil)
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Run(ctx, agent.Command{Args: []string{"sh", "-c", "echo $$ >" + pidFile + "; exec sleep 1000"}})
		done <- err
	}()
	var pid string
	await(t, "it runs", func() bool {
		raw, err := os.ReadFile(pidFile)
		pid = strings.TrimSpace(string(raw))
		return err == nil && pid != ""
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	await(t, "it is killed", func() bool {
		_, err := os.Stat("/proc/" + pid)
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestBackground(t *testing.T) {
	c := serve(t, nil)
	pid, err := c.Start(t.Context(), agent.Command{Args: []string{"sh", "-c", "echo said; read x </dev/null; exec sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it has said so", func() bool {
		out, err := c.Output(t.Context(), pid)
		return err == nil && out == "said\n"
	})
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(t.Context(), pid); err != nil || r.Code != 137 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := c.Wait(t.Context(), 1); err == nil {
		t.Error("process 1 is the server's")
	}
}

func TestFiles(t *testing.T) {
	c := serve(t, nil)
	path := filepath.Join(t.TempDir(), "a b/c")
	for _, text := range []string{"longer", "new"} {
		if err := c.Put(t.Context(), path, 0o750, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(t.Context(), path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := c.Get(t.Context(), path+"x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}

func TestDial(t *testing.T) {
	c := serve(t, nil)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "first ")
		_, _ = io.CopyN(conn, conn, 4)
	}()
	conn, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "echo"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "first echo" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Dial(t.Context(), "unix", path+"x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestBootAndOff(t *testing.T) {
	off := make(chan struct{})
	c := serve(t, func() { close(off) })
	if id, err := c.Boot(t.Context()); err != nil || len(id) != 36 {
		t.Errorf("%q, %v", id, err)
	}
	if err := c.Off(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-off
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
