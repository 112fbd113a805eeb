package container

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// placed writes a log of three files as the shim does: all lines have one time,
// and some are in pieces.
func placed(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log")
	stamp := "2026-11-21T01:08:42.18076387Z"
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatal(err)
	}
	r, base := rand.New(rand.NewPCG(1, 2)), 0
	for _, name := range []string{path + ".2", path + ".1", path} {
		var b strings.Builder
		for i := range 40 {
			tag, stream := "F", []string{"stdout", "stderr"}[r.IntN(2)]
			if r.IntN(3) == 0 {
				tag = "P"
			}
			if i == 0 && base > 0 {
				tag += fmt.Sprintf(":%d-%d", at.UnixNano(), base)
			}
			fmt.Fprintf(&b, "%s %s %s %d\n", stamp, stream, tag, r.IntN(10))
		}
		if name == path { // a line without an end, before the other stream's last ones
			for _, last := range []string{"stdout F 1", "stderr F 1", "stdout P 2", "stderr F 2", "stderr P 3", "stderr P 4"} {
				fmt.Fprintf(&b, "%s %s\n", stamp, last)
			}
		}
		if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		base += b.Len()
	}
	return path
}

func readLines(t *testing.T, path string, q LogQuery) (lines []LogLine) {
	t.Helper()
	err := ReadLogs(context.Background(), path, q, func(l LogLine) error {
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestAfter goes on behind each line of a log, by the id that a client has of
// it, and gets exactly the rest.
func TestAfter(t *testing.T) {
	path := placed(t)
	all := readLines(t, path, LogQuery{})
	for i, l := range all {
		pos, err := ParseLogPos(l.Pos.String())
		if err != nil {
			t.Fatal(err)
		}
		got := readLines(t, path, LogQuery{After: pos, Tail: 1})
		if want := all[i+1:]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("after line %d, %s:\n%v\nwant\n%v", i, pos, got, want)
		}
	}
	if len(all) < 50 {
		t.Fatalf("%d lines only", len(all))
	}
}

// TestAfterRotation goes on where the files are gone: how much, is told.
func TestAfterRotation(t *testing.T) {
	path := placed(t)
	all := readLines(t, path, LogQuery{})
	if err := os.Remove(path + ".2"); err != nil {
		t.Fatal(err)
	}
	left := readLines(t, path, LogQuery{})
	got := readLines(t, path, LogQuery{After: all[2].Pos})
	want := fmt.Sprintf("buoy: %d bytes of the log", firstOf(t, path+".1")-all[2].Pos.Offset)
	if !got[0].Gap || !strings.HasPrefix(got[0].Text, want) || fmt.Sprint(got[1:]) != fmt.Sprint(left) {
		t.Errorf("got %v\nwant %s, and then\n%v", got, want, left)
	}
	if again := readLines(t, path, LogQuery{After: got[0].Pos}); fmt.Sprint(again) != fmt.Sprint(left) {
		t.Errorf("after the gap: %v", again)
	}
	other := all[2].Pos
	other.Origin--
	if got = readLines(t, path, LogQuery{After: other}); !got[0].Gap || fmt.Sprint(got[1:]) != fmt.Sprint(left) {
		t.Errorf("after a line of another log: %v", got)
	}
	beyond := all[len(all)-1].Pos
	beyond.Offset += 1000
	if got = readLines(t, path, LogQuery{After: beyond}); !got[0].Gap || len(got) < 10 {
		t.Errorf("after a line that a power cut took: %v", got)
	}
}

// firstOf is where in the log a file begins.
func firstOf(t *testing.T, name string) int64 {
	t.Helper()
	f, err := openLog(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.pos().Offset
}

// TestFollowFallsBehind: a reader that is slower than rotation is told what it
// has missed.
func TestFollowFallsBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(name, tag, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("2026-11-21T01:08:42Z stdout F"+tag+" "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 11, 21, 1, 8, 42, 0, time.UTC).UnixNano()
	write(path, "", "one") // 34 bytes
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan struct{})
	err := ReadLogs(ctx, path, LogQuery{Follow: true, Done: done}, func(l LogLine) error {
		got = append(got, l.Text)
		if len(got) == 1 { // it is slow with the first
			_ = os.Remove(path)
			write(path+".1", fmt.Sprintf(":%d-%d", at, 1034), "two")
			write(path, fmt.Sprintf(":%d-%d", at, 2000), "three")
			close(done)
		}
		return nil
	})
	want := []string{"one", "buoy: 1000 bytes of the log are missing here: they were dropped before they were read", "two", "three"}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestParseLogPos(t *testing.T) {
	for _, text := range []string{"", "1", "0-5", "1-2-3", "1--2", "-1-2", "1-2-1-1", "x-1", "1-99999999999999999999"} {
		if p, err := ParseLogPos(text); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
}
