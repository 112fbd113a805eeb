package mount

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// overlay puts a writable layer on the mount.
func (d *device0) overlay() string {
	d.Helper()
	dir := d.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // whoever runs a program has to get there
		d.Fatal(err)
	}
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			d.Fatal(err)
		}
	}
	opts := "lowerdir=" + d.dir + ",upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", dir+"/root", "overlay", 0, opts); err != nil {
		d.Fatalf("mount an overlay on it: %v", err)
	}
	d.Cleanup(func() { _ = unix.Unmount(dir+"/root", unix.MNT_DETACH) })
	return dir + "/root"
}

// A container's root: overlayfs on the mount, programs run from it, set-uid ones as their owner, and what is written stays
// above. With the kernel reading files by itself, and without. The server is another process: one that starts a program and
// has to give it its bytes may wait for itself.
func TestOverlay(t *testing.T) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("SKIPPED: no static program to run: %v", err)
	}
	for _, noPass := range []bool{false, true} {
		d := mountFuse(t)
		dir := t.TempDir()
		text := filepath.Join(dir, "text")
		if err := os.WriteFile(text, []byte("lower\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := d.spawn(childConfig{
			Copies: map[string]string{"busybox": "/bin/busybox", "sleep": "/bin/sleep", "text": text}, Mode: 0o4755,
			State: dir + "/state", Cache: dir + "/cache", NoPass: noPass,
		})
		t.Cleanup(func() { kill(t, cmd) })
		root := d.overlay()
		run := func(args ...string) string {
			t.Helper()
			cmd := exec.Command("/busybox", args...)
			cmd.Path = root + "/busybox"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v %s", args, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		if got := run("cat", root+"/text"); got != "lower" {
			t.Errorf("cat: %q", got)
		}
		if got := suidOf(t, root+"/sleep"); got != "0" {
			t.Errorf("a set-uid program runs as %s", got)
		}
		if err := os.WriteFile(root+"/text", []byte("upper\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := run("cat", root+"/text"); got != "upper" {
			t.Errorf("after a write: %q", got)
		}
		same(t, "below", mustRead(t, d.dir+"/text"), []byte("lower\n"))
		same(t, "busybox through the overlay", mustRead(t, root+"/busybox"), busybox)
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

// suidOf is the effective user of a program that sleeps and is started by somebody else. Busybox would not do: it gives up
// what it does not need.
func suidOf(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.Command(path, "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for line := range bytes.Lines(mustRead(t, "/proc/"+strconv.Itoa(cmd.Process.Pid)+"/status")) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			return string(bytes.Fields(rest)[1])
		}
	}
	return ""
}

// With all files in a directory, they are read there, and chunks are not asked for.
func TestComplete(t *testing.T) {
	files := map[string]int{"small": 1000, "large": 2<<20 + 5}
	w := synthetic(files)
	w.fails.Store(true)
	cfg := config(t, w)
	layer := t.TempDir()
	for name, size := range files {
		if err := os.WriteFile(filepath.Join(layer, name), content(name, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := mountFuse(t)
	s := start(t, d, cfg)
	held, err := os.Open(d.dir + "/large") // asks us, and goes on asking
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := s.Complete(layer); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, files["large"])
	if _, err := held.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "large, opened before", b, content("large", len(b)))
	for name, size := range files {
		same(t, name, mustRead(t, filepath.Join(d.dir, name)), content(name, size))
	}
	held.Close()
	until(t, "a large file is passed through", func() bool {
		before := s.Status().Passed
		same(t, "large", mustRead(t, d.dir+"/large"), content("large", files["large"]))
		return s.Status().Passed > before
	})
	if st := s.Status(); !st.Complete || w.asked.Load() != 0 {
		t.Errorf("%d chunks were asked for; %+v", w.asked.Load(), st)
	}

	// A file of another size is not the list's.
	if err := os.WriteFile(filepath.Join(layer, "small"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails.Store(false)
	if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	d = mountFuse(t)
	cfg.StateDir, cfg.Layer = filepath.Join(t.TempDir(), "state"), layer
	start(t, d, cfg)
	same(t, "small", mustRead(t, d.dir+"/small"), content("small", files["small"]))
}
