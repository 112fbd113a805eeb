package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

func TestExcess(t *testing.T) {
	for _, tc := range []struct {
		total, free     int64
		high, low       int
		reserve, excess int64
	}{
		{1000, 500, 85, 80, 0, 0},
		{1000, 150, 85, 80, 0, 0},
		{1000, 149, 85, 80, 0, 51},
		{1000, 0, 85, 80, 0, 200},
		{1000, 0, 0, 0, 0, 0},
		{1000, 100, 0, 0, 150, 50},
		{1000, 100, 85, 80, 300, 200},
		{1000, 0, 100, 100, 10, 10},
	} {
		if got := (disk{total: tc.total, free: tc.free}).excess(tc.high, tc.low, tc.reserve); got != tc.excess {
			t.Errorf("%+v: %d", tc, got)
		}
	}
}

func TestSacrifices(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(1e9, 0).Add(time.Duration(h) * time.Hour) }
	old := candidate{ref: "old", used: at(1), shared: map[string]int64{"base": 100, "o": 10}}
	mid := candidate{ref: "mid", used: at(2), shared: map[string]int64{"base": 100, "m": 20}}
	young := candidate{ref: "young", used: at(3), shared: map[string]int64{"y": 30}}
	alias := candidate{ref: "alias", used: at(0), shared: map[string]int64{"y": 30}}
	part := candidate{file: "part", used: at(0), own: 5}
	fixed := func(c candidate) candidate { c.stays = true; return c }
	for name, tc := range map[string]struct {
		all     []candidate
		need    int64
		want    []string
		missing int64
	}{
		"nothing needed":          {[]candidate{old, mid}, 0, nil, 0},
		"oldest first":            {[]candidate{young, mid, old, part}, 12, []string{"part", "old"}, 0},
		"shared goes with last":   {[]candidate{old, mid, young}, 40, []string{"old", "mid"}, 0},
		"shared with one needed":  {[]candidate{old, fixed(mid), young}, 40, []string{"old", "young"}, 0},
		"useless stays":           {[]candidate{alias, fixed(young), old}, 10, []string{"old"}, 0},
		"name goes with its twin": {[]candidate{alias, young}, 30, []string{"alias", "young"}, 0},
		"not enough":              {[]candidate{old, fixed(mid)}, 50, []string{"old"}, 40},
		"all needed":              {[]candidate{fixed(old), fixed(part)}, 50, nil, 50},
	} {
		gone, missing := sacrifices(tc.all, tc.need)
		var got []string
		for _, c := range gone {
			got = append(got, c.ref+c.file)
		}
		if !slices.Equal(got, tc.want) || missing != tc.missing {
			t.Errorf("%s: %v, %d missing; want %v, %d", name, got, missing, tc.want, tc.missing)
		}
	}
}

// full makes the store believe that need bytes have to go.
func full(t *testing.T, s *Store, need int64) {
	t.Helper()
	d := must(s.statfs())(t)
	s.cfg.Reserve = d.free + need
	t.Cleanup(func() { s.cfg.Reserve = 0 })
}

func TestCollect(t *testing.T) {
	reg := newRegistry(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	var refs []string
	for i := range 5 {
		ref := reg.push(t, fmt.Sprintf("app%d:1", i), imageOf(t, layerOf(t, map[string]string{"v": noise(1<<20 + i)})))
		must(s.Pull(t.Context(), ref, nil))(t)
		refs = append(refs, ref)
	}
	later := time.Now().Add(time.Hour)
	full(t, s, 3<<20)
	if got := must(s.Collect(t.Context(), later))(t); len(got.Images) != 0 {
		t.Errorf("removed %v though nobody said what is in use", got.Images)
	}
	s.Protect(func(ref, digest string) bool { return ref == refs[0] && strings.HasPrefix(digest, "sha256:") })
	if err := errors.Join(s.Pin(t.Context(), refs[1], true), s.Pin(t.Context(), refs[1], true)); err != nil {
		t.Fatal(err)
	}
	s.cfg.Reserve = 0
	release := s.Hold(must(s.Resolve(t.Context(), refs[2]))(t))
	full(t, s, 3<<20)
	if got := must(s.Collect(t.Context(), time.Now()))(t); len(got.Images) != 0 {
		t.Errorf("removed %v, which came a moment ago", got.Images)
	}
	got := must(s.Collect(t.Context(), later))(t)
	if d := cmp.Diff([]string{refs[3], refs[4]}, got.Images); d != "" || got.Freed < 2<<20 {
		t.Errorf("freed %d (-want +got):\n%s", got.Freed, d)
	}
	s.cfg.Reserve = 0
	release()
	wantClean(t, s)
	s = openStore(t, dir) // what is pinned is so after a restart
	s.Protect(func(ref, _ string) bool { return false })
	full(t, s, 10<<20)
	got = must(s.Collect(t.Context(), later))(t)
	if d := cmp.Diff([]string{refs[0], refs[2]}, got.Images); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	s.cfg.Reserve = 0
	if err := s.Remove(t.Context(), refs[1]); err != nil {
		t.Errorf("Remove of a pinned image: %v", err)
	}
	wantErr(t, s.Pin(t.Context(), refs[1], true), errs.NotFound)
	wantErr(t, s.Pin(t.Context(), "Bad", true), errs.Invalid)
}

// TestSpare: when images are not enough, others are asked to make room; and only then, and for no more.
func TestSpare(t *testing.T) {
	reg := newRegistry(t)
	var asked []int64
	have := int64(8 << 20)
	s := openStore(t, t.TempDir(), func(c *Config) {
		c.Spare = func(_ context.Context, n int64) (int64, error) {
			asked = append(asked, n)
			return min(n, have), nil
		}
	})
	s.Protect(func(string, string) bool { return false })
	ref := reg.push(t, "app:1", imageOf(t, layerOf(t, map[string]string{"v": noise(1 << 20)})))
	must(s.Pull(t.Context(), ref, nil))(t)
	full(t, s, 6<<20)
	got := must(s.Collect(t.Context(), time.Now()))(t)
	if len(asked) != 1 || asked[0] < 5<<20 || asked[0] > 7<<20 || got.Freed != asked[0] || len(got.Images) != 0 {
		t.Errorf("asked for %v, collected %+v; want some 6 MiB of what is spare", asked, got)
	}
	have = 0
	if c := must(s.makeRoom(t.Context(), time.Now().Add(time.Hour), 1<<40, true))(t); len(c.Images) != 0 {
		t.Errorf("removed %v in vain", c.Images)
	}
	asked = nil
	if c := must(s.makeRoom(t.Context(), time.Now().Add(time.Hour), 1<<19, true))(t); len(c.Images) != 1 || len(asked) != 0 {
		t.Errorf("removed %v, and asked for %v", c.Images, asked)
	}
}

func TestPinSurvivesPull(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", imageOf(t, layerOf(t, map[string]string{"v": "1"})))
	twin := reg.push(t, "twin:1", imageOf(t, layerOf(t, map[string]string{"v": "1"})))
	s := openStore(t, t.TempDir())
	must(s.Pull(t.Context(), ref, nil))(t)
	if err := s.Pin(t.Context(), ref, true); err != nil {
		t.Fatal(err)
	}
	reg.push(t, "app:1", imageOf(t, layerOf(t, map[string]string{"v": "2"})))
	if img := must(s.Pull(t.Context(), twin, nil))(t); img.Pinned {
		t.Error("the same content by another name is pinned too")
	}
	if img := must(s.Pull(t.Context(), ref, nil))(t); !img.Pinned || contentOf(t, img, "v") != "2" {
		t.Errorf("%+v", img)
	}
	if n, err := s.Prune(t.Context(), func(Image) bool { return false }); err != nil || n == 0 {
		t.Errorf("Prune = %d, %v", n, err)
	}
	if all := must(s.List(t.Context()))(t); len(all) != 1 || all[0].Ref != ref {
		t.Errorf("List = %v", all)
	}
	if err := s.Pin(t.Context(), ref, false); err != nil || must(s.Resolve(t.Context(), ref))(t).Pinned {
		t.Errorf("still pinned, %v", err)
	}
}

// TestUsesAreRecorded: the last use survives a restart, and is not written again and again.
func TestUsesAreRecorded(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", imageOf(t, layerOf(t, map[string]string{"v": "1"})))
	dir := t.TempDir()
	s := openStore(t, dir)
	img := must(s.Pull(t.Context(), ref, nil))(t)
	before := must(os.Stat(s.refFile(ref)))(t)
	for range 3 {
		s.Hold(img)()
		must(s.Collect(t.Context(), time.Now()))(t)
	}
	if after := must(os.Stat(s.refFile(ref)))(t); !os.SameFile(before, after) {
		t.Error("the record was written again within the hour")
	}
	later := time.Now().Add(3 * time.Hour).UTC().Truncate(time.Second)
	s.used[ref] = later // as Hold would then
	must(s.Collect(t.Context(), later))(t)
	if used := must(openStore(t, dir).Usage(t.Context()))(t).Images[0].Used; !used.Equal(later) {
		t.Errorf("last use %v, want %v", used, later)
	}
}

// TestReserve pulls onto a small disk: the reserve stays, whatever the sizes in manifests say.
func TestReserve(t *testing.T) {
	testroot.Require(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	const reserve = 40 << 20
	reg := newRegistry(t)
	small := reg.push(t, "small:1", imageOf(t, layerOf(t, map[string]string{"s": noise(8 << 20)})))
	more := reg.push(t, "more:1", imageOf(t, layerOf(t, map[string]string{"s": noise(9 << 20)})))
	bomb := reg.push(t, "bomb:1", imageOf(t, layerOf(t, map[string]string{"z": strings.Repeat("0", 100<<20)})))
	s := openStore(t, filepath.Join(dir, "images"), func(c *Config) { c.Reserve = reserve })
	s.tune.minAge = 0
	must(s.Pull(t.Context(), small, nil))(t)
	_, err := s.Pull(t.Context(), more, nil)
	wantErr(t, err, errs.Unavailable, "needs at least", "in reserve")
	s.Protect(func(string, string) bool { return false })
	must(s.Pull(t.Context(), more, nil))(t)
	if all := must(s.List(t.Context()))(t); len(all) != 1 || all[0].Ref != more {
		t.Errorf("the unused image did not make room: %v", all)
	}
	_, err = s.Pull(t.Context(), bomb, nil)
	wantErr(t, err, errs.Unavailable, "reserve")
	wantClean(t, s)
	if free := must(s.free())(t); free < reserve {
		t.Errorf("%d bytes free", free)
	}
	s.cfg.GCHigh, s.cfg.GCLow, s.cfg.Reserve = 10, 5, 0
	if got := must(s.Collect(t.Context(), time.Now()))(t); len(got.Images) != 1 || got.Freed < 9<<20 {
		t.Errorf("above the threshold: %+v", got)
	}
	if got := must(s.Collect(t.Context(), time.Now()))(t); len(got.Images) != 0 {
		t.Errorf("below the threshold: %+v", got)
	}
}

func TestUsage(t *testing.T) {
	reg := newRegistry(t)
	shared := layerOf(t, map[string]string{"s": noise(1000)})
	one := reg.push(t, "one:1", imageOf(t, shared, layerOf(t, map[string]string{"v": noise(10)})))
	two := reg.push(t, "two:1", imageOf(t, shared, layerOf(t, map[string]string{"v": noise(20)})))
	s, _ := openFlists(t, t.TempDir(), func(c *Config) { c.Reserve = 77 })
	img := must(s.Pull(t.Context(), one, nil))(t)
	must(s.Pull(t.Context(), two, nil))(t)
	list := writeFile(t, filepath.Join(t.TempDir(), "x.fl"), []byte("one"))
	must(s.Pull(t.Context(), list, nil))(t)
	writeFile(t, s.partFile("sha256:"+strings.Repeat("0", 64)), make([]byte, 5))
	release := s.Hold(img)
	s.Protect(func(ref, _ string) bool { return ref == list })
	u := must(s.Usage(t.Context()))(t)
	for i := range u.Images {
		u.Images[i].Used = time.Time{}
	}
	want := []ImageUsage{
		{Ref: list, Size: 3, Reclaimable: 3, InUse: true},
		{Ref: one, Size: 1010, Shared: 1000, InUse: true},
		{Ref: two, Size: 1020, Shared: 1000, Reclaimable: 20},
	}
	if d := cmp.Diff(want, u.Images); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if u.Layers != 3 || u.LayerBytes != 1030 || u.Flists != 1 || u.FlistBytes != 3 || u.Parts != 1 || u.PartBytes != 5 || u.Reclaimable != 25 || u.Reserve != 77 {
		t.Errorf("%+v", u)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Dir, &st); err != nil || u.Total != int64(st.Blocks)*st.Bsize {
		t.Errorf("%d bytes in all, want all %d blocks of %d (%v)", u.Total, st.Blocks, st.Bsize, err)
	}
	release()
	s.Protect(func(string, string) bool { return false })
	if u := must(s.Usage(t.Context()))(t); u.Reclaimable != 1030+3+5 {
		t.Errorf("reclaimable %d when nothing is used", u.Reclaimable)
	}
}

// counter counts the bytes of bodies that a server gives.
type counter struct {
	http.ResponseWriter
	n *int64
	m *sync.Mutex
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.m.Lock()
	*c.n += int64(n)
	c.m.Unlock()
	return n, err
}

// TestResumeAcrossRestarts cuts each transfer several times and reopens the store each time: no byte comes twice.
func TestResumeAcrossRestarts(t *testing.T) {
	const big, step = 4 << 20, 600 << 10
	const slack = 256 << 10 // what the server had written when its connection was cut
	var m sync.Mutex
	var sent int64
	pullAll := func(t *testing.T, ref string, want int64, uncut func()) {
		t.Helper()
		m.Lock()
		sent = 0
		m.Unlock()
		dir, tries := t.TempDir(), 0
		for {
			s, _ := openFlists(t, dir) // a restart, after which the node prunes
			must(s.Prune(t.Context(), nil))(t)
			s.tune.attempts = 1
			if tries++; tries > 20 {
				t.Fatal("it does not come to an end")
			}
			if _, err := s.Pull(t.Context(), ref, nil); err == nil {
				break
			}
		}
		uncut()
		m.Lock()
		defer m.Unlock()
		if sent > want+slack || tries < 3 {
			t.Errorf("%d bytes were sent for %d, in %d tries", sent, want, tries)
		}
	}
	t.Run("registry", func(t *testing.T) {
		reg := newRegistry(t)
		l := layerOf(t, map[string]string{"b": noise(big)})
		ref := reg.push(t, "app:1", imageOf(t, l))
		digest := must(l.Digest())(t).String()
		reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
			if !isBlob(r, digest) {
				return w
			}
			return &cutWriter{ResponseWriter: counter{w, &sent, &m}, left: step}
		})
		pullAll(t, ref, must(l.Size())(t), func() { reg.set(nil) })
	})
	for _, name := range []string{"archive.tar", "x.flist"} {
		t.Run(name, func(t *testing.T) {
			data := tarOf(t, map[string]string{"b": noise(big)})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/"+name {
					http.NotFound(w, r)
					return
				}
				w.Header().Set("ETag", `"v1"`)
				http.ServeContent(&cutWriter{ResponseWriter: counter{w, &sent, &m}, left: step}, r, "", time.Time{}, strings.NewReader(string(data)))
			}))
			defer srv.Close()
			pullAll(t, srv.URL+"/"+name, int64(len(data)), func() {})
		})
	}
}
