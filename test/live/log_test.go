package live

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestLogFollowSurvives follows a container that never stops counting, over
// rotation and over kills of buoyd and of buoy-shim: each line comes once, in
// order.
func TestLogFollowSurvives(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	// About 3 MB/s of log: a file lasts some seconds, longer than a restart.
	d.create(sh(t, "count", "i=0; while :; do i=$((i+1)); echo $i; [ $((i%500)) -eq 0 ] && usleep 5000; done"))
	rotated := filepath.Join(d.data(), "containers", "count", "log", "console.log.1")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	var lines atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		want := int64(1)
		for l, err := range d.client.LogLines(ctx, "count", buoy.LogOptions{Follow: true}) {
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return
			}
			if err != nil || l.Text != fmt.Sprint(want) {
				t.Errorf("line %d is %+v, %v", want, l, err)
				return
			}
			lines.Store(want)
			want++
		}
	})
	grows := func() bool {
		before := lines.Load()
		d.await("more lines", func() bool {
			select {
			case <-done:
				t.Fatal("the reader has ended")
			default:
			}
			return lines.Load() > before+5000
		})
		return true
	}
	for range 4 {
		grows()
		d.kill()
		d.start()
		grows()
		d.killShim()
	}
	d.await("a rotation", func() bool { _, err := os.Stat(rotated); return err == nil })
	grows()
	d.stop()
	d.start()
	grows()
	cancel()
	wg.Wait()
	if err := d.client.Delete(t.Context(), "count"); err != nil {
		t.Error(err)
	}
	t.Logf("%d lines", lines.Load())
}

// TestLogFlood lets one container write as fast as it can beside one that says
// little: the disk has bounds, the quiet one's lines come at once, and so they
// do for many followers, of whom some do not read.
func TestLogFlood(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "flood", "yes 'the quick brown fox jumps over the lazy dog, again and again and again and again'"))
	d.create(sh(t, "quiet", "while :; do read up idle < /proc/uptime; echo $up; sleep 0.1; done"))
	stuck, err := http.Get(fmt.Sprintf("http://%s/nodes/525400123456/containers/flood/logs?follow=true", d.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Body.Close() // it never reads
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var worst time.Duration
	n := 0
	dir := filepath.Join(d.data(), "containers", "flood", "log")
	first := d.position("flood")
	began := time.Now()
	var most int64
	for l, err := range d.client.LogLines(ctx, "quiet", buoy.LogOptions{Follow: true}) {
		if err != nil {
			break
		}
		if n++; n > 5 { // those before were there already
			worst = max(worst, uptime(t)-seconds(t, l.Text))
		}
		most = max(most, size(dir))
	}
	rate := float64(d.position("flood")-first) / time.Since(began).Seconds() / 1e6
	t.Logf("%d quiet lines, the slowest after %v; the flood is %.0f MB/s of log, of which at most %.1f MiB are kept; buoyd has %d MiB",
		n, worst, rate, float64(most)/(1<<20), rss(t, d.cmd.Process.Pid))
	if n < 50 || worst > time.Second {
		t.Errorf("%d quiet lines, the slowest after %v", n, worst)
	}
	if most > 31<<20 {
		t.Errorf("the log has %d bytes", most)
	}
	d.await("the one that does not read is cut off, and what it held of the disk is free", func() bool { return held(t, d.cmd.Process.Pid) == 0 })
}

// held is how many files a process has open that are deleted.
func held(t testing.TB, pid int) (n int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatal(fds, err)
	}
	for _, fd := range fds {
		if name, _ := os.Readlink(fd); strings.Contains(name, "console.log") && strings.HasSuffix(name, "(deleted)") {
			n++
		}
	}
	return n
}

// TestLogBudget: a node's logs have bounds together, and a container's its own.
func TestLogBudget(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--log-budget", "3MiB")
	for _, name := range []string{"small", "ended", "great"} {
		r := sh(t, name, "seq 1 200000; [ $(hostname) = ended ] || sleep 1000")
		if name == "small" {
			r.Logs = buoy.LogLimits{MaxSize: 256 << 10, MaxFiles: 2}
		} else {
			r.Logs = buoy.LogLimits{MaxSize: 1 << 20, MaxFiles: 9}
		}
		d.create(r)
	}
	dir := func(name string) string { return filepath.Join(d.data(), "containers", name, "log") }
	d.await("all is written", func() bool {
		for _, name := range []string{"small", "ended", "great"} {
			for l, err := range d.client.LogLines(t.Context(), name, buoy.LogOptions{Tail: 1}) {
				if err != nil || l.Text != "200000" {
					return false
				}
			}
		}
		return true
	})
	if n := size(dir("small")); n > 600<<10 {
		t.Errorf("the small log has %d bytes", n)
	}
	d.await("the budget is kept", func() bool { return size(dir("small"))+size(dir("ended"))+size(dir("great")) <= 3<<20 })
	if left, _ := os.ReadDir(dir("ended")); len(left) != 1 {
		t.Errorf("of the one that has ended there is left: %v", left)
	}
	// A file goes as a whole: what is left of the budget may be less by one.
	if n := size(dir("great")); n < 3<<20-600<<10-2<<20-64<<10 {
		t.Errorf("the log of the one that runs has %d bytes", n)
	}
}

// position is how many bytes of log a container has written.
func (d *daemon) position(name string) int64 {
	d.t.Helper()
	var origin, offset int64
	for l, err := range d.client.LogLines(d.t.Context(), name, buoy.LogOptions{Tail: 1}) {
		if _, serr := fmt.Sscanf(l.ID, "%d-%d", &origin, &offset); err != nil || serr != nil {
			d.t.Fatal(l, err, serr)
		}
	}
	return offset
}

func size(dir string) (total int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	return total
}

// rss is the memory of a process in MiB.
func rss(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// uptime is what containers have for a clock, too, and seconds reads it.
func uptime(t testing.TB) time.Duration {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Error(err)
	}
	return seconds(t, string(b))
}

func seconds(t testing.TB, text string) time.Duration {
	var s float64
	if _, err := fmt.Sscan(text, &s); err != nil {
		t.Errorf("%q: %v", text, err)
	}
	return time.Duration(s * float64(time.Second))
}

// TestLogFollowers has a thousand followers of one container.
func TestLogFollowers(t *testing.T) {
	const followers = 1000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 3*followers {
		t.Skipf("too few descriptors: %v, %v", limit, err)
	}
	d := newDaemon(t)
	d.create(sh(t, "talk", "x=$(head -c 100 /dev/zero | tr '\\0' x); while :; do read up idle < /proc/uptime; echo $up $x; sleep 0.1; done"))
	before := rss(t, d.cmd.Process.Pid)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var got atomic.Int64
	var late sync.Map // by follower
	for i := range followers {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/nodes/525400123456/containers/talk/logs?follow=true&tail=1", d.addr), nil)
			req.Header.Set("Accept", "text/event-stream")
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			in := bufio.NewReaderSize(resp.Body, 1<<10)
			for lines := 0; lines < 40; {
				text, err := in.ReadString('\n')
				if err != nil {
					if ctx.Err() == nil && !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					return
				}
				_, text, ok := strings.Cut(text, `"text":"`)
				if !ok {
					continue
				}
				if lines++; lines == 40 {
					late.Store(i, uptime(t)-seconds(t, text))
				}
			}
			got.Add(1)
			<-ctx.Done()
		})
	}
	d.await("40 lines for each follower", func() bool { return got.Load() == followers || t.Failed() })
	var worst time.Duration
	late.Range(func(_, d any) bool { worst = max(worst, d.(time.Duration)); return true })
	after := rss(t, d.cmd.Process.Pid)
	t.Logf("buoyd has %d MiB with %d followers, %d before; the slowest line after %v", after, followers, before, worst)
	if worst > 2*time.Second {
		t.Errorf("a line came after %v", worst)
	}
	if after-before > 150 {
		t.Errorf("%d followers take %d MiB", followers, after-before)
	}
}
