package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/buoy-edge/buoy/images/layer/xz"
	"github.com/buoy-edge/buoy/internal/errs"
)

// form is what an archive file was recognised as.
type form int

const (
	formRootfs form = iota + 1
	formSquashfs
	formDocker
	formOCI
)

// maxWindow bounds the memory a compressed archive may ask for; the same as in package layer.
const maxWindow = 128 << 20

// plainTar undoes compression, which it tells by the first bytes; packed says whether there was any.
func plainTar(r io.Reader) (_ io.Reader, closer func(), packed bool, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, false, err
	}
	nothing := func() {}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		return z, nothing, true, err
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, true, err
		}
		return z, z.Close, true, nil
	case bytes.HasPrefix(head, []byte(xz.Magic)):
		return xz.NewReader(in, maxWindow), nothing, true, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(in), nothing, true, nil
	}
	return in, nothing, false, nil
}

// imageEntry is how the entries of image archives are called, by docker, podman, buildkit, skopeo, kaniko and crane.
var imageEntry = regexp.MustCompile(`^(blobs(/.*)?|oci-layout|index\.json|manifest\.json|repositories|(sha256:)?[0-9a-f]{64}(/.*|\.json|\.tar(\.gz)?)?)$`)

// recognise tells what kind of archive f is by its content, and whether it is compressed. An image archive that does not
// look like one at its first entry is a root filesystem: only image archives are read twice.
func recognise(f io.ReadSeeker) (form, bool, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, false, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, false, errs.E(errs.Invalid, "file is too short for an archive")
	}
	if string(head) == "hsqs" {
		return formSquashfs, false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, false, err
	}
	r, closer, packed, err := plainTar(f)
	if err != nil {
		return 0, packed, errs.E(errs.Invalid, "archive cannot be read: %w", err)
	}
	defer closer()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return formRootfs, packed, nil // empty, which layer will say
		}
		if err != nil {
			return 0, packed, errs.E(errs.Invalid, "file is neither a tar archive (plain, gzip, zstd, xz, bzip2) nor squashfs: %w", err)
		}
		name := path.Clean(h.Name)
		if name == "." || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if !imageEntry.MatchString(name) {
			return formRootfs, packed, nil
		}
		return formDocker, packed, nil // or OCI: its index tells
	}
}

// tarFiles is an uncompressed tar of regular files, read in place.
type tarFiles struct {
	f     io.ReaderAt
	spans map[string]span
}

type span struct {
	off, size int64
	link      string
}

// indexTar notes where each file is. Entries are found by name only; nothing is written.
func indexTar(ctx context.Context, f io.ReaderAt, n int64) (*tarFiles, error) {
	in := io.NewSectionReader(f, 0, n)
	t := tar.NewReader(in)
	tf := &tarFiles{f: f, spans: map[string]span{}}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return tf, nil
		}
		if err != nil {
			return nil, errs.E(errs.Invalid, "archive: %w", err)
		}
		if len(tf.spans) > 100_000 { // 500 layers are the kernel's limit
			return nil, errs.E(errs.Invalid, "archive has too many entries for an image")
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			off, err := in.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			tf.spans[name] = span{off: off, size: h.Size}
		case tar.TypeSymlink: // older docker save links equal layers
			tf.spans[name] = span{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			tf.spans[name] = span{link: path.Clean(h.Linkname)}
		}
	}
}

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean(name)
	for range 8 {
		s, ok := t.spans[name]
		if !ok {
			return nil, 0, fmt.Errorf("%s in the archive: %w", name, fs.ErrNotExist)
		}
		if s.link == "" {
			return io.NopCloser(io.NewSectionReader(t.f, s.off, s.size)), s.size, nil
		}
		name = s.link
	}
	return nil, 0, fmt.Errorf("%s in the archive is a link to a link without end", name)
}

func (t *tarFiles) has(name string) bool { _, ok := t.spans[name]; return ok }

// unpacked is f without its compression, in a nameless file in tmp.
func (s *Store) unpacked(ctx context.Context, f io.ReadSeeker) (*os.File, int64, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	r, closer, _, err := plainTar(&checkedReader{stop: stopWith(ctx), r: f, sink: io.Discard, step: func(int64) {}})
	if err != nil {
		return nil, 0, err
	}
	defer closer()
	tmp, err := os.CreateTemp(s.tmpDir(), "archive-*")
	if err != nil {
		return nil, 0, err
	}
	err = os.Remove(tmp.Name())
	var n int64
	if err == nil {
		n, err = io.Copy(tmp, io.LimitReader(r, s.tune.maxURL))
	}
	if err == nil && n == s.tune.maxURL {
		err = errs.E(errs.Invalid, "archive is larger than %s uncompressed", size(n))
	}
	if err != nil {
		return nil, 0, errors.Join(err, tmp.Close())
	}
	return tmp, n, nil
}
