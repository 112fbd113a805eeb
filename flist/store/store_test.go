package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/internal/testredis"
)

// made is a chunk for a test: n bytes, different for every seed.
type made struct {
	ref           chunk.Ref
	plain, stored []byte
}

func makeChunk(s chunk.Scheme, seed uint64, n int) made {
	r := rand.New(rand.NewPCG(seed, 1))
	plain := make([]byte, n)
	for i := range plain {
		plain[i] = byte(r.Uint32N(40)) // compresses a little
	}
	ref, stored := s.Seal(plain)
	return made{ref, plain, stored}
}

func makeChunks(count, size int) []made {
	var list []made
	for i := range count {
		list = append(list, makeChunk([]chunk.Scheme{chunk.XXTEA, chunk.GCM}[i%2], uint64(i), size))
	}
	return list
}

func mustWrite(t testing.TB, url string, opt Options) Writer {
	t.Helper()
	w, err := Write(url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestStores runs one suite over every kind of store, real ones where they are installed.
func TestStores(t *testing.T) {
	s3 := func(addr string) string {
		return "s3://the-key:a%2Fsecret%2Bwith%3Dsigns@" + addr + "/chunks?region=eu-edge-1"
	}
	for name, url := range map[string]func(t *testing.T) string{
		"dir":   func(t *testing.T) string { return "dir://" + t.TempDir() },
		"redis": func(t *testing.T) string { return "redis://" + testredis.New(t).Addr },
		"redis with a password and a database": func(t *testing.T) string {
			return "redis://:p%40ss@" + testredis.New(t, "--requirepass", "p@ss").Addr + "/3"
		},
		"redis with a user": func(t *testing.T) string {
			s := testredis.New(t)
			say(t, s.Addr, "ACL", "SETUSER", "edge", "on", ">word", "~*", "+@all")
			return "redis://edge:word@" + s.Addr
		},
		"redis as 0-fs spells a password": func(t *testing.T) string {
			return "redis://pass@" + testredis.New(t, "--requirepass", "pass").Addr
		},
		"redis on a socket": func(t *testing.T) string {
			sock := filepath.Join(t.TempDir(), "s")
			s := &server{network: "unix", addr: sock, args: []string{
				testredis.Program(t), "--port", "0", "--unixsocket", sock, "--save", "",
			}}
			run(t, s)
			return "redis+unix://" + sock
		},
		"0-db": func(t *testing.T) string { return "zdb://" + zdbServer(t).addr },
		"0-db with a namespace": func(t *testing.T) string {
			s := zdbServer(t, "--admin", "boss")
			c := mustWrite(t, "zdb://boss@"+s.addr, Options{}).(*gate).backend.(*resp)
			for _, args := range [][]string{{"NSNEW", "edge"}, {"NSSET", "edge", "password", "word"}, {"NSSET", "edge", "public", "0"}} {
				if _, err := c.ask(t.Context(), call{maxStored, func() {}}, args...); err != nil {
					t.Fatal(args, err)
				}
			}
			return "zdb://:word@" + s.addr + "/edge"
		},
		"small 0-db": func(t *testing.T) string { return "zdb://:word@" + smallZDB(t, "edge", "word") + "/edge" },
		"small S3": func(t *testing.T) string {
			who := signer{key: "the-key", secret: "a/secret+with=signs", region: "eu-edge-1"}
			return s3(smallS3(t, who).Listener.Addr().String())
		},
		"S3": func(t *testing.T) string { return s3(realS3(t)) },
	} {
		t.Run(name, func(t *testing.T) { suite(t, url(t)) })
	}
}

func suite(t *testing.T, url string) {
	testleak.Check(t)
	w := mustWrite(t, url, Options{Parallel: 4})
	if s := w.String(); strings.Contains(s, "word") || strings.Contains(s, "pass") || strings.Contains(s, "secret") {
		t.Errorf("its name is %s", s)
	}
	odd := makeChunk(chunk.XXTEA, 1, 10)
	odd.ref.ID = "\x00\r\n$-1\r\n*\xff\x80 \"\\'\t"
	list := append(makeChunks(9, 200_000), makeChunk(chunk.XXTEA, 7, 0), makeChunk(chunk.GCM, 7, 2<<20), odd)
	var wg sync.WaitGroup
	for _, m := range list {
		wg.Go(func() {
			if b, err := w.Get(t.Context(), m.ref.ID); !errors.Is(err, errs.NotFound) {
				t.Errorf("Get of what is not there = %d bytes, %v", len(b), err)
			}
			for range 2 {
				if err := w.Put(t.Context(), m.ref.ID, m.stored); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
			for range 3 {
				if b, err := w.Get(t.Context(), m.ref.ID); err != nil || !bytes.Equal(b, m.stored) {
					t.Errorf("Get = %d bytes of %d, %v", len(b), len(m.stored), err)
				}
			}
		})
	}
	wg.Wait()
	if b, err := w.(*gate).get(t.Context(), list[0].ref.ID, 1000); !errors.Is(err, errs.Invalid) {
		t.Errorf("a chunk that is longer than it can be = %d bytes, %v", len(b), err)
	}
	if b, err := w.Get(t.Context(), list[0].ref.ID); err != nil || !bytes.Equal(b, list[0].stored) {
		t.Errorf("Get after one that was refused = %d bytes, %v", len(b), err)
	}
	if _, err := w.Get(t.Context(), "short"); !errors.Is(err, errs.Invalid) {
		t.Errorf("Get of no name = %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Get(gone, list[0].ref.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("Get when nobody waits = %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.Get(t.Context(), list[0].ref.ID); !errors.Is(err, errs.Unavailable) {
		t.Errorf("Get after Close = %v", err)
	}
}

// TestUnasked: a server that once says more than it was asked for does not put every later answer in the place of another.
func TestUnasked(t *testing.T) {
	testleak.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	list := makeChunks(4, 100_000)
	stored := map[string]string{}
	for _, m := range list {
		stored[string(m.ref.ID)] = string(m.stored)
	}
	extra := make(chan struct{}, 1)
	extra <- struct{}{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					args, err := readCommand(r)
					if err != nil {
						return
					}
					answer := fmt.Sprintf("$%d\r\n%s\r\n", len(stored[args[1]]), stored[args[1]])
					select {
					case <-extra:
						answer += answer
					default:
					}
					if _, err := c.Write([]byte(answer)); err != nil {
						return
					}
				}
			})
		}
	})
	s, err := Open("redis://"+l.Addr().String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wrong := 0
	for range 5 {
		for _, m := range list {
			got, err := s.Get(t.Context(), m.ref.ID)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, m.stored) {
				wrong++
			}
		}
	}
	if wrong > 1 { // what comes late may still be taken for an answer, once
		t.Errorf("%d answers are those of other questions", wrong)
	}
}

func TestWrongSecrets(t *testing.T) {
	testleak.Check(t)
	who := signer{key: "k", secret: "hush-hush", region: "us-east-1"}
	for name, url := range map[string]string{
		"redis":     "redis://:hush-wrong@" + testredis.New(t, "--requirepass", "hush").Addr,
		"0-db":      "zdb://:hush-wrong@" + smallZDB(t, "edge", "hush") + "/edge",
		"s3":        "s3://k:hush-wrong@" + smallS3(t, who).Listener.Addr().String() + "/chunks",
		"no bucket": "s3://k:hush-hush@" + smallS3(t, who).Listener.Addr().String() + "/hush",
	} {
		r, err := Route(flistMeta(url), nil, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = r.Fetch(t.Context(), makeChunk(chunk.XXTEA, 1, 10).ref, 10)
		if !errors.Is(err, errs.Invalid) || strings.Contains(strings.ReplaceAll(err.Error(), "/hush", ""), "hush") || time.Since(began) > 5*time.Second {
			t.Errorf("%s: after %v: %v", name, time.Since(began), err)
		}
		t.Log(err)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestHTTP(t *testing.T) {
	testleak.Check(t)
	dir := t.TempDir()
	nested, flat := makeChunk(chunk.XXTEA, 1, 1000), makeChunk(chunk.GCM, 2, 1000)
	w := mustWrite(t, "dir://"+dir, Options{})
	if err := w.Put(t.Context(), nested.ref.ID, nested.stored); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, flat.ref.ID.String()), flat.stored, 0o644); err != nil {
		t.Fatal(err)
	}
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if user, pw, _ := r.BasicAuth(); user != "me" || pw != "hush" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.StripPrefix("/pub", http.FileServer(http.Dir(dir))).ServeHTTP(w, r)
	}))
	defer s.Close()
	web, err := Open("http://me:hush@"+s.Listener.Addr().String()+"/pub/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	for _, m := range []made{nested, flat} {
		if b, err := web.Get(t.Context(), m.ref.ID); err != nil || !bytes.Equal(b, m.stored) {
			t.Errorf("Get = %d bytes, %v", len(b), err)
		}
		if b, err := w.Get(t.Context(), m.ref.ID); err != nil || !bytes.Equal(b, m.stored) {
			t.Errorf("dir: Get = %d bytes, %v", len(b), err)
		}
	}
	asked = nil
	if b, err := web.Get(t.Context(), flat.ref.ID); err != nil || len(asked) != 1 {
		t.Errorf("a flat server is asked for %v: %d bytes, %v", asked, len(b), err)
	}
	if b, err := web.Get(t.Context(), "0123456789abcdef"); !errors.Is(err, errs.NotFound) {
		t.Errorf("Get of what is not there = %d bytes, %v", len(b), err)
	}
	if _, err := Write("http://host/", Options{}); !errors.Is(err, errs.Invalid) {
		t.Errorf("Write to a web server: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, url := range []string{
		"", "x", "ftp://h", "dir://rel/path", "dir:rel", "redis://", "redis+unix://host/x", "s3://k:hush@h:1", "http://", "buoy+ftp://h/", "server://h",
		"redis://:hush@h:99999999999/%zz", "zdb://:hush@h:port",
	} {
		if s, err := Open(url, Options{}); !errors.Is(err, errs.Invalid) || strings.Contains(err.Error(), "hush") {
			t.Errorf("Open(%q) = %v, %v", url, s, err)
		}
	}
}
