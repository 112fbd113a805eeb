package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
)

// listen runs s and gives its doors, a way to stop it and its end.
func listen(t *testing.T, cfg Config, addrs ...string) (doors []net.Addr, stop func(), ended chan error) {
	t.Helper()
	opened := make(chan []net.Addr, 1)
	cfg.Opened = func(a []net.Addr) { opened <- a }
	s := newServer(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() { ended <- s.Listen(ctx, addrs) }()
	select {
	case doors = <-opened:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return doors, cancel, ended
}

func overUnix(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
}

// get is the answer, or why there is none.
func get(c *http.Client, url string) string {
	res, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return res.Status + " " + string(body)
}

func TestListen(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	path := filepath.Join(dir, "api.sock")
	stale, err := net.Listen("unix", path) // left by a killed daemon
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()

	doors, stop, ended := listen(t, Config{}, "unix://"+path, "127.0.0.1:0")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket has mode %v, %v", st.Mode(), err)
	}
	if got := get(overUnix(path), "http://anything/ok"); got != "200 OK \"<ok>\"\n" {
		t.Errorf("over the socket: %s", got)
	}
	tcp := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if got := get(tcp, "http://"+doors[1].String()+"/ok"); got != "200 OK \"<ok>\"\n" {
		t.Errorf("over TCP: %s", got)
	}
	if err := newServer(t, Config{}).Listen(t.Context(), []string{path}); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("a second server on the socket: %v", err)
	}

	stop()
	if err := <-ended; err != nil {
		t.Errorf("Listen = %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"0.0.0.0:0":        "only loopback addresses",
		":0":               "only loopback addresses",
		"192.0.2.1:0":      "only loopback addresses",
		"example.com:80":   "only loopback addresses",
		"[::]:0":           "only loopback addresses",
		"8080":             "HOST:PORT",
		file:               "not a socket",
		dir + "/no/a.sock": "no such file",
	} {
		err := newServer(t, Config{}).Listen(t.Context(), []string{"127.0.0.1:0", addr})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen(%s) = %v, want %s", addr, err, want)
		}
	}
	if err := newServer(t, Config{}).Listen(t.Context(), nil); err == nil {
		t.Error("Listen without addresses worked")
	}
}

// TestStop lets a running request end, ends a stream at once, and cuts what
// takes longer than the grace.
func TestStop(t *testing.T) {
	entered, release := make(chan string, 3), make(chan struct{})
	dialect := routes(func(r chi.Router) {
		r.Get("/slow", func(w http.ResponseWriter, r *http.Request) {
			entered <- "slow"
			<-release
			if r.Context().Err() != nil {
				Error(w, 500, "cut")
				return
			}
			JSON(w, 200, "whole")
		})
		r.Get("/stream", func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := StreamContext(r)
			defer cancel()
			entered <- "stream"
			<-ctx.Done()
			close(release) // the slow one goes on only after streams have been told
			JSON(w, 200, Gone(r))
		})
		r.Get("/stuck", func(w http.ResponseWriter, r *http.Request) {
			entered <- "stuck"
			<-r.Context().Done()
			JSON(w, 200, "cut")
		})
	})
	doors, stop, ended := listen(t, Config{Dialects: []Dialect{dialect}, Grace: 300 * time.Millisecond}, "127.0.0.1:0")
	answers := map[string]chan string{}
	for _, path := range []string{"slow", "stream", "stuck"} {
		answers[path] = make(chan string, 1)
		go func() { answers[path] <- get(http.DefaultClient, "http://"+doors[0].String()+"/"+path) }()
		<-entered
	}
	stop()
	for path, want := range map[string]string{"slow": "whole", "stream": "false", "stuck": "cut"} {
		if got := <-answers[path]; !strings.HasPrefix(got, "200") || !strings.Contains(got, want) {
			t.Errorf("%s = %s, want %s", path, got, want)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("Listen = %v", err)
	}
}
