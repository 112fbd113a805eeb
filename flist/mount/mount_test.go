package mount

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// mini is the genuine fixture with the chunks that its maker stored.
func mini(t testing.TB) *world {
	t.Helper()
	l, err := flist.Open(t.Context(), "../testdata/mini/mini.flist")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{list: l, plain: map[chunk.ID][]byte{}}
	for i := range l.Nodes {
		for c, ref := range l.Nodes[i].Chunks {
			if w.plain[ref.ID], err = ref.Open(mustRead(t, "../testdata/mini/chunks/"+ref.ID.String()), l.Nodes[i].ChunkLen(c)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// Every entry of the genuine flist is, in the mount, what its manifest says.
func TestMini(t *testing.T) {
	w := mini(t)
	s := start(t, mountFuse(t), config(t, w))
	left := map[string]bool{}
	err := filepath.WalkDir(s.dir, func(p string, _ fs.DirEntry, err error) error {
		left[strings.TrimPrefix(strings.TrimPrefix(p, s.dir), "/")] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(left, "")
	for line := range strings.Lines(string(mustRead(t, "../testdata/mini/source-manifest.tsv"))) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		compare(t, w.list, filepath.Join(s.dir, f[0]), f)
		delete(left, f[0])
	}
	if len(left) > 0 {
		t.Errorf("not in the manifest: %v", left)
	}
}

// compare looks at one entry: path type mode uid gid size mtime major,minor linktarget sha256.
func compare(t *testing.T, l *flist.List, at string, f []string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		t.Errorf("%s: %v", f[0], err)
		return
	}
	i, ok := l.Find(f[0])
	if !ok {
		t.Errorf("%s is not in the list", f[0])
		return
	}
	n := l.Nodes[i]
	mode, _ := strconv.ParseUint(f[2], 8, 32)
	if got := st.Mode & 0o7777; uint64(got) != mode {
		t.Errorf("%s: mode %o, want %o", f[0], got, mode)
	}
	if st.Mode != n.Mode || st.Uid != n.UID || st.Gid != n.GID || st.Mtim.Sec != n.MTime || st.Rdev != n.Rdev || st.Ino != uint64(i+1) {
		t.Errorf("%s: %+v is not %+v", f[0], st, n)
	}
	if uid, gid := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid)); uid != f[3] || gid != f[4] {
		t.Errorf("%s: owner %s:%s, want %s:%s", f[0], uid, gid, f[3], f[4])
	}
	switch f[1] {
	case "f":
		sum := sha256.Sum256(mustRead(t, at))
		if got := hex.EncodeToString(sum[:]); got != f[9] || strconv.FormatInt(st.Size, 10) != f[5] {
			t.Errorf("%s: %d bytes with sha256 %s, want %s with %s", f[0], st.Size, got, f[5], f[9])
		}
	case "l":
		if got, err := os.Readlink(at); err != nil || got != f[8] {
			t.Errorf("%s: leads to %q, %v, want %q", f[0], got, err, f[8])
		}
	}
}

func TestContents(t *testing.T) {
	files := map[string]int{"one": 1, "chunk": 512 << 10, "more": 512<<10 + 1, "large": 5<<20 + 77}
	w := synthetic(files)
	s := start(t, mountFuse(t), config(t, w))
	for name, size := range files {
		want := content(name, size)
		same(t, name, mustRead(t, filepath.Join(s.dir, name)), want)
		f, err := os.Open(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, off := range []int{size - 1, size / 2, max(0, size-5000), 512<<10 - 3} {
			b := make([]byte, 9000)
			if off >= size {
				continue
			}
			n, _ := f.ReadAt(b, int64(off))
			same(t, name+" at "+strconv.Itoa(off), b[:n], want[off:min(size, off+9000)])
		}
	}
	if st := s.Status(); st.Fetched != st.Total || st.Passed == 0 || st.Failed != 0 {
		t.Errorf("Status: %+v", st)
	}
}

func TestReadOnly(t *testing.T) {
	s := start(t, mountFuse(t), config(t, mini(t)))
	if err := os.WriteFile(s.dir+"/etc/hostname", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	if err := os.Remove(s.dir + "/etc/hostname"); !errors.Is(err, unix.EROFS) {
		t.Errorf("remove: %v", err)
	}
	if _, err := os.Stat(s.dir + "/etc/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	if n, err := unix.Llistxattr(s.dir+"/bin/busybox", nil); n > 0 || err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("xattrs: %d, %v", n, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil || st.Blocks == 0 || st.Bfree != 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v, %v", st, err)
	}
}

func TestDropSuid(t *testing.T) {
	w := mini(t)
	cfg := config(t, w)
	cfg.DropSuid = true
	s := start(t, mountFuse(t), cfg)
	for path, want := range map[string]uint32{"bin/su": 0o755, "bin/busybox": 0o755, "tmp": 0o1777} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(s.dir, path), &st); err != nil || st.Mode&0o7777 != want {
			t.Errorf("%s: mode %o, %v, want %o", path, st.Mode&0o7777, err, want)
		}
	}
}

// A store that does not answer, or says no, is an error in time and with its reason; when it is back, so are the files.
func TestStoreDown(t *testing.T) {
	files := map[string]int{"one": 1000, "large": 3 << 20}
	w := synthetic(files)
	cfg := config(t, w)
	cfg.Deadline = 200 * time.Millisecond
	var mu sync.Mutex
	var told []string
	cfg.Failed = func(path, message string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, path+": "+message)
	}
	s := start(t, mountFuse(t), cfg)
	for name, mood := range map[string]func(bool){"does not answer": w.down.Store, "on fire": w.fails.Store} {
		mood(true)
		for file := range files {
			began := time.Now()
			_, err := os.ReadFile(filepath.Join(s.dir, file))
			if !errors.Is(err, unix.EIO) || time.Since(began) > 5*time.Second {
				t.Errorf("a store that %s: %v after %v", name, err, time.Since(began))
			}
			st := s.Status()
			if st.LastError == nil || st.LastError.Path != "/"+file || !strings.Contains(st.LastError.Message, name) && name != "does not answer" {
				t.Errorf("a store that %s: %+v", name, st.LastError)
			}
		}
		mood(false)
	}
	for file, size := range files {
		same(t, file, mustRead(t, filepath.Join(s.dir, file)), content(file, size))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) == 0 {
		t.Error("nobody was told")
	}
	t.Log(told)
}

// A reader that is killed while a store does not answer goes at once; a signal that is handled disturbs nobody.
func TestInterrupt(t *testing.T) {
	w := synthetic(map[string]int{"large": 3 << 20})
	s := start(t, mountFuse(t), config(t, w))
	w.down.Store(true)
	cmd := exec.Command("sh", "-c", `trap "echo heard" USR1; cat "$0" | sha256sum; echo done`, s.dir+"/large")
	var out bytes.Buffer
	cmd.Stdout = &out
	dd := exec.Command("dd", "if="+s.dir+"/large", "of=/dev/null", "bs=4096", "count=1", "skip=300", "iflag=nonblock")
	for _, c := range []*exec.Cmd{cmd, dd} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "both read", func() bool { return s.busy.Load() >= 2 })
	began := time.Now()
	if err := dd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = dd.Wait()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the killed reader took %v to go", took)
	}
	if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	w.down.Store(false)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	sum := sha256.Sum256(content("large", 3<<20))
	if !strings.Contains(out.String(), hex.EncodeToString(sum[:])) {
		t.Errorf("after a signal: %s", out.String())
	}
	if st := s.Status(); st.Failed != 0 {
		t.Errorf("%d reads failed: %+v", st.Failed, st.LastError)
	}
}

// Bytes that are not the chunk's never come through; the cache and the store check them, and here is what is left of that: an
// error.
func TestMissing(t *testing.T) {
	w := synthetic(map[string]int{"gone": 100, "half": 600 << 10})
	i, _ := w.list.Find("half")
	w.list.Nodes[i].Chunks = nil
	i, _ = w.list.Find("gone")
	delete(w.plain, w.list.Nodes[i].Chunks[0].ID)
	s := start(t, mountFuse(t), config(t, w))
	for _, name := range []string{"gone", "half"} {
		if _, err := os.ReadFile(filepath.Join(s.dir, name)); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := s.Status(); st.Failed < 2 || st.LastError == nil {
		t.Errorf("Status: %+v", st)
	}
}

// What was read first is fetched first the next time, and with PrefetchAll the rest after it.
func TestOrder(t *testing.T) {
	files := map[string]int{"a": 10, "b": 600 << 10, "c": 20, "d": 30}
	w := synthetic(files)
	cfg := config(t, w)
	cfg.OrderFile = filepath.Join(t.TempDir(), "not made yet", "order")
	s := start(t, mountFuse(t), cfg)
	for _, name := range []string{"d", "b"} {
		mustRead(t, filepath.Join(s.dir, name))
	}
	s.stop()
	var want []chunk.ID
	for _, name := range []string{"d", "b"} {
		i, _ := w.list.Find(name)
		for _, ref := range w.list.Nodes[i].Chunks {
			want = append(want, ref.ID)
		}
	}
	check := func(got []string) {
		t.Helper()
		for i, id := range want {
			if len(got) <= i || got[i] != id.String() {
				t.Fatalf("%d of %v is not %s", i, got, id)
			}
		}
	}
	check(strings.Fields(string(mustRead(t, cfg.OrderFile))))

	again := synthetic(files)
	again.order = make(chan chunk.ID, 100)
	next := config(t, again)
	next.OrderFile, next.Prefetch = cfg.OrderFile, PrefetchAll
	done := make(chan struct{})
	next.Completed = func() { close(done) }
	s = start(t, mountFuse(t), next)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("not everything is fetched")
	}
	if st := s.Status(); !st.Complete || st.Fetched != st.Total {
		t.Errorf("Status: %+v", st)
	}
	first := map[string]bool{}
	for range want {
		first[(<-again.order).String()] = true
	}
	for _, id := range want { // several are under way at once
		if !first[id.String()] && len(want) <= prefetchParallel {
			t.Logf("%s was not among the first %d", id, len(want))
		}
	}
	if got := again.asked.Load(); got != int64(len(again.plain)) {
		t.Errorf("%d chunks were asked for, of %d", got, len(again.plain))
	}
}

// A sequential reader finds its chunks on their way; one that jumps costs what it touches.
func TestReadAhead(t *testing.T) {
	w := synthetic(map[string]int{"large": 32 << 20})
	s := start(t, mountFuse(t), config(t, w))
	f, err := os.Open(s.dir + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for _, i := range []int64{40, 3, 55, 17, 29, 9, 61} {
		if _, err := f.ReadAt(b, i*chunk.Size+chunk.Size/2); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.asked.Load(); got != 7 {
		t.Errorf("7 chunks were touched and %d fetched", got)
	}
}

// A server that is told to end leaves waiting readers to the next one.
func TestHandOver(t *testing.T) {
	w := synthetic(map[string]int{"large": 3 << 20})
	d := mountFuse(t)
	cfg := config(t, w)
	s := start(t, d, cfg)
	w.down.Store(true)
	got := make(chan []byte, 1)
	go func() {
		b, err := os.ReadFile(d.dir + "/large")
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	until(t, "somebody reads", func() bool { return s.busy.Load() >= 1 })
	s.stop()
	w.down.Store(false)
	start(t, d, cfg)
	same(t, "large", <-got, content("large", 3<<20))
}

func TestGone(t *testing.T) {
	d := mountFuse(t)
	cfg := config(t, mini(t))
	told := 0
	cfg.Lost = func() { told++ }
	s := start(t, d, cfg)
	if err := unix.Unmount(d.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; !errors.Is(err, ErrGone) {
		t.Errorf("Run: %v", err)
	}
	s.ended <- nil
	if !s.Status().Gone || told != 1 {
		t.Errorf("Status says gone: %v; told %d times", s.Status().Gone, told)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); !errors.Is(err, errs.Invalid) {
		t.Errorf("New: %v", err)
	}
	cfg := config(t, synthetic(nil))
	cfg.Layer = "/nowhere"
	if _, err := New(cfg); !errors.Is(err, errs.NotFound) {
		t.Errorf("New: %v", err)
	}
}
