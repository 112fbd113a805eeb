package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// at is a line of a log, n seconds after noon.
func at(n int, rest string) string {
	return time.Date(2020, 11, 21, 12, 0, n, 123456789, time.UTC).Format(time.RFC3339Nano) + " " + rest + "\n"
}

func noon(n int) time.Time { return time.Date(2020, 11, 21, 12, 0, n, 0, time.UTC) }

func writeLog(t testing.TB, path string, parts ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(parts, "")); err != nil {
		t.Fatal(err)
	}
}

// show is a line in short.
func show(l LogLine) string {
	s := map[string]string{"stdout": "o:", "stderr": "e:"}[l.Stream] + l.Text
	if l.Partial {
		s += "…"
	}
	return s
}

func readAll(t *testing.T, path string, q LogQuery) []string {
	t.Helper()
	got := []string{}
	if err := ReadLogs(t.Context(), path, q, func(l LogLine) error { got = append(got, show(l)); return nil }); err != nil {
		t.Errorf("ReadLogs(%+v): %v", q, err)
	}
	return got
}

func TestReadLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeLog(t, path+".2", at(0, "stdout F zero"), at(1, "stderr F one"))
	writeLog(t, path+".1", at(2, "stdout P two "), at(3, "stderr F three"), "garbage\n", "\n", at(4, "stdin F no"), at(4, "stdout X no"), "2026 stdout F no\n")
	writeLog(t, path, at(5, "stdout F and five"), at(6, "stdout F"), at(7, "stdout F:tag  seven "), at(8, "stderr P eight"))
	writeLog(t, path+".x", at(9, "stdout F no"))
	writeLog(t, path+".gz", at(9, "stdout F no"))

	all := []string{"o:zero", "e:one", "e:three", "o:two and five", "o:", "o: seven ", "e:eight…"}
	tests := []struct {
		name string
		q    LogQuery
		want []string
	}{
		{"all", LogQuery{}, all},
		{"stdout", LogQuery{Stream: "stdout"}, []string{"o:zero", "o:two and five", "o:", "o: seven "}},
		{"stderr", LogQuery{Stream: "stderr"}, []string{"e:one", "e:three", "e:eight…"}},
		{"since", LogQuery{Since: noon(4)}, all[3:]},
		{"until", LogQuery{Until: noon(4)}, all[:3]},
		{"between", LogQuery{Since: noon(1), Until: noon(6)}, all[1:4]},
		{"since the future", LogQuery{Since: noon(3600)}, []string{}},
		{"tail 1", LogQuery{Tail: 1}, all[6:]},
		{"tail 2", LogQuery{Tail: 2}, all[5:]},
		{"tail 4 joins over files", LogQuery{Tail: 4}, all[3:]},
		{"tail 5", LogQuery{Tail: 5}, all[2:]},
		{"tail 7", LogQuery{Tail: 7}, all},
		{"tail 100", LogQuery{Tail: 100}, all},
		{"tail none", LogQuery{Tail: -1}, []string{}},
		{"tail of stderr", LogQuery{Tail: 2, Stream: "stderr"}, []string{"e:three", "e:eight…"}},
		{"tail of stdout", LogQuery{Tail: 3, Stream: "stdout"}, []string{"o:two and five", "o:", "o: seven "}},
		{"tail until", LogQuery{Tail: 2, Until: noon(4)}, all[1:3]},
		{"tail since", LogQuery{Tail: 5, Since: noon(6)}, all[4:]},
	}
	for _, tt := range tests {
		if got := readAll(t, path, tt.q); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestReadLogsErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	none := func(LogLine) error { return nil }
	if err := ReadLogs(t.Context(), path, LogQuery{}, none); !errors.Is(err, errs.NotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
	if err := ReadLogs(t.Context(), filepath.Join(path, "sub/log"), LogQuery{}, none); !errors.Is(err, errs.NotFound) {
		t.Errorf("no folder: %v", err)
	}
	if err := ReadLogs(t.Context(), path, LogQuery{Stream: "both"}, none); !errors.Is(err, errs.Invalid) {
		t.Errorf("bad stream: %v", err)
	}
	writeLog(t, path, at(1, "stdout F a"), at(2, "stdout F b"))
	stop := errors.New("stop")
	n := 0
	if err := ReadLogs(t.Context(), path, LogQuery{Follow: true}, func(LogLine) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("callback's error: %v after %d lines", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ReadLogs(ctx, path, LogQuery{}, none); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReadLogsLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	chunk := strings.Repeat("x", 16<<10)
	for range 100 { // 1.6 MiB without end
		writeLog(t, path, at(1, "stdout P "+chunk))
	}
	writeLog(t, path, at(2, "stdout F end"), strings.Repeat("garbage", 1<<19), "\n", at(3, "stdout F torn")[:41]) // 3.5 MiB
	var sizes []int
	got := []LogLine{}
	if err := ReadLogs(t.Context(), path, LogQuery{}, func(l LogLine) error { sizes = append(sizes, len(l.Text)); got = append(got, l); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []int{64 * 16 << 10, 36*16<<10 + 3, 1}; !reflect.DeepEqual(sizes, want) {
		t.Errorf("sizes %v, want %v", sizes, want)
	}
	if !got[0].Partial || got[1].Partial {
		t.Errorf("partial: %v %v", got[0].Partial, got[1].Partial)
	}
	if tail := readAll(t, path, LogQuery{Tail: 1}); len(tail) != 1 || !strings.HasPrefix(tail[0], "o:t") {
		t.Errorf("tail 1 = %.50q", tail)
	}
}

// TestTailAgrees compares tail with the end of the whole on random logs in which
// pieces of both streams mix and files end anywhere between lines.
func TestTailAgrees(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 12 {
		path := filepath.Join(t.TempDir(), "log")
		n := 0
		for _, name := range []string{path + ".2", path + ".1", path} {
			var b strings.Builder
			for range rnd.IntN(200) {
				n++
				stream := []string{"stdout", "stdout", "stdout", "stderr"}[rnd.IntN(4)]
				tag := "FFFP"[rnd.IntN(4)]
				if name == path { // both streams end well, else their last lines' order is open
					tag = 'F'
				}
				b.WriteString(at(n/10, fmt.Sprintf("%s %c %d %s", stream, tag, n, strings.Repeat("y", rnd.IntN(3000)))))
			}
			if name == path {
				b.WriteString(at(n, "stdout F last") + at(n, "stderr F last"))
			}
			writeLog(t, name, b.String())
		}
		for _, q := range []LogQuery{{}, {Stream: "stderr"}, {Until: noon(n / 20)}, {Since: noon(n / 20)}} {
			all := readAll(t, path, q)
			for _, tail := range []int{1, 2, 3, 10, 50, 150, 1000} {
				q.Tail = tail
				want := all[max(len(all)-tail, 0):]
				if got := readAll(t, path, q); !reflect.DeepEqual(got, want) {
					t.Fatalf("round %d: %+v: %d lines, want %d\n%.300q\n%.300q", round, q, len(got), len(want), got, want)
				}
			}
		}
	}
}

// follower runs ReadLogs and hands over its lines.
type follower struct {
	lines chan string
	err   chan error
}

func follow(t *testing.T, path string, q LogQuery) (*follower, context.CancelFunc) {
	t.Helper()
	q.Follow = true
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	f := &follower{lines: make(chan string, 100000), err: make(chan error, 1)}
	go func() {
		f.err <- ReadLogs(ctx, path, q, func(l LogLine) error { f.lines <- show(l); return nil })
		close(f.lines)
	}()
	return f, cancel
}

func (f *follower) want(t *testing.T, lines ...string) {
	t.Helper()
	for _, want := range lines {
		select {
		case got := <-f.lines:
			if got != want {
				t.Fatalf("line %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no line, want %q", want)
		}
	}
}

func (f *follower) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-f.err:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("follow does not end")
		return nil
	}
}

func rotate(t *testing.T, path string, keep int) {
	t.Helper()
	for n := keep - 1; n >= 1; n-- {
		if err := os.Rename(fmt.Sprintf("%s.%d", path, n), fmt.Sprintf("%s.%d", path, n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	writeLog(t, path)
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	done := make(chan struct{})
	f, _ := follow(t, path, LogQuery{Done: done}) // there is no log yet
	time.Sleep(20 * time.Millisecond)
	writeLog(t, path, at(1, "stdout F one"))
	f.want(t, "o:one")
	writeLog(t, path, at(2, "stdout F two")[:42]) // half a line
	time.Sleep(20 * time.Millisecond)
	writeLog(t, path, at(2, "stdout F two")[42:], at(3, "stdout P thr"))
	f.want(t, "o:two")
	rotate(t, path, 3)
	writeLog(t, path, at(4, "stdout F ee"))
	f.want(t, "o:three")
	for n := range 3 { // several between two looks
		writeLog(t, path, at(5, fmt.Sprintf("stderr F r%d", n)))
		rotate(t, path, 5)
	}
	f.want(t, "e:r0", "e:r1", "e:r2")
	writeLog(t, path, at(6, "stdout F four"), at(7, "stdout P prompt> "))
	f.want(t, "o:four")
	writeLog(t, path, at(8, "stderr F last"))
	rotate(t, path, 5)
	close(done)
	f.want(t, "e:last", "o:prompt> …")
	if err := f.end(t); err != nil {
		t.Errorf("follow: %v", err)
	}
}

func TestFollowEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeLog(t, path, at(1, "stdout F one"), at(2, "stdout F two"), at(3, "stdout F three"))

	f, cancel := follow(t, path, LogQuery{Tail: 1})
	f.want(t, "o:three")
	cancel()
	if err := f.end(t); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	f, _ = follow(t, path, LogQuery{Tail: 2, Until: time.Now().Add(50 * time.Millisecond)})
	f.want(t, "o:two", "o:three")
	if err := f.end(t); err != nil {
		t.Errorf("until: %v", err)
	}

	done := make(chan struct{})
	f, _ = follow(t, path, LogQuery{Tail: -1, Done: done})
	time.Sleep(20 * time.Millisecond)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * followMax) // noticed
	writeLog(t, path, at(4, "stdout F four"))
	f.want(t, "o:four")
	close(done)
	if err := f.end(t); err != nil {
		t.Errorf("done: %v", err)
	}

	gone := filepath.Join(t.TempDir(), "never")
	f, _ = follow(t, gone, LogQuery{Done: done})
	if err := f.end(t); err != nil {
		t.Errorf("done without a log: %v", err)
	}
}

// TestFollowLosesNothing has a writer that rotates as fast as it can.
func TestFollowLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeLog(t, path)
	done := make(chan struct{})
	f, _ := follow(t, path, LogQuery{Done: done})
	const lines = 3000
	for n := range lines {
		writeLog(t, path, at(n/100, fmt.Sprintf("stdout F %d", n)))
		if n%37 == 36 {
			rotate(t, path, 1000)
		}
	}
	close(done)
	if err := f.end(t); err != nil {
		t.Fatal(err)
	}
	n := 0
	for got := range f.lines {
		if want := fmt.Sprintf("o:%d", n); got != want {
			t.Fatalf("line %q, want %q", got, want)
		}
		n++
	}
	if n != lines {
		t.Errorf("%d lines, want %d", n, lines)
	}
}

func FuzzParseLog(f *testing.F) {
	for _, s := range []string{at(1, "stdout F text"), at(1, "stderr P"), "a b c", "", "  ", "2026-11-20T23:59:59.1Z stdout F:x:y z"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "log")
		writeLog(t, path, string(b))
		all := readAll(t, path, LogQuery{})
		tail := readAll(t, path, LogQuery{Tail: 1})
		if len(tail) != min(len(all), 1) || len(tail) == 1 && tail[0] != all[len(all)-1] {
			t.Errorf("tail %q of %q", tail, all)
		}
	})
}

func BenchmarkTail(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	line := at(1, "stdout F "+strings.Repeat("z", 60))
	writeLog(b, path, strings.Repeat(line, 10<<20/len(line)))
	for _, tail := range []int{100, 0} {
		b.Run(fmt.Sprintf("tail=%d", tail), func(b *testing.B) {
			for b.Loop() {
				n := 0
				if err := ReadLogs(b.Context(), path, LogQuery{Tail: tail}, func(LogLine) error { n++; return nil }); err != nil || tail > 0 && n != tail {
					b.Fatal(n, err)
				}
			}
		})
	}
}
