package vm

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// chunkStore is a web server of the host with chunks of flists, for guests. It
// starts away, and its answers can be counted out.
type chunkStore struct {
	t    *testing.T
	dir  string
	port int
	srv  *http.Server // nil: away

	mu     sync.Mutex // guards what follows
	left   int        // requests that are answered before the next one waits; -1: all
	held   int        // requests that wait
	change chan struct{}
}

func newChunkStore(t *testing.T) *chunkStore {
	s := &chunkStore{t: t, dir: t.TempDir(), port: freePort(t), left: -1, change: make(chan struct{})}
	t.Cleanup(s.away)
	return s
}

// url is where guests find it.
func (s *chunkStore) url() string { return fmt.Sprintf("http://10.0.2.2:%d", s.port) }

// back makes it listen, away stop that.
func (s *chunkStore) back() {
	s.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(s.t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	s.srv = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.srv.Serve(l) }() // until away
}

func (s *chunkStore) away() {
	if s.srv != nil {
		_ = s.srv.Close()
		s.srv = nil
	}
}

func (s *chunkStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	for s.left == 0 {
		change := s.change
		s.held++
		s.mu.Unlock()
		select {
		case <-change:
		case <-r.Context().Done():
		}
		s.mu.Lock()
		s.held--
		if r.Context().Err() != nil {
			s.mu.Unlock()
			return
		}
	}
	s.left = max(s.left-1, -1)
	s.mu.Unlock()
	http.ServeFile(w, r, filepath.Join(s.dir, filepath.Clean(r.URL.Path)))
}

// allow has it answer n more requests, with -1 all.
func (s *chunkStore) allow(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = n
	close(s.change)
	s.change = make(chan struct{})
}

// waiting is how many requests it keeps waiting.
func (s *chunkStore) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// tree is the root of an image: busybox, and files whose content the seed says,
// of which sums has a line each, as sha256sum prints it.
func tree(t *testing.T, seed string, files, size int) (dir, sums string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range Busybox(t, dir) {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(f.From)
		if f.Link != "" {
			err = os.Symlink(f.Link, f.Path)
		} else if err == nil {
			err = os.WriteFile(f.Path, data, f.Perm)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"d", "dev", "proc", "sys", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	var lines strings.Builder
	for i := range files {
		data := make([]byte, size)
		_, _ = random.Read(data) // never fails
		name := fmt.Sprintf("/d/%02d", i)
		if err := os.WriteFile(dir+name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(data), name)
	}
	return dir, lines.String()
}

// packed is an flist of a directory, for Config.Files.
func packed(t *testing.T, dir, store, name string) File {
	t.Helper()
	program := filepath.Join(filepath.Dir(Buoy(t)[0].From), "buoy-flist")
	file := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), program, "pack", dir, "-o", file, "--store", "dir://"+store)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	return File{Path: "/images/" + name, From: file}
}

// below is all files of a directory of the host, for Config.Files, at another place.
func below(t *testing.T, dir, at string) (files []File) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, File{Path: at + strings.TrimPrefix(path, dir), From: path})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
