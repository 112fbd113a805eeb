package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// manager is one that says where its restart would have been.
func manager(t *testing.T) (m *Manager, restarts *atomic.Int32) {
	t.Helper()
	restarts = new(atomic.Int32)
	dir := filepath.Join(t.TempDir(), "upgrade")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{
		Dir: dir, Run: t.TempDir(), Keys: keysDir(t), Version: "v1.0.0", Before: func() []Process { return nil },
		Restart: func() { restarts.Add(1) }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, restarts
}

// badServer gives a file, but cuts each connection after some bytes.
type badServer struct {
	data   []byte
	most   int // bytes of an answer; 0: all
	tag    string
	status int
	asked  []string // Range of each request
}

func (s *badServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, r.Header.Get("Range"))
	w := httptest.NewRecorder()
	if s.status != 0 {
		w.WriteHeader(s.status)
	} else {
		if s.tag != "" {
			w.Header().Set("ETag", s.tag)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
	}
	resp := w.Result()
	resp.ContentLength = int64(w.Body.Len())
	if s.most > 0 && w.Body.Len() > s.most {
		resp.Body = &cut{Reader: bytes.NewReader(w.Body.Bytes()[:s.most])}
	}
	return resp, nil
}

type cut struct{ *bytes.Reader }

func (c *cut) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err != nil {
		err = errors.New("connection reset")
	}
	return n, err
}
func (*cut) Close() error { return nil }

func TestPieces(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100)
	for name, tt := range map[string]struct {
		tag   string
		whole bool // each try begins anew
	}{"with a tag": {`"one"`, false}, "with a weak one": {`W/"one"`, true}, "without": {"", true}} {
		m, _ := manager(t)
		s := &badServer{data: data, most: 300, tag: tt.tag}
		client := &http.Client{Transport: s}
		f := Fetch{URL: "http://x/bundle"}
		var err error
		for range 4 {
			if err = m.piece(t.Context(), client, &f); err == nil {
				break
			}
		}
		got, rerr := os.ReadFile(filepath.Join(m.cfg.Dir, incoming))
		if rerr != nil {
			t.Fatal(rerr)
		}
		switch {
		case tt.whole && (err == nil || len(got) != 300):
			t.Errorf("%s: %d bytes, %v; want each try to begin anew", name, len(got), err)
		case !tt.whole && (err != nil || !bytes.Equal(got, data)):
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		case !tt.whole && fmt.Sprint(s.asked) != "[ bytes=300- bytes=600- bytes=900-]":
			t.Errorf("%s: asked for %q", name, s.asked)
		}
	}
}

func TestPieceOfAnotherFile(t *testing.T) {
	m, _ := manager(t)
	s := &badServer{data: bytes.Repeat([]byte("a"), 1000), most: 300, tag: `"one"`}
	client, f := &http.Client{Transport: s}, Fetch{URL: "http://x/bundle"}
	if err := m.piece(t.Context(), client, &f); err == nil {
		t.Fatal("the connection was cut, and nobody noticed")
	}
	s.data, s.tag, s.most = bytes.Repeat([]byte("b"), 500), `"two"`, 0
	if err := m.piece(t.Context(), client, &f); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(m.cfg.Dir, incoming)); err != nil || !bytes.Equal(got, s.data) {
		t.Errorf("%q, %v; want the new file alone", got, err)
	}
}

func TestPieceRefused(t *testing.T) {
	for status, again := range map[int]bool{404: false, 403: false, 410: false, 429: true, 500: true, 503: true} {
		m, _ := manager(t)
		f := Fetch{URL: "http://x/bundle"}
		err := m.piece(t.Context(), &http.Client{Transport: &badServer{status: status}}, &f)
		if _, permanent := errors.AsType[permanent](err); err == nil || permanent == again {
			t.Errorf("%d: %v, permanent %v", status, err, permanent)
		}
	}
}

// run runs m until the test ends.
func (m *Manager) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestFetch(t *testing.T) {
	testleak.Check(t)
	bundle := archive(t, members(t, nil)...)
	files := http.NewServeMux()
	for name, data := range map[string][]byte{"good": bundle, "short": bundle[:len(bundle)/2]} {
		files.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"x"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		})
	}
	server := httptest.NewServer(files)
	t.Cleanup(server.Close)
	m, restarts := manager(t)
	m.run(t)
	until := func(what string, ok func(Status) bool) Status {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if s, err := m.Status(); err == nil && ok(s) {
				return s
			}
		}
		t.Fatal("waited in vain: " + what)
		return Status{}
	}
	for name, says := range map[string]string{"none": "404", "short": "too early"} {
		if err := m.Begin(t.Context(), server.URL+"/"+name, 0); err != nil {
			t.Fatal(err)
		}
		s := until("a refusal of "+name, func(s Status) bool {
			return s.Phase == idle && s.Fetch == nil && s.Last != nil && strings.Contains(s.Last.Message, "/"+name)
		})
		if s.Last.Result != refused || !strings.Contains(s.Last.Message, says) {
			t.Errorf("%s: %+v, want %q", name, s.Last, says)
		}
	}
	for _, bad := range []string{"", "ftp://x/y", "/etc/passwd", "http://", "file:///x"} {
		if err := m.Begin(t.Context(), bad, 0); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v, want invalid", bad, err)
		}
	}
	if err := m.Begin(t.Context(), server.URL+"/good", 0); err != nil {
		t.Fatal(err)
	}
	s := until("a trial", func(s Status) bool { return s.Trial != nil && restarts.Load() == 1 })
	if s.Trial.Version != "v2.0.0" || s.Trial.From != "v1.0.0" || s.Trial.Window != 300 || s.Phase != restarting {
		t.Errorf("%+v, phase %s", s.Trial, s.Phase)
	}
	if err := m.Receive(t.Context(), bytes.NewReader(bundle), 0); !errors.Is(err, errs.Conflict) {
		t.Errorf("a second one: %v, want a conflict", err)
	}
}

func TestCancel(t *testing.T) {
	testleak.Check(t)
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(stuck.Close)
	m, _ := manager(t)
	m.run(t)
	if err := m.Cancel(); !errors.Is(err, errs.NotFound) {
		t.Errorf("nothing to cancel: %v", err)
	}
	if err := m.Begin(t.Context(), stuck.URL, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Begin(t.Context(), stuck.URL, 0); !errors.Is(err, errs.Conflict) {
		t.Errorf("a second fetch: %v, want a conflict", err)
	}
	for m.Cancel() != nil { // it begins in its own time
		time.Sleep(time.Millisecond)
	}
	for {
		if s, err := m.Status(); err == nil && s.Last != nil && s.Fetch == nil {
			if s.Last.Result != refused {
				t.Errorf("%+v", s.Last)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestPatience gives up on a server that brings nothing, but not soon.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := manager(t)
		f := Fetch{URL: "http://127.0.0.1:1/nobody"}
		begin := time.Now()
		err := m.download(t.Context(), &f)
		if err == nil || time.Since(begin) < fetchPatience || time.Since(begin) > fetchPatience+2*longestWait {
			t.Errorf("%v after %v, want it to be given up after %v", err, time.Since(begin), fetchPatience)
		}
	})
}
