package live

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// buoyIn runs the command line in a directory.
func (d *daemon) buoyIn(dir, stdin string, args ...string) (string, error) {
	cmd := d.buoy(args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestCopy copies files, directories and archives into a container and back.
func TestCopy(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "box", "mkdir /srv2; exec sleep 1000"))
	dir := t.TempDir()
	must := func(stdin string, args ...string) string {
		t.Helper()
		out, err := d.buoyIn(dir, stdin, args...)
		if err != nil {
			t.Fatalf("buoy %q: %v\n%s", args, err, out)
		}
		return out
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	for name, text := range map[string][]byte{"site/index": []byte("hello"), "site/sub/big": big, "site/run": []byte("#!/bin/sh\necho ran\n")} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "site/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "site/link")); err != nil {
		t.Fatal(err)
	}

	must("", "cp", "site", "box:/made")    // is not there: becomes it
	must("", "cp", "site", "box:/srv2")    // is there: into it
	must("", "cp", "site/.", "box:/srv2/") // only what is in it
	must("", "cp", "site/run", "box:/tool")
	if out := must("", "exec", "box", "sh", "-c", "cat /made/index /srv2/site/index /srv2/index; readlink /made/link; /tool; /made/run"); out != "hellohellohello/etc/passwd\nran\nran\n" {
		t.Errorf("in the container: %q", out)
	}
	must("", "cp", "box:/made", "back")
	must("", "cp", "box:/made/sub/big", "single")
	for _, name := range []string{"back/sub/big", "single"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if link, err := os.Readlink(filepath.Join(dir, "back/link")); link != "/etc/passwd" || err != nil {
		t.Errorf("link = %q, %v", link, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "back/run")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("run: %v, %v", st, err)
	}
	must("", "exec", "box", "mkdir", "/unpacked")
	must(must("", "cp", "box:/made", "-"), "cp", "-", "box:/unpacked")
	if out := must("", "exec", "box", "cat", "/unpacked/made/index"); out != "hello" {
		t.Errorf("unpacked: %q", out)
	}
	for want, args := range map[string][]string{
		"no file \"/none\" in the container": {"cp", "box:/none", "x"},
		"tar in container \"box\":":          {"cp", "site", "box:/none/there"},
	} {
		if out, err := d.buoyIn(dir, "", args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("buoy %q: %v, %q; want %q", args, err, out, want)
		}
	}
}
