//go:build linux && cgo

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
)

func open(t *testing.T, log shimapi.Log) *logFile {
	t.Helper()
	f, err := openLog(log, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.release)
	return f
}

// put logs a line as the loop does.
func put(f *logFile, text string) {
	now := time.Now()
	out, n := format(nil, "stdout", f.tag(now), []byte(text), now)
	if f.makeRoom(len(out)) {
		out, n = format(nil, "stdout", f.tag(now), []byte(text), now)
	}
	f.write(out, n)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPlaceInLog: each file but the first says how many bytes of log are before
// it, also when another shim goes on with it.
func TestPlaceInLog(t *testing.T) {
	for _, files := range []int{1, 3} {
		log := shimapi.Log{Path: filepath.Join(t.TempDir(), "log"), MaxBytes: 1000, Files: files}
		f, written := open(t, log), int64(0)
		var origin int64
		for i := range 100 {
			if i%7 == 0 {
				f = open(t, log)
			}
			put(f, fmt.Sprintf("line %d\n", i))
			text := read(t, log.Path)
			head := strings.SplitN(text, " ", 4)
			if i == 0 {
				at, err := time.Parse(time.RFC3339Nano, head[0])
				if err != nil || head[2] != "F" {
					t.Fatalf("first record %q: %v", text, err)
				}
				origin = at.UnixNano()
			}
			if strings.Count(text, "\n") == 1 && i > 0 {
				if want := fmt.Sprintf("F:%d-%d", origin, written); head[2] != want {
					t.Fatalf("%d files, line %d: tag %s, want %s", files, i, head[2], want)
				}
			}
			written = f.base + f.size
		}
	}
}

// TestTornLog: what a power cut leaves of a line is cut off, and the log goes on.
func TestTornLog(t *testing.T) {
	whole := "2026-11-21T01:08:42.18076387Z stdout F hello\n"
	garbage := strings.Repeat("\x00", 100<<10)
	for torn, want := range map[string]string{
		"":                        "",
		whole:                     whole,
		whole[:20]:                "",
		whole + whole[:44]:        whole,
		whole + "\x00\x00\x00":    whole,
		whole + garbage:           whole + garbage + "\n",
		whole + whole + whole[:1]: whole + whole,
	} {
		log := shimapi.Log{Path: filepath.Join(t.TempDir(), "log")}
		if err := os.WriteFile(log.Path, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		f := open(t, log)
		put(f, "on\n")
		got := read(t, log.Path)
		rest, ok := strings.CutPrefix(got, want)
		if !ok || !strings.HasSuffix(rest, " on\n") || strings.Count(rest, "\n") != 1 || f.size != int64(len(got)) {
			t.Errorf("%.60q of %d bytes became %.100q", torn, len(torn), got)
		}
	}
}

// TestFinish: a batch of which a killed shim wrote only the start is completed,
// byte for byte as that one would have.
func TestFinish(t *testing.T) {
	data := []byte("one\ntwo\nthree\n")
	now := time.Now()
	batch, _ := format(nil, "stdout", ":5-77", data, now)
	for n := range len(batch) {
		log := shimapi.Log{Path: filepath.Join(t.TempDir(), "log")}
		if err := os.WriteFile(log.Path, batch[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		f := open(t, log)
		if f.size == 0 {
			continue // it is moved again as a whole
		}
		if !f.finish("stdout", data, 0) || read(t, log.Path) != string(batch) {
			t.Fatalf("after %d bytes: %q", n, read(t, log.Path))
		}
	}
}

// TestFitting: batches have no more records than a file may have, unless a line alone has.
func TestFitting(t *testing.T) {
	for _, c := range []struct {
		data string
		most int64
		want int
	}{
		{"", 1, 0},
		{"a\n", 1, 2},
		{"a\nb\n", 1, 2},
		{"a\nb\nrest", 2*recordHead + 4, 4},
		{"a\nb\nrest", 3*recordHead + 8, 8},
		{"no end", 1, 6},
		{strings.Repeat("a\n", 1000), pipeSize * (1 + recordHead), 2000},
	} {
		if got := fitting([]byte(c.data), c.most); got != c.want {
			t.Errorf("of %.20q %d bytes are taken for %d, want %d", c.data, got, c.most, c.want)
		}
	}
	data := []byte(strings.Repeat("7\n", pipeSize/2))
	const most = 256 << 10
	for len(data) > 0 {
		n := fitting(data, most)
		if out, _ := format(nil, "stderr", ":1764591566000000000-9223372036854775807", data[:n], time.Now()); n == 0 || len(out) > most {
			t.Fatalf("%d bytes have records of %d", n, len(out))
		}
		data = data[n:]
	}
}
