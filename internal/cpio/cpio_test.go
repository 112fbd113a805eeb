package cpio

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listing reads an archive as the kernel does.
func listing(t *testing.T, raw []byte) []string {
	t.Helper()
	var all []string
	align := func(n int) int { return (n + 3) &^ 3 }
	for {
		var field [13]int
		if len(raw) < 110 || string(raw[:6]) != "070701" {
			t.Fatalf("not an entry: %q", raw[:min(len(raw), 200)])
		}
		for i := range field {
			if _, err := fmt.Sscanf(string(raw[6+8*i:14+8*i]), "%X", &field[i]); err != nil {
				t.Fatal(err)
			}
		}
		mode, mtime, size, nameSize := field[1], field[5], field[6], field[11]
		name := string(raw[110 : 110+nameSize-1])
		raw = raw[align(110+nameSize):]
		if name == "TRAILER!!!" {
			return all
		}
		all = append(all, fmt.Sprintf("%o %d %s %q", mode, mtime, name, raw[:size]))
		raw = raw[align(size):]
	}
}

func TestWriter(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	w.Time = time.Unix(7, 0)
	w.File("/a/b/c", 0o600, []byte("12345"))
	w.Link("/a/l", "b/c")
	w.File("/a/b/c", 0o644, []byte("the first one stays"))
	w.Dir("/empty", 0o1777)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%512 != 0 {
		t.Errorf("after %d bytes no other archive can follow", buf.Len())
	}
	want := []string{`40755 7 a ""`, `40755 7 a/b ""`, `100600 7 a/b/c "12345"`, `120777 7 a/l "b/c"`, `40777 7 empty ""`}
	if diff := cmp.Diff(want, listing(t, buf.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
