//go:build linux && cgo

package shim_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/ldcache"
)

// The loader of an image is told of libraries in the writable layer, and
// nowhere else, whatever the image has where its cache should be.
func TestLibraries(t *testing.T) {
	n := startNode(t)
	empty := append([]byte("glibc-ld.so.cache1.1"), make([]byte, 28)...)
	outside := filepath.Join(n.dir, "outside")
	write(t, outside, string(empty))
	at := n.root + "/etc/ld.so.cache"
	for name, c := range map[string]struct {
		make func() error
		told bool
	}{
		"none":     {func() error { return nil }, false},
		"cache":    {func() error { return os.WriteFile(at, empty, 0o644) }, true},
		"nonsense": {func() error { return os.WriteFile(at, []byte("nonsense"), 0o644) }, false},
		"folder":   {func() error { return os.Mkdir(at, 0o755) }, false},
		"way out":  {func() error { return os.Symlink("../../../../../.."+outside, at) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(at), os.MkdirAll(n.root+"/etc/ld.so.conf.d", 0o755), c.make()); err != nil {
				t.Fatal(err)
			}
			id := "l" + string('a'+n.n.Load())
			for _, readonly := range []bool{true, false} {
				r := n.request(id, "true")
				r.Libraries = map[string]string{"libcuda.so.1": "/driver/libcuda.so.1"}
				upper := r.Rootfs.Upper
				if readonly {
					r.Rootfs.Upper, r.Rootfs.Work = "", ""
				}
				if _, err := n.Run(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				n.exit(id)
				if err := n.Delete(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				checkTold(t, r, upper, c.told && !readonly)
			}
		})
	}
	if raw, err := os.ReadFile(outside); err != nil || len(raw) != len(empty) {
		t.Errorf("a file outside was written to: %q, %v", raw, err)
	}
}

func checkTold(t *testing.T, r shimapi.RunRequest, upper string, want bool) {
	t.Helper()
	raw, err := os.ReadFile(upper + "/etc/ld.so.cache")
	if !want {
		if err == nil {
			t.Errorf("the loader of %s was told %q", r.ID, raw)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := ldcache.List(raw)
	if err != nil || !slices.Equal(all, []string{"libcuda.so.1 => /driver/libcuda.so.1"}) {
		t.Errorf("the loader knows %q, %v", all, err)
	}
	if conf, err := os.ReadFile(upper + "/etc/ld.so.conf.d/buoy.conf"); err != nil || string(conf) != "/driver\n" {
		t.Errorf("ldconfig reads %q, %v", conf, err)
	}
}
