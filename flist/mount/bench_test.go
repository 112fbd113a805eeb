package mount

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
)

const benchSize = 128 << 20

// forget drops the pages of a file, or of all files of a directory, from the page cache.
func forget(b *testing.B, path string) {
	b.Helper()
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		b.Fatal(err)
	}
}

// benchFiles are a file of a mount with all its chunks in the cache, and a plain one, on the same disk.
func benchFiles(b *testing.B) (mounted, plain, cache string) {
	w := synthetic(map[string]int{"large": benchSize})
	cfg := config(b, w)
	s := start(b, mountFuse(b), cfg)
	mounted = s.dir + "/large"
	mustRead(b, mounted)
	plain = filepath.Join(b.TempDir(), "plain")
	if err := os.WriteFile(plain, content("large", benchSize), 0o600); err != nil {
		b.Fatal(err)
	}
	unix.Sync()
	return mounted, plain, filepath.Join(filepath.Dir(cfg.StateDir), "cache")
}

func readThrough(b *testing.B, path string, buf []byte) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Read(buf); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// cpu is what this process, which reads and serves, has used: it says more than the clock on a busy machine.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSequential reads 128 MiB from front to back: "disk" with no page of it in memory, neither of the mount nor of the
// cache's files; "cache" with those of the cache's files (of the plain one: all) in memory; "pages" with all of them.
func BenchmarkSequential(b *testing.B) {
	mounted, plain, cache := benchFiles(b)
	buf := make([]byte, 256<<10)
	for _, state := range []string{"disk", "cache", "pages"} {
		for name, path := range map[string]string{"plain": plain, "mount": mounted} {
			b.Run(state+"/"+name, func(b *testing.B) {
				b.SetBytes(benchSize)
				readThrough(b, path, buf)
				var used time.Duration
				for b.Loop() {
					b.StopTimer()
					if state != "pages" && name == "mount" {
						forget(b, mounted)
					}
					if state == "disk" {
						forget(b, plain)
						forget(b, cache)
					}
					before := cpu(b)
					b.StartTimer()
					readThrough(b, path, buf)
					used += cpu(b) - before
				}
				b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// BenchmarkWhole is the same for a file that is complete, with the layer that has it: the kernel reads it by itself.
func BenchmarkWhole(b *testing.B) {
	cfg := config(b, synthetic(map[string]int{"large": benchSize}))
	layer := b.TempDir()
	plain := layer + "/large"
	if err := os.WriteFile(plain, content("large", benchSize), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg.Layer = layer
	s := start(b, mountFuse(b), cfg)
	buf := make([]byte, 256<<10)
	for name, path := range map[string]string{"plain": plain, "mount": s.dir + "/large"} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			readThrough(b, path, buf)
			for b.Loop() {
				readThrough(b, path, buf)
			}
		})
	}
}

// BenchmarkRandom reads 4 KiB here and there, without a page in the mount's memory.
func BenchmarkRandom(b *testing.B) {
	mounted, plain, _ := benchFiles(b)
	buf := make([]byte, 4096)
	for name, path := range map[string]string{"plain": plain, "mount": mounted} {
		b.Run(name, func(b *testing.B) {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
				b.Fatal(err)
			}
			if name == "mount" {
				if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := f.ReadAt(buf, rand.Int64N(benchSize/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWalk looks at every file of a real image of 38,000 entries, mounted anew each time.
func BenchmarkWalk(b *testing.B) {
	dir := os.Getenv("BUOY_FLIST_FIXTURES")
	if dir == "" {
		b.Skip("SKIPPED: BUOY_FLIST_FIXTURES does not name the directory of the public flists")
	}
	files, err := filepath.Glob(dir + "/public/*funk-latest.flist")
	if err != nil || len(files) != 1 {
		b.Fatalf("no public flist in %s: %v", dir, err)
	}
	began := time.Now()
	l, err := flist.Open(b.Context(), files[0])
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("opening it takes %v", time.Since(began))
	n := 0
	var used time.Duration
	for b.Loop() {
		b.StopTimer()
		s := start(b, mountFuse(b), config(b, &world{list: l}))
		before := cpu(b)
		b.StartTimer()
		n = 0
		err := filepath.WalkDir(s.dir, func(p string, e fs.DirEntry, err error) error {
			n++
			if err == nil {
				_, err = e.Info()
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		used += cpu(b) - before
		b.Logf("%d requests", s.dev.taken.Load())
		s.stop()
		b.StartTimer()
	}
	b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
	if n != len(l.Nodes) {
		b.Errorf("%d entries of %d", n, len(l.Nodes))
	}
}
