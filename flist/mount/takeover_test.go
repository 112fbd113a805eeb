package mount

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server that is killed again and again, under readers of all kinds: nobody sees an error or a wrong byte.
func TestKill(t *testing.T) {
	for name, c := range map[string]childConfig{
		"resend":    {},
		"no resend": {NoResend: true, NoPass: true}, // as on Linux 5.15
		"no pass":   {NoPass: true},
	} {
		t.Run(name, func(t *testing.T) { testKill(t, c) })
	}
}

func testKill(t *testing.T, c childConfig) {
	d := mountFuse(t)
	c.Files = map[string]int{}
	for i := range 40 {
		c.Files[fmt.Sprintf("small%02d", i)] = 1000 + i
	}
	for i := range 6 {
		c.Files[fmt.Sprintf("large%d", i)] = 2<<20 + i
	}
	c.State, c.Delay = filepath.Join(t.TempDir(), "state"), 2*time.Millisecond
	sums := map[string][32]byte{}
	var names []string
	for name, size := range c.Files {
		sums[name] = sha256.Sum256(content(name, size))
		names = append(names, name)
	}
	cache := t.TempDir()
	cmd := d.spawn(c0(c, cache, 0))
	d.settle(synthetic(c.Files).list)
	var reads atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name := names[rand.IntN(len(names))]
				if err := readWhole(filepath.Join(d.dir, name), sums[name]); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				reads.Add(1)
			}
		})
	}
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		before := reads.Load()
		until(t, "readers get on", func() bool { return reads.Load() > before+20 || t.Failed() })
		kill(t, cmd)
		cmd = d.spawn(c0(c, cache, i+1)) // an empty cache: reads go to the store again
		// The page cache shall not answer everything.
		_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0)
	}
	before := reads.Load()
	until(t, "readers get on", func() bool { return reads.Load() > before+20 || t.Failed() })
	close(stop)
	wg.Wait()
	kill(t, cmd)
	t.Logf("%d files were read while the server was killed %d times", reads.Load(), rounds)
}

// A server that ends in order leaves what waits to the next one, and answers none of it with an error.
func TestOrderlyEnd(t *testing.T) {
	d := mountFuse(t)
	files := map[string]int{}
	for i := range 64 {
		files[fmt.Sprintf("large%02d", i)] = 600_000 // two chunks: opened without the store
	}
	w := synthetic(files)
	cfg := config(t, w)
	s := start(t, d, cfg)
	rounds := 10
	for round := range rounds {
		w.down.Store(true)
		before := w.asked.Load()
		var wg sync.WaitGroup
		for i := round; i < len(files); i += rounds {
			name := fmt.Sprintf("large%02d", i)
			wg.Go(func() {
				if err := readWhole(filepath.Join(d.dir, name), sha256.Sum256(content(name, files[name]))); err != nil {
					t.Errorf("%s, when the server ended: %v", name, err)
				}
			})
		}
		until(t, "all readers wait", func() bool { return w.asked.Load() >= before+int64(len(files)/rounds) })
		s.stop()
		w.down.Store(false)
		s = start(t, d, cfg)
		wg.Wait()
	}
}

// c0 is c with a cache of its own for each server.
func c0(c childConfig, cache string, i int) childConfig {
	c.Cache = filepath.Join(cache, fmt.Sprint(i))
	return c
}

func readWhole(path string, want [32]byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want[:]) {
		return fmt.Errorf("wrong bytes")
	}
	return nil
}

// The kernel reads a complete file that is open without any server; and one that is mapped.
func TestPassthrough(t *testing.T) {
	d := mountFuse(t)
	c := childConfig{
		Files: map[string]int{"small": 300 << 10}, State: filepath.Join(t.TempDir(), "state"), Cache: filepath.Join(t.TempDir(), "cache"),
	}
	want := content("small", 300<<10)
	cmd := d.spawn(c)
	d.settle(synthetic(c.Files).list)
	f, err := os.Open(d.dir + "/small")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kill(t, cmd) // nobody answers READ now
	b := make([]byte, len(want))
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "read without a server", b, want)
	mem, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	same(t, "mapped without a server", mem, want)

	// The next server has to agree with what is open, whatever its cache has.
	cmd = d.spawn(c)
	for range 3 {
		g, err := os.Open(d.dir + "/small")
		if err != nil {
			t.Fatalf("open beside a file that an earlier server had opened: %v", err)
		}
		defer g.Close()
		if _, err := g.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		same(t, "small", b, want)
	}
	kill(t, cmd)
}

// A mapped file of several chunks is read as it is touched, also across a kill.
func TestMapped(t *testing.T) {
	d := mountFuse(t)
	size := 3 << 20
	c := childConfig{Files: map[string]int{"large": size}, State: filepath.Join(t.TempDir(), "state"), Cache: filepath.Join(t.TempDir(), "cache")}
	cmd := d.spawn(c)
	d.settle(synthetic(c.Files).list)
	f, err := os.Open(d.dir + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	want := content("large", size)
	same(t, "the first half", mem[:size/2], want[:size/2])
	kill(t, cmd)
	cmd = d.spawn(c)
	same(t, "all", mem, want)
	kill(t, cmd)
}
