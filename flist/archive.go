package flist

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	maxRouter   = 256 << 10
	minUnpacked = 64 << 20 // bytes that every archive may unpack to
	maxRatio    = 64       // a longer one may be so many times as long as it is packed; genuine ones are below 10
)

// openArchive reads a .flist of era C: an archive of a database and perhaps a router.yaml. Other members are skipped, and
// nothing is written to a disk.
func openArchive(ctx context.Context, packed io.Reader, size int64) (*List, error) {
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, errs.E(errs.Invalid, "it is broken gzip: %w", err)
	}
	limit := min(max(minUnpacked, maxRatio*size), maxDatabase)
	members, err := readMembers(ctx, &bounded{ctx, z, limit}, limit)
	if err != nil {
		return nil, err
	}
	l, err := openDatabase(ctx, members.database, false)
	if err != nil || len(l.Meta.Routes) > 0 { // those of our own packers
		return l, err
	}
	if err := l.Meta.setRouter(members.router); err != nil {
		return nil, err
	}
	return l, nil
}

// members are the files of an archive that count.
type members struct {
	database, router []byte
}

// readMembers reads to the very end, where the checksum is.
func readMembers(ctx context.Context, r io.Reader, limit int64) (m members, err error) {
	isEraB := false
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if _, err = io.Copy(io.Discard, r); err != nil {
				return m, broken(ctx, err)
			}
			return m, m.check(isEraB)
		}
		if err != nil {
			return m, broken(ctx, err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		var into *[]byte
		most := limit
		switch name {
		case "flistdb.sqlite3":
			into = &m.database
		case "router.yaml":
			into, most = &m.router, maxRouter
		}
		isEraB = isEraB || strings.HasPrefix(path.Base(name), "MANIFEST-") || strings.HasSuffix(name, ".sst")
		if into == nil {
			continue
		}
		if *into != nil || h.Typeflag != tar.TypeReg || h.Size > most {
			return m, errs.E(errs.Invalid, "its archive has %s twice, or not as a file of at most %d bytes", name, most)
		}
		if *into, err = readMember(t, h.Size); err != nil {
			return m, broken(ctx, err)
		}
	}
}

func (m members) check(isEraB bool) error {
	switch {
	case m.database != nil:
		return nil
	case isEraB:
		return errs.E(errs.Invalid, "it is of era B (RocksDB, 2017 and 2018), which is not read; pack it again")
	}
	return errs.E(errs.Invalid, "its archive has no flistdb.sqlite3")
}

// readMember reads a file that claims to have that size: what is not there is not made room for.
func readMember(r io.Reader, size int64) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, min(size, 16<<20)+bytes.MinRead))
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errs.E(errs.Invalid, "its archive is broken: %w", err)
}

// bounded ends with an error when more than left bytes come, or when ctx ends.
type bounded struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no other way
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, b.ctx.Err()
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("it unpacks to more than any flist does")
	}
	return n, err
}
