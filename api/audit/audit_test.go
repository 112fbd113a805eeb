package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func begin(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Log) say(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		l.Add(Entry{Caller: fmt.Sprint("caller ", i), Method: "POST", Path: "/x"})
	}
}

func end(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func verify(t *testing.T, path string, entries int, problems ...string) {
	t.Helper()
	v, err := Verify(path)
	if err != nil {
		t.Fatal(err)
	}
	if int(v.Entries) != entries || len(v.Problems) != len(problems) {
		t.Fatalf("%d entries, %q; want %d and %d problems", v.Entries, v.Problems, entries, len(problems))
	}
	for i, want := range problems {
		if !strings.Contains(v.Problems[i], want) {
			t.Errorf("%q, want %q in it", v.Problems[i], want)
		}
	}
}

func TestChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for range 3 { // daemons
		l := begin(t, path)
		l.say(t, 5)
		end(t, l)
	}
	verify(t, path, 15)
	all, err := Newest(path, 4)
	if err != nil || len(all) != 4 || all[3].N != 15 || all[0].N != 12 || all[3].Caller != "caller 4" || all[0].Time.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTampered(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(lines [][]byte) [][]byte
		entries  int
		problems []string
	}{
		"changed": {func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte(`"/x"`), []byte(`"/y"`), 1)
			return l
		}, 10, []string{":5 does not follow"}},
		"removed": {func(l [][]byte) [][]byte { return append(l[:3:3], l[4:]...) }, 9, []string{":4 does not follow"}},
		"swapped": {func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, 10, []string{":4 ", ":5 ", ":6 "}},
		"broken":  {func(l [][]byte) [][]byte { l[3] = []byte("{\n"); return l }, 9, []string{":4 is broken", ":5 does not follow"}},
		"another begins with its number": {func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte(`"n":4`), []byte(`"n":9`), 1)
			return l
		}, 10, []string{":4 has the number 9", ":5 does not follow"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			l := begin(t, path)
			l.say(t, 10)
			end(t, l)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := tt.change(bytes.SplitAfter(bytes.TrimSuffix(raw, nil), []byte("\n"))[:10])
			if err := os.WriteFile(path, bytes.Join(lines, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			verify(t, path, tt.entries, tt.problems...)
		})
	}
}

// TestCut ends the file at each byte of its last lines, as a loss of power may:
// it goes on, and whatever was cut is told.
func TestCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := begin(t, path)
	l.say(t, 3)
	end(t, l)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ends := bytes.Count(whole, []byte("\n"))
	for n := range len(whole) {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l := begin(t, path)
		l.say(t, 2)
		end(t, l)
		kept := bytes.Count(whole[:n], []byte("\n"))
		if n == 0 || whole[n-1] == '\n' {
			verify(t, path, kept+2)
			continue
		}
		v, err := Verify(path)
		if err != nil || kept >= ends {
			t.Fatal(kept, err)
		}
		// All but the newline may be there: then nothing is lost.
		if lost := int(v.Entries) == kept+3; lost && !strings.Contains(strings.Join(v.Problems, "; "), "was cut") {
			t.Fatalf("cut at %d: %d entries, %q", n, v.Entries, v.Problems)
		} else if !lost && int(v.Entries) != kept+4 {
			t.Fatalf("cut at %d: %d entries of %d whole ones", n, v.Entries, kept)
		}
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := begin(t, path)
	l.size = 1000
	l.say(t, 100)
	end(t, l)
	files, err := Files(path)
	if err != nil || len(files) != maxFiles {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 1000 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
	v, err := Verify(path)
	if err != nil || len(v.Problems) > 0 || v.Entries < maxFiles*2 {
		t.Errorf("%+v, %v", v, err)
	}
	all, err := Newest(path, 20)
	if err != nil || len(all) != 20 || all[19].N != 100 || all[0].N != 81 {
		t.Errorf("%d, %v", len(all), err)
	}
	if err := os.Remove(files[2]); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(path); err != nil || len(v.Problems) != 1 {
		t.Errorf("without one in the middle: %+v, %v", v, err)
	}
	// A daemon that dies between the last line of one file and the first of the next.
	if err := os.Rename(path, path+".0"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".1", path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".0", path+".1"); err != nil {
		t.Fatal(err)
	}
	l = begin(t, path)
	l.say(t, 1)
	end(t, l)
	if all, err := Newest(path, 1); err != nil || all[0].N != 101 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := begin(t, path)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { l.say(t, 50) })
	}
	wg.Wait()
	end(t, l)
	verify(t, path, 1000)
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := begin(t, path)
	l.say(t, 1)
	good := l.file
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.file = full
	l.say(t, 3) // nothing is written, and nothing stops
	l.file = good
	l.say(t, 1)
	end(t, l)
	if err := full.Close(); err != nil {
		t.Error(err)
	}
	verify(t, path, 2)
}

func TestNone(t *testing.T) {
	if _, err := Verify(filepath.Join(t.TempDir(), "audit.log")); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

// Who may do nothing must not make the record unreadable, or push the rest out.
func TestLongPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := begin(t, path)
	for _, c := range []string{"&", "\xff", "\n"} {
		l.Add(Entry{Method: "DELETE", Path: "/tokens/" + strings.Repeat(c, 64<<10)})
	}
	end(t, l)
	l = begin(t, path)
	l.say(t, 1)
	end(t, l)
	verify(t, path, 4)
	if at := l.at; at > 3*maxLine {
		t.Errorf("four lines have %d bytes", at)
	}
}
