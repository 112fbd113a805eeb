package layer

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

const paxXattr = "SCHILY.xattr."

// A PAX key cannot hold "=": GNU tar writes it so. (Replacers are never changed.)
var (
	fromPax = strings.NewReplacer("%3D", "=", "%25", "%")
	toPax   = strings.NewReplacer("=", "%3D", "%", "%25")
)

// readTar unpacks a tar stream into t and returns its DiffID.
func readTar(ctx context.Context, t *tree, r io.Reader) (string, error) {
	s := newStream(r, streamLimit(t.opt))
	return s.run(ctx, func(ctx context.Context, r io.Reader) error {
		tr := tar.NewReader(r)
		for first := true; ; first = false {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are looked at by split
				return badTar(err, first)
			}
			if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == 'V' { // defaults for others; the label of a tape
				continue
			}
			e, err := tarEntry(h, t.buf, tr)
			if err != nil {
				return err
			}
			if err := t.add(ctx, e); err != nil {
				return err
			}
		}
	})
}

// streamLimit leaves room for headers: 4 KiB an entry.
func streamLimit(o Options) int64 {
	if o.MaxEntries > (math.MaxInt64-o.MaxBytes-maxTrailer)/4096 {
		return math.MaxInt64
	}
	return o.MaxBytes + o.MaxEntries*4096 + 1<<20
}

func badTar(err error, first bool) error {
	switch {
	case errors.Is(err, tar.ErrHeader) && first:
		return errs.E(errs.Invalid, "archive is not tar, nor tar compressed with gzip, zstd, xz or bzip2")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errs.E(errs.Invalid, "archive is cut short: %w", err)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return errs.E(errs.Invalid, "%w", err)
	}
	return err
}

var tarFormats = map[byte]uint32{
	tar.TypeReg: unix.S_IFREG, '\x00': unix.S_IFREG, tar.TypeCont: unix.S_IFREG, tar.TypeGNUSparse: unix.S_IFREG,
	tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO,
	tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeLink: 0,
}

func tarEntry(h *tar.Header, buf []byte, content io.Reader) (entry, error) {
	format, ok := tarFormats[h.Typeflag]
	if !ok {
		return entry{}, errs.E(errs.Invalid, "entry %q: kind %q is not supported", h.Name, h.Typeflag)
	}
	e := entry{
		name: h.Name, mode: format | uint32(h.Mode&0o7777), uid: int64(h.Uid), gid: int64(h.Gid), mtime: h.ModTime,
		target: h.Linkname, major: h.Devmajor, minor: h.Devminor,
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, paxXattr); ok && keptXattr(fromPax.Replace(name)) {
			if e.xattrs == nil {
				e.xattrs = map[string]string{}
			}
			e.xattrs[fromPax.Replace(name)] = value
		}
		e.sparse = e.sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	if format != unix.S_IFREG {
		return e, nil
	}
	e.size, e.sparse = h.Size, e.sparse || h.Typeflag == tar.TypeGNUSparse
	e.copy = func(ctx context.Context, w io.Writer) (int64, error) { return copyTar(ctx, w, content, buf) }
	return e, nil
}

// copyTar is io.CopyBuffer that stops with ctx, also in the holes of a sparse file, which cost no input.
func copyTar(ctx context.Context, w io.Writer, r io.Reader, buf []byte) (done int64, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			done += int64(m)
			if werr != nil {
				return done, werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, badTar(err, false)
		}
	}
}
