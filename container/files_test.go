package container

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// fakeRoot is a container's root beside a secret that it must not reach.
func fakeRoot(t *testing.T) (root string, f Files, secret string) {
	t.Helper()
	dir := t.TempDir()
	root, secret = filepath.Join(dir, "root"), filepath.Join(dir, "secret")
	put(t, secret, "host")
	for _, d := range []string{"etc", "data/sub"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(root, "etc/passwd"), "root:x:0:0")
	at, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	f = Files{at}
	t.Cleanup(func() {
		f.Close()
		if got := have(t, secret); got != "host" {
			t.Errorf("the file beside the root is %q now", got)
		}
	})
	return root, f, secret
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func have(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func read(f Files, name string) (string, error) {
	r, _, err := f.Read(name)
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(r)
	return string(raw), errors.Join(err, r.Close())
}

// clean says whether a write has left its temporary file.
func clean(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".buoy-") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestFilesLinksStayInside(t *testing.T) {
	root, f, secret := fakeRoot(t)
	link(t, secret, root+"/absolute")
	link(t, "../secret", root+"/relative")
	link(t, "../../../../../../.."+secret, root+"/data/deep")
	link(t, filepath.Dir(secret), root+"/dir")
	link(t, "..", root+"/up")
	link(t, "/proc/self/root", root+"/magic")
	link(t, "loop2", root+"/loop1")
	link(t, "loop1", root+"/loop2")
	link(t, "/etc", root+"/data/etc")
	link(t, "/etc/passwd", root+"/data/passwd")
	for name, kind := range map[string]errs.Kind{
		"/absolute": errs.NotFound, "/relative": errs.NotFound, "/data/deep": errs.NotFound, "/dir/secret": errs.NotFound,
		"/up/secret": errs.NotFound, "/../secret": errs.NotFound, "/magic/etc/hostname": errs.NotFound, "/loop1": errs.Invalid,
		"/loop1/x": errs.Invalid, "/etc/passwd/x": errs.Invalid, "/" + strings.Repeat("n", 300): errs.Invalid, "/data": errs.Invalid,
		"/etc/passwd/": errs.Invalid, "/nothing": errs.NotFound, "/a\x00b": errs.Invalid,
	} {
		if got, err := read(f, name); !errors.Is(err, kind) {
			t.Errorf("Read(%q) = %q, %v, want %s", name, got, err, kind)
		}
	}
	for _, name := range []string{"/data/etc/passwd", "/data/passwd", "/up/up/etc/passwd", "etc/passwd", "//etc/./passwd", "/data/etc/../etc/passwd"} {
		if got, err := read(f, name); err != nil || got != "root:x:0:0" {
			t.Errorf("Read(%q) = %q, %v", name, got, err)
		}
	}
	for name, kind := range map[string]errs.Kind{
		"/dir/secret": errs.NotFound, "/loop1/x": errs.Invalid, "/etc/passwd/x": errs.Invalid, "/no/x": errs.NotFound, "/data": errs.Invalid,
		"/data/": errs.Invalid, "/new/": errs.Invalid, "/": errs.Invalid, "/data/..": errs.Invalid, "/.": errs.Invalid, "": errs.Invalid,
		"/" + strings.Repeat("n", 300): errs.Invalid, "/a\x00b": errs.Invalid,
	} {
		if err := f.Write(name, strings.NewReader("x")); !errors.Is(err, kind) {
			t.Errorf("Write(%q) = %v, want %s", name, err, kind)
		}
	}
	// A link gives way to the file: what it points to stays, and its mode is not taken over.
	for _, name := range []string{"/absolute", "/relative", "/loop1", "/data/passwd"} {
		if err := f.Write(name, strings.NewReader("mine")); err != nil {
			t.Errorf("Write(%q) = %v", name, err)
			continue
		}
		st, err := os.Lstat(root + name)
		if err != nil || st.Mode() != 0o644 || have(t, root+name) != "mine" {
			t.Errorf("after Write(%q): %v, %v", name, st.Mode(), err)
		}
	}
	if got := have(t, root+"/etc/passwd"); got != "root:x:0:0" {
		t.Errorf("/etc/passwd is %q", got)
	}
	if err := f.Write("/up/up/data/etc/new", strings.NewReader("n")); err != nil || have(t, root+"/etc/new") != "n" {
		t.Errorf("Write through links of directories: %v", err)
	}
	clean(t, root)
	clean(t, root+"/data")
}

func TestFilesRemove(t *testing.T) {
	root, f, secret := fakeRoot(t)
	outside := filepath.Join(filepath.Dir(secret), "outside")
	if err := os.MkdirAll(outside+"/keep", 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, outside, root+"/data/sub/out")
	link(t, outside, root+"/out")
	link(t, secret, root+"/secret")
	for _, name := range []string{"/no", "/no/such/dir", "/secret", "/out/keep", "/out", "/data/", "/data"} {
		if err := f.Remove(name); err != nil {
			t.Errorf("Remove(%q) = %v", name, err)
		}
	}
	for _, name := range []string{"/", "//", "", "/etc/..", "/.", "/etc/passwd/.."} {
		if err := f.Remove(name); !errors.Is(err, errs.Invalid) {
			t.Errorf("Remove(%q) = %v, want Invalid", name, err)
		}
	}
	if _, err := os.Stat(outside + "/keep"); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 1 || left[0].Name() != "etc" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFilesKeepsModeAndOwner(t *testing.T) {
	root, f, _ := fakeRoot(t)
	name := root + "/etc/passwd"
	if err := os.Chmod(name, 0o640|fs.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = 1234
		if err := errors.Join(os.Chown(name, uid, uid), os.Chown(root+"/data", 77, 77)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Write("/etc/passwd", strings.NewReader("new")), f.Write("/data/fresh", strings.NewReader(""))); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || st.Mode != unix.S_IFREG|0o640 || int(st.Uid) != uid {
		t.Errorf("mode %o, owner %d, %v; set-id must go, the rest stay", st.Mode, st.Uid, err)
	}
	if err := unix.Stat(root+"/data/fresh", &st); err != nil || st.Mode != unix.S_IFREG|0o644 || os.Getuid() == 0 && st.Uid != 77 {
		t.Errorf("a new file has mode %o, owner %d, %v; want 644 and the directory's owner", st.Mode, st.Uid, err)
	}
}

func TestFilesRefusesSpecialFiles(t *testing.T) {
	root, f, _ := fakeRoot(t)
	if err := unix.Mkfifo(root+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	specials := map[string]string{"/fifo": "pipe"}
	if os.Getuid() == 0 && unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil {
		specials["/null"] = "device"
	}
	if err := unix.Mknod(root+"/socket", unix.S_IFSOCK|0o666, 0); err == nil {
		specials["/socket"] = ""
	}
	for name, kind := range specials {
		if _, err := read(f, name); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), kind) {
			t.Errorf("Read(%s) = %v", name, err)
		}
		if err := f.Write(name, strings.NewReader("x")); !errors.Is(err, errs.Invalid) {
			t.Errorf("Write(%s) = %v", name, err)
		}
		if st, err := os.Lstat(root + name); err != nil || st.Mode().IsRegular() {
			t.Errorf("%s was replaced: %v", name, err)
		}
		if err := f.Remove(name); err != nil {
			t.Errorf("Remove(%s) = %v", name, err)
		}
	}
	clean(t, root)
}

type broken struct{}

var errBroken = errors.New("the sender has gone")

func (broken) Read(b []byte) (int, error) { return copy(b, "half"), errBroken }

func TestFilesWriteIsWholeOrNothing(t *testing.T) {
	root, f, _ := fakeRoot(t)
	for _, name := range []string{"/etc/passwd", "/etc/new"} {
		if err := f.Write(name, broken{}); !errors.Is(err, errBroken) {
			t.Errorf("Write(%s) = %v", name, err)
		}
	}
	if got := have(t, root+"/etc/passwd"); got != "root:x:0:0" {
		t.Errorf("the old file is %q", got)
	}
	if _, err := os.Stat(root + "/etc/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file: %v", err)
	}
	clean(t, root+"/etc")

	// Who reads while it is written gets one or the other.
	old, fresh := strings.Repeat("o", 1<<16), strings.Repeat("n", 1<<17)
	put(t, root+"/etc/f", old)
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 2 {
		wg.Go(func() {
			for i := range 50 {
				if err := f.Write("/etc/f", strings.NewReader([]string{old, fresh}[i%2])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		if got, err := read(f, "/etc/f"); err != nil || got != old && got != fresh {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
}

// swapping lets a directory become a link to outside and back, as fast as it can.
func TestFilesDirectorySwappedForLink(t *testing.T) {
	root, f, secret := fakeRoot(t)
	outside := filepath.Join(filepath.Dir(secret), "outside")
	if err := os.MkdirAll(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, outside, root+"/link")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, root+"/data", unix.AT_FDCWD, root+"/link", unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 500 {
		_ = f.Write("/data/sub/../x", strings.NewReader("x"))
		_ = f.Write("/data/x", strings.NewReader("x"))
		_, _ = read(f, "/data/x")
		_ = f.Remove("/data/x")
		_ = f.Remove("/data/secret")
	}
	close(stop)
	wg.Wait()
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("written outside: %v, %v", left, err)
	}
}

func TestFilesOfKernelHaveNoSize(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFiles(shimapi.Process{PID: os.Getpid(), StartTime: start})
	if errors.Is(err, fs.ErrPermission) {
		t.Skip("SKIPPED: may not look at its own root:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, size, err := f.Read("/proc/1/stat")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if raw, err := io.ReadAll(r); err != nil || size != -1 || len(raw) == 0 {
		t.Errorf("size %d, %d bytes, %v", size, len(raw), err)
	}
	for _, p := range []shimapi.Process{{PID: 1 << 30}, {PID: os.Getpid(), StartTime: start + 1}} {
		if _, err := OpenFiles(p); !errors.Is(err, errs.Conflict) {
			t.Errorf("files of %+v, which is not there: %v", p, err)
		}
	}
}

// What of the kernel a container's root is not shown nobody gets through its files.
func TestFilesOfKernelShowNoMore(t *testing.T) {
	testroot.Require(t)
	top, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	f := Files{top}
	defer f.Close()
	if file, _, err := f.Read("/proc/kmsg"); !errors.Is(err, errs.Conflict) {
		t.Errorf("the kernel's log: %v", errors.Join(err, file.Close()))
	}
	file, _, err := f.Read("/proc/kallsyms")
	if errors.Is(err, errs.NotFound) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	address := make([]byte, 16)
	if _, err := io.ReadFull(file, address); err != nil || strings.Trim(string(address), "0") != "" {
		t.Errorf("an address of the kernel: %s, %v", address, err)
	}
}

func TestFilesOnFullAndReadOnlyDisk(t *testing.T) {
	testroot.Require(t)
	root, f, _ := fakeRoot(t)
	at := root + "/data"
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	put(t, at+"/old", "old")
	for _, name := range []string{"/data/new", "/data/old"} {
		if err := f.Write(name, bytes.NewReader(make([]byte, 1<<20))); !errors.Is(err, errs.Unavailable) {
			t.Errorf("Write(%s) to a full disk = %v", name, err)
		}
	}
	if got := have(t, at+"/old"); got != "old" {
		t.Errorf("the old file is %q", got)
	}
	clean(t, at)
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := f.Write("/data/new", strings.NewReader("x")); !errors.Is(err, errs.Conflict) {
		t.Errorf("Write to a read-only disk = %v", err)
	}
	if err := f.Remove("/data/old"); !errors.Is(err, errs.Conflict) {
		t.Errorf("Remove on a read-only disk = %v", err)
	}
}

// A mount in the container is not one for us, and would come off if its place
// were renamed over from here.
func TestFilesLeavesMountsAlone(t *testing.T) {
	testroot.Require(t)
	root, f, secret := fakeRoot(t)
	source := filepath.Join(filepath.Dir(secret), "source")
	put(t, source, "longer than what comes")
	if err := unix.Mount(source, root+"/etc/passwd", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root+"/etc/passwd", unix.MNT_DETACH) })
	if err := f.Write("/etc/passwd", strings.NewReader("new")); err != nil || have(t, source) != "new" {
		t.Errorf("Write to a mounted file: %v, it is %q", err, have(t, source))
	}
	if err := f.Remove("/etc/passwd"); !errors.Is(err, errs.Conflict) {
		t.Errorf("Remove of a mounted file: %v", err)
	}
	if err := unix.Mount("", root+"/etc/passwd", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := f.Write("/etc/passwd", strings.NewReader("no")); !errors.Is(err, errs.Conflict) || have(t, source) != "new" {
		t.Errorf("Write to a file mounted read-only: %v, it is %q", err, have(t, source))
	}
}
