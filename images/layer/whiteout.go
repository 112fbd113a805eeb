package layer

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// How OCI layers say that something of a lower layer is gone (image-spec, layer.md). Other names that start with
// ".wh..wh." are bookkeeping of AUFS that old dockers left in layers; like docker we leave them out.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// The overlayfs forms: a character device 0:0, and this attribute on a directory.
const (
	opaqueXattr = "trusted.overlay.opaque"
	opaqueValue = "y"
)

type whiteoutKind int

const (
	notWhiteout whiteoutKind = iota
	whiteout                 // of the name that classify returns
	opaque                   // of the directory
	ignored                  // AUFS bookkeeping
)

// classify says what an entry means as a whiteout, and the name it removes.
func classify(name string, parts []string) (whiteoutKind, string, error) {
	for i, part := range parts {
		rest, ok := strings.CutPrefix(part, whiteoutPrefix)
		last := i == len(parts)-1
		switch {
		case !ok:
			continue
		case last && part == whiteoutOpaque:
			return opaque, "", nil
		case strings.HasPrefix(part, whiteoutMeta):
			return ignored, "", nil
		case !last:
			return 0, "", errs.E(errs.Invalid, "entry %q: %q is a whiteout, not a directory", name, part)
		case rest == "" || rest == "." || rest == "..":
			return 0, "", errs.E(errs.Invalid, "entry %q: whiteout of %q", name, rest)
		default:
			return whiteout, rest, nil
		}
	}
	return notWhiteout, "", nil
}

// whiteoutEntry carries out an entry that classify knows.
func (t *tree) whiteoutEntry(e entry, kind whiteoutKind, dir []string, gone string) error {
	if kind == ignored {
		t.result.Skipped++
		return nil
	}
	fd, real, err := t.parent(e.name, dir)
	if err != nil {
		return err
	}
	if kind == opaque {
		if real == "" {
			t.result.Opaque = true
		}
		return markOpaque(e.name, fd)
	}
	st, err := statAt(fd, gone)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		// A whiteout is about lower layers only, and this layer has the directory already: it replaces the lower one.
		d, err := openDir(fd, gone)
		if err != nil {
			return failed(e.name, err)
		}
		defer closeFd(d)
		return markOpaque(e.name, d)
	case err == nil:
		return nil // what is there hides the lower one as well
	case !errors.Is(err, unix.ENOENT):
		return failed(e.name, err)
	}
	if err := unix.Mknodat(fd, gone, unix.S_IFCHR, 0); err != nil {
		return failed(e.name, err)
	}
	return dress(fd, gone, entry{name: e.name, mode: unix.S_IFCHR, mtime: e.mtime})
}

func markOpaque(name string, fd int) error {
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte(opaqueValue), 0); err != nil {
		return failed(name, err)
	}
	return nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
