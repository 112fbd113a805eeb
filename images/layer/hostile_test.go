package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// raw is one header block with a body, for what archive/tar does not write.
func raw(name string, kind byte, size string, body string) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], size)
	copy(b[136:], "00000000000\x00        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(b, body...), make([]byte, (512-len(body)%512)%512)...)
}

func pax(records ...string) []byte {
	all := ""
	for _, r := range records {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		all += fmt.Sprintf("%d %s\n", n, r)
	}
	return raw("pax", 'x', fmt.Sprintf("%011o\x00", len(all)), all)
}

func zip(t testing.TB, b []byte) []byte { return tool(t, b, "gzip", "-nc") }

func TestUnpackRefusesAndLeavesNothing(t *testing.T) {
	small := layer.Options{MaxBytes: 1000, MaxEntries: 3}
	white := layer.Options{Whiteouts: true}
	before := reg("a/before", "was here first")
	chain := []item{dir("d"), before}
	for i := range 30 {
		name := strings.Repeat("d/", 200)
		chain = append(chain, sym(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d/%s", i-1, name)))
	}
	chain[2] = sym("l0", strings.Repeat("d/", 200))
	chain = append(chain, reg("l29/x", ""))
	neg := append([]byte{0xff}, bytes.Repeat([]byte{0xff}, 11)...)
	whole := archive(t, before, reg("b", strings.Repeat("x", 5000)))
	plain := func(opt layer.Options, items ...item) func() ([]byte, layer.Options) {
		return func() ([]byte, layer.Options) { return archive(t, append([]item{before}, items...)...), opt }
	}
	bytesOf := func(parts ...[]byte) func() ([]byte, layer.Options) {
		return func() ([]byte, layer.Options) { return bytes.Join(parts, nil), layer.Options{} }
	}
	none := layer.Options{}
	for name, c := range map[string]struct {
		make func() ([]byte, layer.Options)
		text string // in the error
	}{
		"dotdot":                {plain(none, reg("../outside/canary", "x")), `"../outside/canary"`},
		"dotdot inside":         {plain(none, reg("a/../b", "x")), `"a/../b"`},
		"dotdot after slash":    {plain(none, reg("/../x", "x")), `"/../x"`},
		"dotdot directory":      {plain(none, dir("..")), `".."`},
		"dotdot symlink":        {plain(none, sym("../../l", "x")), `"../../l"`},
		"link to dotdot":        {plain(none, hard("h", "../outside/canary")), `"h"`},
		"link to absolute":      {plain(none, hard("h", "/etc/passwd")), `"h"`},
		"link through symlink":  {plain(none, sym("l", "../../outside"), hard("h", "l/canary")), `"h"`},
		"link through absolute": {plain(none, sym("l", "/etc"), hard("h", "l/passwd")), `"h"`},
		"link to directory":     {plain(none, hard("h", "a")), "not a file"},
		"link to root":          {plain(none, hard("h", "./")), "root"},
		"link to nothing":       {plain(none, hard("h", "")), "root"},
		"root is a symlink":     {plain(none, sym("./", "/etc")), "root"},
		"root is a file":        {plain(none, reg(".", "x")), "root"},
		"parent is a file":      {plain(none, reg("f", "x"), reg("f/g", "x")), "not a directory"},
		"symlink loop":          {plain(none, sym("x", "y"), sym("y", "x"), reg("x/z", "")), "links"},
		"symlink to itself":     {plain(none, sym("x", "x/x"), reg("x/z", "")), "links"},
		"empty symlink":         {bytesOf(raw("l", '2', "00000000000\x00", "")), "symbolic link"},
		"300 characters":        {plain(none, reg(strings.Repeat("n", 300), "")), "longer than 255"},
		"long link directory":   {plain(none, sym("l", strings.Repeat("n", 300)), reg("l/x", "")), "name"},
		"5000 deep":             {plain(none, reg(strings.Repeat("d/", 5000)+"f", "")), "longer than"},
		"600 deep":              {plain(none, reg(strings.Repeat("d/", 600)+"f", "")), "deeper"},
		"deep through links":    {plain(none, chain...), `"l29/x"`},
		"whiteout of nothing":   {plain(white, reg("a/.wh.", "")), "whiteout"},
		"whiteout of dot":       {plain(white, reg(".wh..", "")), "whiteout"},
		"whiteout of dotdot":    {plain(white, reg("a/.wh...", "")), "whiteout"},
		"whiteout directory":    {plain(white, reg(".wh.a/b", "")), "whiteout"},
		"negative size":         {bytesOf(raw("f", '0', string(neg), "")), ""},
		"negative pax size":     {bytesOf(pax("size=-5"), raw("f", '0', "00000000000\x00", "")), ""},
		"zero byte in name":     {bytesOf(pax("path=a\x00b"), raw("f", '0', "00000000000\x00", "")), ""},
		"zero byte in link":     {bytesOf(pax("linkpath=a\x00b"), raw("f", '2', "00000000000\x00", "")), ""},
		"unknown kind":          {bytesOf(raw("f", 'Z', "00000000000\x00", "")), "kind"},
		"owner -1":              {bytesOf(pax("uid=4294967295"), raw("f", '0', "00000000000\x00", "")), "owner"},
		"owner 2^40":            {bytesOf(pax("gid=1099511627776"), raw("f", '0', "00000000000\x00", "")), "owner"},
		"owner -2":              {bytesOf(pax("uid=-2"), raw("f", '0', "00000000000\x00", "")), ""},
		"capability of 3 bytes": {plain(none, item{tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "abc"}}, ""}), "security.capability"},
		"cut in a header":       {bytesOf(whole[:700]), ""},
		"cut in a body":         {bytesOf(whole[:len(whole)-4000]), "cut short"},
		"cut gzip":              {bytesOf(zip(t, whole)[:60]), ""},
		"garbage after gzip":    {bytesOf(zip(t, whole), []byte("garbage")), "garbage"},
		"not an archive":        {bytesOf([]byte(strings.Repeat("<html>not found</html>", 100))), "not tar"},
		"nothing":               {bytesOf(nil), "empty"},
		"too large":             {plain(small, reg("x", strings.Repeat("x", 1001))), "1000 bytes"},
		"too large together":    {plain(small, reg("x", strings.Repeat("x", 600)), reg("y", strings.Repeat("y", 600))), "1000 bytes"},
		"too many":              {plain(small, dir("x"), dir("y"), dir("z")), "3 entries"},
		"sparse bomb": {bytesOf(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=f", "GNU.sparse.realsize=1099511627776"),
			raw("f", '0', "00000001000\x00", "1\n1099511627776\n0\n"+strings.Repeat("\x00", 490))), "larger than"},
		"bomb after the end":  {bytesOf(zip(t, append(archive(t, before), make([]byte, 80<<20)...))), "longer"},
		"device of no kernel": {plain(layer.Options{Devices: true}, char("d", 5000, 1)), "device"},
		"memory bomb by zstd": {bytesOf([]byte("\x28\xb5\x2f\xfd\x00\xa8\x00\x00\x00")), "zstd"},
		"squashfs is no tar":  {bytesOf([]byte("hsqs" + strings.Repeat("\x00", 1000))), "not tar"},
	} {
		t.Run(name, func(t *testing.T) {
			in, opt := c.make()
			out := newCanary(t)
			_, err := layer.Unpack(t.Context(), out.dir, bytes.NewReader(in), opt)
			if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("err = %v (%v); want Invalid with %q", err, errs.KindOf(err), c.text)
			}
			if strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("error has several lines: %q", err)
			}
			out.checkEmpty()
			out.check()
		})
	}
}

func TestUnpackNeutralises(t *testing.T) {
	none, white := layer.Options{}, layer.Options{Whiteouts: true}
	for name, c := range map[string]struct {
		opt   layer.Options
		items []item
		want  []string
	}{
		"absolute name":       {none, []item{reg("/etc/x", "")}, []string{"etc/", "etc/x"}},
		"dots and slashes":    {none, []item{reg("././/a//./x", "")}, []string{"a/", "a/x"}},
		"absolute symlink":    {none, []item{sym("l", "/outside"), reg("l/canary", "x")}, []string{"l -> /outside", "outside/", "outside/canary"}},
		"relative symlink":    {none, []item{sym("l", "../../outside"), reg("l/canary", "x")}, []string{"l -> ../../outside", "outside/", "outside/canary"}},
		"symlink of symlinks": {none, []item{sym("a", "b/.."), sym("b", "/c/../../d"), dir("a/e")}, []string{"a -> b/..", "b -> /c/../../d", "c/", "d/", "e/"}},
		"magic link":          {none, []item{sym("p", "/proc/self/root"), reg("p/x", "")}, []string{"p -> /proc/self/root", "proc/", "proc/self/", "proc/self/root/", "proc/self/root/x"}},
		"replaced mid-way":    {none, []item{dir("d"), reg("d/f", ""), sym("d", "../../outside"), reg("d/canary", "x")}, []string{"d -> ../../outside", "outside/", "outside/canary"}},
		"parent replaced":     {none, []item{reg("l/f", ""), sym("l", "/o"), reg("l/g", ""), dir("l"), reg("l/h", "")}, []string{"l/", "l/h", "o/", "o/g"}},
		"write through":       {none, []item{sym("l", "../../outside/canary"), reg("l", "x")}, []string{"l"}},
		"directory through":   {none, []item{sym("l", "../../outside"), dir("l")}, []string{"l/"}},
		"link to a symlink":   {none, []item{sym("l", "../../canary"), hard("h", "l"), reg("h", "x")}, []string{"h", "l -> ../../canary"}},
		"link to itself":      {none, []item{reg("a", "x"), hard("a", "a"), hard("./a", "/a")}, []string{"a"}},
		"link over its peer":  {none, []item{reg("a", "x"), hard("b", "a"), hard("a", "b")}, []string{"a", "b"}},
		"newline":             {none, []item{reg("a\nb", "")}, []string{"a\nb"}},
		"whiteout as a name":  {none, []item{reg(".wh.a", ""), reg(".wh..wh..opq", "")}, []string{".wh..wh..opq", ".wh.a"}},
		"aufs bookkeeping":    {white, []item{dir(".wh..wh.plnk"), reg(".wh..wh.plnk/1.2", ""), reg(".wh..wh.aufs", "")}, nil},
		"strange devices":     {none, []item{char("sda", 8, 0), char("mem", 1, 1), char("whiteout", 0, 0)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out := newCanary(t)
			if _, err := layer.Unpack(t.Context(), out.dir, bytes.NewReader(archive(t, c.items...)), c.opt); err != nil {
				t.Fatal(err)
			}
			if got := names(t, out.dir); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			out.check()
		})
	}
}

func TestUnpackIgnoresForgedOverlay(t *testing.T) {
	testroot.Require(t)
	out := newCanary(t)
	d := dir("d")
	d.h.PAXRecords = map[string]string{
		"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
		"SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.trusted.x": "x", "SCHILY.xattr.user.ok": "1", "SCHILY.xattr.user.overlay%2Eopaque": "n",
	}
	f := reg("d/f", "")
	f.h.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.metacopy": ""}
	if _, err := layer.Unpack(t.Context(), out.dir, bytes.NewReader(archive(t, d, f)), layer.Options{Whiteouts: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := xattrs(t, out.dir+"/d"), " user.ok=31 user.overlay%2Eopaque=6e"; got != want {
		t.Errorf("attributes of d = %s; want %s", got, want)
	}
	if got := xattrs(t, out.dir+"/d/f"); got != "" {
		t.Errorf("attributes of d/f = %s", got)
	}
}

func TestUnpackWantsAnEmptyDirectory(t *testing.T) {
	out := newCanary(t)
	must(t, os.WriteFile(out.dir+"/mine", nil, 0o600))
	if _, err := layer.Unpack(t.Context(), out.dir, bytes.NewReader(archive(t)), layer.Options{}); !errors.Is(err, errs.Conflict) {
		t.Errorf("err = %v; want Conflict", err)
	}
	if got := names(t, out.dir); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("left %q", got)
	}
	if _, err := layer.Unpack(t.Context(), out.dir+"/no", bytes.NewReader(archive(t)), layer.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v; want not exist", err)
	}
}

// A failing input is the input's failure, not the archive's.
func TestUnpackInputFails(t *testing.T) {
	broken := errors.New("connection reset")
	whole := archive(t, reg("a", strings.Repeat("x", 10_000)))
	for _, in := range [][]byte{whole[:3000], zip(t, whole)[:40], nil} {
		out := newCanary(t)
		r := io.MultiReader(bytes.NewReader(in), errReader{broken})
		_, err := layer.Unpack(t.Context(), out.dir, r, layer.Options{})
		if !errors.Is(err, broken) || errors.Is(err, errs.Invalid) {
			t.Errorf("%d bytes: err = %v (%v); want the reader's", len(in), err, errs.KindOf(err))
		}
		out.checkEmpty()
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
