package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/testredis"
)

// port is one that nobody listens on at the moment.
func port(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

// server is a program of others that is started for a test.
type server struct {
	t       testing.TB
	args    []string
	env     []string
	dir     string
	network string
	addr    string
	cmd     *exec.Cmd
	out     bytes.Buffer
}

// program is where a program is; without it, the test is skipped.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	if filepath.Base(s.args[0]) == "redis-check-rdb" {
		s.cmd.Args[0] = testredis.Name
	}
	s.cmd.Env, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = append(os.Environ(), s.env...), s.dir, &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial(s.network, s.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.kill()
			s.t.Fatalf("%s does not listen: %v\n%s", s.args[0], err, &s.out)
		}
	}
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func run(t testing.TB, s *server) *server {
	t.Helper()
	s.t, s.dir = t, t.TempDir()
	if s.network == "" {
		s.network = "tcp"
	}
	t.Cleanup(s.kill)
	s.start()
	return s
}

func zdbServer(t testing.TB, args ...string) *server {
	t.Helper()
	p := port(t)
	return run(t, &server{addr: "127.0.0.1:" + p, args: append([]string{
		program(t, "zdb"), "--listen", "127.0.0.1", "--port", p, "--mode", "user",
	}, args...)})
}

// say is one command to a server, for setting it up.
func say(t testing.TB, addr string, args ...string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(appendCommand(nil, args...)); err != nil {
		t.Fatal(err)
	}
	a, err := readReply(bufio.NewReader(c), call{maxStored, func() {}})
	if err != nil || a.kind == '-' {
		t.Fatalf("%q: %+v, %v", args, a, err)
	}
}

// smallZDB answers as 0-db does: SET returns the key, or nothing if the value was there; namespaces have passwords.
func smallZDB(t testing.TB, ns, password string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	kept := map[string]string{}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	serve := func(c net.Conn) {
		defer c.Close()
		stop := make(chan struct{})
		defer close(stop)
		in := ""
		for r := bufio.NewReader(c); ; {
			args, err := readCommand(r)
			if err != nil {
				return
			}
			mu.Lock()
			switch args[0] {
			case "SELECT":
				if args[1] != ns || strings.Join(args[2:], " ") != password {
					fmt.Fprint(c, "-Access denied\r\n")
					break
				}
				in = ns
				fmt.Fprint(c, "+OK\r\n")
			case "EXISTS":
				_, ok := kept[in+"/"+args[1]]
				fmt.Fprintf(c, ":%d\r\n", map[bool]int{true: 1}[ok])
			case "SET":
				if kept[in+"/"+args[1]] == args[2] {
					fmt.Fprint(c, "$0\r\n\r\n")
					break
				}
				kept[in+"/"+args[1]] = args[2]
				fmt.Fprintf(c, "$%d\r\n%s\r\n", len(args[1]), args[1])
			case "GET":
				if v, ok := kept[in+"/"+args[1]]; ok {
					fmt.Fprintf(c, "$%d\r\n%s\r\n", len(v), v)
				} else {
					fmt.Fprint(c, "$-1\r\n")
				}
			default:
				fmt.Fprint(c, "-Command not supported\r\n")
			}
			mu.Unlock()
		}
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go serve(c)
		}
	})
	return l.Addr().String()
}

func readCommand(r *bufio.Reader) ([]string, error) {
	head, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(head[1:]))
	if err != nil {
		return nil, err
	}
	var args []string
	for range n {
		a, err := readReply(r, call{maxStored, func() {}})
		if err != nil {
			return nil, err
		}
		args = append(args, string(a.data))
	}
	return args, nil
}

// smallS3 is a bucket that checks signatures by making them again.
func smallS3(t testing.TB, who signer) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	kept := map[string][]byte{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		sum := sha256.Sum256(body)
		again, _ := http.NewRequest(r.Method, "http://"+r.Host+r.URL.Path, http.NoBody)
		at, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		who.sign(again, body, at)
		fail := func(status int, code string) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>no</Message></Error>`, code)
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Header.Get("Authorization") != again.Header.Get("Authorization"):
			fail(http.StatusForbidden, "SignatureDoesNotMatch")
		case r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]):
			fail(http.StatusBadRequest, "XAmzContentSHA256Mismatch")
		case !strings.HasPrefix(r.URL.Path, "/chunks/"):
			fail(http.StatusNotFound, "NoSuchBucket")
		case r.Method == http.MethodPut:
			kept[r.URL.Path] = body
		case kept[r.URL.Path] == nil:
			fail(http.StatusNotFound, "NoSuchKey")
		default:
			w.Header().Set("Content-Length", strconv.Itoa(len(kept[r.URL.Path])))
			_, _ = w.Write(kept[r.URL.Path])
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// realS3 is versitygw with an empty bucket.
func realS3(t testing.TB) (addr string) {
	t.Helper()
	p := port(t)
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "chunks"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := run(t, &server{addr: "127.0.0.1:" + p, args: []string{
		program(t, "versitygw"), "--port", "127.0.0.1:" + p, "--access", "the-key", "--secret", "a/secret+with=signs", "--region", "eu-edge-1",
		"--quiet", "posix", "--nometa", root,
	}})
	return s.addr
}
