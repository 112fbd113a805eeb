package vm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

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
		mode, size, nameSize := field[1], field[6], field[11]
		name := string(raw[110 : 110+nameSize-1])
		raw = raw[align(110+nameSize):]
		if name == "TRAILER!!!" {
			return all
		}
		all = append(all, fmt.Sprintf("%o %s %q", mode, name, raw[:size]))
		raw = raw[align(size):]
	}
}

func TestArchive(t *testing.T) {
	var buf bytes.Buffer
	a := newArchive(&buf)
	for _, f := range []File{
		{Path: "/a/b/c", Data: []byte("12345")},
		{Path: "/a/b/run", Perm: 0o755, From: "testdata/none"},
		{Path: "/a/l", Link: "b/c"},
		{Path: "/a/b/c", Data: []byte("the first one stays")},
	} {
		if err := f.into(a); (err != nil) != (f.From != "") {
			t.Fatal(err)
		}
	}
	a.dir("/empty")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{`40755 a ""`, `40755 a/b ""`, `100644 a/b/c "12345"`, `120777 a/l "b/c"`, `40755 empty ""`}
	if diff := cmp.Diff(want, listing(t, buf.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProgramBringsItsLibraries(t *testing.T) {
	paths := map[string]bool{}
	for _, f := range Program(t, "/bin/sh") {
		paths[f.Path] = true
	}
	var libc, loader bool
	for p := range paths {
		libc = libc || strings.Contains(p, "/libc.so.")
		loader = loader || strings.Contains(p, "/ld-linux") || strings.Contains(p, "/ld-musl")
	}
	if !paths["/bin/sh"] || !libc || !loader {
		t.Errorf("a shell is %v", paths)
	}
}

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/net/bridge/br_netfilter.ko": "br_netfilter", "x/virtio-rng.ko": "virtio_rng", "x/8021q.ko.xz": "8021q", "modules.dep": "",
	} {
		if got, ok := moduleName(file); ok != (want != "") || ok && got != want {
			t.Errorf("%s is module %q, %v", file, got, ok)
		}
	}
}
