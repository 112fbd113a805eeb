package pack_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/testredis"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// zeroFS is the genuine reader, which BUOY_TEST_ZEROFS names: the program of github.com/threefoldtech/0-fs, built with
// "go build -o 0-fs ./cmd" (commit 9d8ad37). The module proxy does not serve it.
func zeroFS(t *testing.T) string {
	t.Helper()
	testroot.Require(t)
	program := os.Getenv("BUOY_TEST_ZEROFS")
	if program == "" {
		t.Skip("SKIPPED: needs the genuine 0-fs, which BUOY_TEST_ZEROFS names")
	}
	return program
}

// mountZeroFS is where it shows an flist.
func mountZeroFS(t *testing.T, program, file string) string {
	t.Helper()
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	cmd := exec.Command(program, "--ro", "--meta", file, "--backend", filepath.Join(dir, "backend"), mnt)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = unix.Unmount(mnt, unix.MNT_DETACH)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("0-fs said:\n%s", &log)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var st unix.Statfs_t
		if err := unix.Statfs(mnt, &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
			return mnt
		}
		if time.Now().After(deadline) {
			t.Fatal("0-fs does not mount")
		}
	}
}

// asZeroFS is a snapshot as 0-fs can show it: without special files and set-id bits.
func asZeroFS(t *testing.T, dir string) []string {
	t.Helper()
	lines := snapshot(t, dir)
	var kept []string
	for _, l := range lines {
		i := strings.LastIndex(l, `" `) + 2 // behind the name
		var mode uint32
		rest := l[i:]
		if _, err := fmt.Sscanf(rest, "%o", &mode); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if k := mode & unix.S_IFMT; k == unix.S_IFREG || k == unix.S_IFDIR || k == unix.S_IFLNK {
			_, rest, _ = strings.Cut(rest, " ")
			kept = append(kept, fmt.Sprintf("%s%o %s", l[:i], mode&(unix.S_IFMT|0o777), rest))
		}
	}
	return kept
}

func TestGenuineReader(t *testing.T) {
	program := zeroFS(t)
	src := newDir(t)
	oddTree(t, src)
	file := filepath.Join(t.TempDir(), "x.flist")
	packed(t, src, file, testredis.New(t).URL(), flist.EraC)
	mnt := mountZeroFS(t, program, file) // which is told of no store: it takes what the flist names
	diff(t, "0-fs", asZeroFS(t, mnt), asZeroFS(t, src))
}

// TestGenuineReaderWide: a record of several megabytes. 0-fs takes a millisecond for each name, so there are fewer than could be.
func TestGenuineReaderWide(t *testing.T) {
	program := zeroFS(t)
	const files = 20_000
	src := newDir(t)
	var want []string
	for i := range files {
		name := fmt.Sprintf("%0100d", i)
		must(t, os.Symlink("x", filepath.Join(src, name)))
		want = append(want, name)
	}
	file := filepath.Join(t.TempDir(), "x.flist")
	packed(t, src, file, testredis.New(t).URL(), flist.EraC)
	var got []string
	list, err := os.Open(mountZeroFS(t, program, file))
	must(t, err)
	defer list.Close()
	entries, err := list.ReadDir(-1)
	must(t, err)
	for _, e := range entries {
		if e.Type() == fs.ModeSymlink {
			got = append(got, e.Name())
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("0-fs shows %d of %d files", len(got), len(want))
	}
}
