package layer_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// FuzzUnpack: whatever the bytes are, nothing outside changes, nothing is left after an error, and what was unpacked can
// be packed again.
func FuzzUnpack(f *testing.F) {
	testroot.Require(f)
	link := sym("l", "../../outside")
	for _, b := range [][]byte{
		archive(f, dir("./"), reg("a/b", "x"), hard("c", "a/b"), link, reg("l/canary", "y")),
		archive(f, reg("../outside/canary", "x")), archive(f, link, hard("h", "l/canary"), reg("h", "z")),
		archive(f, reg(".wh.a", ""), reg("d/.wh..wh..opq", ""), link, reg("l/.wh.canary", "")),
		archive(f, char("null", 1, 3), char("w", 0, 0), item{tar.Header{Typeflag: tar.TypeFifo, Name: "p"}, ""}),
		archive(f, item{tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}, ""}),
		archive(f, reg(strings.Repeat("n", 150)+"/é", "x")), raw("l", '2', "00000000000\x00", ""),
		pax("path=../../x", "uid=4294967295"), zip(f, archive(f, reg("a", "x"))), tool(f, archive(f, reg("a", "x")), "zstd", "-c"),
		tool(f, archive(f, reg("a", "x")), "xz", "-c"), tool(f, archive(f, reg("a", "x")), "bzip2", "-c"),
	} {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, in []byte, whiteouts bool) {
		out := newCanary(t)
		opt := layer.Options{Whiteouts: whiteouts, MaxBytes: 1 << 20, MaxEntries: 100}
		res, err := layer.Unpack(t.Context(), out.dir, bytes.NewReader(in), opt)
		out.check()
		if err != nil {
			out.checkEmpty()
			return
		}
		if res.Bytes > opt.MaxBytes || res.Entries > opt.MaxEntries {
			t.Errorf("%+v is above the limits", res)
		}
		snapshot(t, out.dir, time.Second)
	})
}
