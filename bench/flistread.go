package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reads measures what is read through the mount, and how much of it comes.
func (l *lab) reads(ctx context.Context) error {
	_, err := l.onNode(ctx, func(i *instance) (time.Duration, error) { return 0, l.readOn(ctx, i) })
	return err
}

func (l *lab) readOn(ctx context.Context, i *instance) error {
	r := l.far("d.fl")
	r.Lazy = "always"
	if err := i.client.Create(ctx, r); err != nil {
		return err
	}
	c, err := i.client.Container(ctx, r.Name)
	if err != nil {
		return err
	}
	root := fmt.Sprintf("/proc/%d/root/big", c.PID)
	before := l.slow.bytes.Load()
	const some = 4
	begin := now()
	for n := range some {
		if _, err := sequential(filepath.Join(root, strconv.Itoa(n))); err != nil {
			return err
		}
	}
	took := time.Duration(now() - begin)
	group := "reads of a lazy flist"
	l.report.add(figure{Group: group, Name: "sequential, nothing of it here", Value: some * bigFile / 1e6 / took.Seconds(), Unit: "MB/s"})
	if err := i.settle(ctx, r.Name); err != nil {
		return err
	}
	if c, err = i.client.Container(ctx, r.Name); err != nil || c.Fetch == nil {
		return fmt.Errorf("the container says nothing of its flist: %w", err)
	}
	share := float64(c.Fetch.Done) / (some * bigFile)
	l.report.add(figure{
		Group: group, Name: "bytes fetched to bytes read", Value: share, Unit: "×",
		Note: fmt.Sprintf("%d MiB over the link", (l.slow.bytes.Load()-before)>>20),
	}.below(share, 1.2, "≤ 1.2 ×"))
	if err := l.cached(root, some, group, "chunks here"); err != nil {
		return err
	}
	r.Name, r.Lazy = "complete", "auto"
	if err := i.client.Create(ctx, r); err != nil {
		return err
	}
	if c, err = i.client.Container(ctx, r.Name); err != nil {
		return err
	}
	if err := i.layered(ctx); err != nil {
		return err
	}
	return l.cached(fmt.Sprintf("/proc/%d/root/big", c.PID), some, group, "a layer by now")
}

// layered waits until an flist has become a layer.
func (i *instance) layered(ctx context.Context) error {
	for {
		found, err := filepath.Glob(filepath.Join(i.data(), "images/layers/*.json"))
		if err != nil || len(found) > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settle waits until nothing more of an flist comes.
func (i *instance) settle(ctx context.Context, name string) error {
	last, since := int64(-1), time.Now()
	for time.Since(since) < 2*time.Second {
		c, err := i.client.Container(ctx, name)
		if err != nil {
			return err
		}
		if c.Fetch != nil && c.Fetch.Done != last {
			last, since = c.Fetch.Done, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// cached reads what is here by now, beside the plain files.
func (l *lab) cached(root string, files int, group, how string) error {
	kinds := []struct {
		name string
		read func(string) (time.Duration, error)
		unit string
		per  float64 // units a file
	}{
		{"sequential", sequential, "MB/s", bigFile / 1e6},
		{"sequential, pages of the mount dropped", uncached, "MB/s", bigFile / 1e6},
		{"4 KiB at random", scattered, "1000/s", scatter / 1e3},
	}
	for _, k := range kinds {
		var plain, lazy samples
		for range l.samples {
			for n := range files {
				p, err := k.read(filepath.Join(l.dir, "big", strconv.Itoa(n)))
				if err != nil {
					return err
				}
				z, err := k.read(filepath.Join(root, strconv.Itoa(n)))
				if err != nil {
					return err
				}
				plain, lazy = append(plain, p), append(lazy, z)
			}
		}
		f := figure{Group: group, Name: k.name + ", " + how, Value: k.per / lazy.ms(0.5) * 1e3, Unit: k.unit, N: len(lazy)}
		ref := figure{Group: group, Name: k.name + ", the plain file", Value: k.per / plain.ms(0.5) * 1e3, Unit: k.unit, N: len(plain)}
		f = f.against(ref.Value, "the plain file")
		if k.unit == "MB/s" {
			f = f.above(f.Ratio, 0.9, "≥ 0.9 of the plain file")
		}
		l.report.add(f)
		if how == "chunks here" {
			l.report.add(ref)
		}
	}
	return nil
}

func sequential(path string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 128<<10)
	begin := now()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
	return time.Duration(now() - begin), err
}

// uncached is sequential for pages that the mount does not have any more. What
// is below the mount still has them; so has a plain file.
func uncached(path string) (time.Duration, error) {
	if !strings.HasPrefix(path, "/proc/") {
		return sequential(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return sequential(path)
}

const scatter = 1000 // reads

func scattered(path string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	at := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same places each time
	buf := make([]byte, 4096)
	begin := now()
	for range scatter {
		if _, err := f.ReadAt(buf, at.Int64N(bigFile/4096)*4096); err != nil {
			return 0, err
		}
	}
	return time.Duration(now() - begin), nil
}

// listing lists the public flist, where its folder is known.
func (l *lab) listing(ctx context.Context) error {
	found, err := filepath.Glob(filepath.Join(os.Getenv("BUOY_FLIST_FIXTURES"), "*funk-latest.flist"))
	if err != nil || len(found) == 0 {
		l.report.NotRun = append(l.report.NotRun, "listing of the public flist: BUOY_FLIST_FIXTURES does not name its folder")
		return err
	}
	var took samples
	for range max(l.samples/4, 5) {
		if err := l.rest(ctx); err != nil {
			return err
		}
		d, err := l.flist(ctx, "ls", found[0])
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	f := took.figure("flist tools", "ls of the public flist, 30,370 files")
	l.report.add(f.below(f.Value, 150, "< 150 ms"))
	return l.walk(ctx, found[0])
}

// walk looks at every name of the public flist through a mount, of which the
// kernel knows nothing at first.
func (l *lab) walk(ctx context.Context, file string) error {
	_, err := l.onNode(ctx, func(i *instance) (time.Duration, error) {
		r := l.far("")
		r.Flist, r.Storage, r.Lazy, r.Standby = file, "", "always", true // its programs cannot be had
		if err := i.client.Create(ctx, r); err != nil {
			return 0, err
		}
		c, err := i.client.Container(ctx, r.Name)
		if err != nil {
			return 0, err
		}
		for _, when := range []string{"first", "again"} {
			begin, n := now(), 0
			err := filepath.WalkDir(fmt.Sprintf("/proc/%d/root/usr", c.PID), func(_ string, e fs.DirEntry, err error) error {
				if err == nil {
					n++
					_, err = e.Info()
				}
				return err
			})
			if err != nil {
				return 0, err
			}
			f := samples{time.Duration(now() - begin)}.figure("flist tools", "walk of the public flist's /usr through a mount, "+when)
			f.Note = fmt.Sprintf("%d names", n)
			l.report.add(f)
		}
		return 0, nil
	})
	return err
}
