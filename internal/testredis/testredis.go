// Package testredis starts a real redis for a test.
package testredis

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Server is a redis on loopback. What it was given lasts from Kill to Start.
type Server struct {
	Addr string // HOST:PORT

	t    testing.TB
	dir  string
	args []string
	cmd  *exec.Cmd
}

// New starts a server that ends with the test; args are more of its options. The test is skipped where redis is not
// installed.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String(), t: t, dir: t.TempDir(), args: args}
	l.Close()
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// URL is the server as a chunk store.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Name is what redis must be called with, as its argument 0.
const Name = "redis-server"

// Program finds redis; the test is skipped where it is not installed. Debian's redis-tools have the server too, under the name of another tool: it is one program that
// goes by what it is called.
func Program(t testing.TB) string {
	t.Helper()
	for _, name := range []string{Name, "redis-check-rdb"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.EvalSymlinks(path); err == nil {
				return path
			}
		}
	}
	t.Skip("SKIPPED: redis is not installed (Debian: redis-tools)")
	return ""
}

// Start starts the server after Kill, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	s.cmd = &exec.Cmd{
		Path: Program(s.t), Dir: s.dir, Stderr: os.Stderr,
		Args: append([]string{Name, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "yes"}, s.args...),
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		answer := s.ping()
		if strings.HasPrefix(answer, "+PONG") || strings.HasPrefix(answer, "-NOAUTH") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("redis does not answer: %q", answer)
		}
	}
}

// ping is what the server says; "-LOADING" while it reads its file.
func (s *Server) ping() string {
	var d net.Dialer
	conn, err := d.DialContext(s.t.Context(), "tcp", s.Addr)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	fmt.Fprint(conn, "PING\r\n")
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err != nil {
		return err.Error()
	}
	return string(answer[:n])
}

// Kill ends the server as a crash would.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}
