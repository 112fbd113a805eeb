// Package layer unpacks one image layer or root filesystem archive into a directory in the form overlayfs wants, and packs
// it again. Archives come from strangers: nothing outside the directory is ever touched, whatever they hold.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Options say how an archive is read. The zero value suits a root filesystem archive.
type Options struct {
	// Whiteouts: names that start with ".wh." remove what lower layers have, as in OCI layers. Without it they are
	// ordinary names.
	Whiteouts bool
	// MaxBytes refuses archives whose files are larger together, holes included. 0 is 64 GiB.
	MaxBytes int64
	// MaxEntries refuses archives with more entries. 0 is 2,000,000.
	MaxEntries int64
	// Devices makes every device node there is, for archives that are trusted. Without it only those that any container
	// may use are made (null zero full random urandom tty console ptmx) and the others are left out and counted in
	// Result.Skipped: archives of whole machines have /dev/sda and the like, and containers get a /dev of their own.
	// A character device 0:0, which overlayfs takes for a whiteout, is never made.
	Devices bool
}

// Defaults of Options. The largest common images (machine learning with CUDA) unpack to about 25 GiB and 300,000 entries.
const (
	DefaultMaxBytes   = 64 << 30
	DefaultMaxEntries = 2_000_000
)

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	return o
}

// Result is what was unpacked.
type Result struct {
	DiffID  string // "sha256:..." of the uncompressed tar stream, or of the squashfs image
	Bytes   int64  // of all regular files, holes included, hard links once
	Entries int64
	Skipped int64 // of Entries: devices and sockets that were left out
	// Opaque: the root itself is opaque, nothing of the lower layers shows. Overlayfs ignores the mark on the root of a
	// layer, so whoever mounts it has to leave the lower layers out.
	Opaque bool
}

// Unpack reads a tar stream, plain or compressed with gzip, zstd, xz or bzip2, into dir, which must exist and be empty.
// It reads r to its end. When it fails or ctx ends, dir is empty again and, if r is an io.Closer, r was closed, so that a
// blocked Read does not hold up the return; after success r is as the caller gave it.
//
// What is wrong with the archive is errs.Invalid; no room in the file system is errs.Unavailable. What was written is
// durable only after Sync.
func Unpack(ctx context.Context, dir string, r io.Reader, opt Options) (Result, error) {
	return unpack(ctx, dir, opt, func(ctx context.Context, t *tree) (string, error) {
		return readTar(ctx, t, r)
	})
}

// UnpackSquashfs is Unpack for the squashfs image in the first size bytes of r.
func UnpackSquashfs(ctx context.Context, dir string, r io.ReaderAt, size int64, opt Options) (Result, error) {
	return unpack(ctx, dir, opt, func(ctx context.Context, t *tree) (string, error) {
		return readSquashfs(ctx, t, r, size)
	})
}

func unpack(ctx context.Context, dir string, opt Options,
	read func(context.Context, *tree) (string, error),
) (_ Result, err error) {
	t, err := openTree(dir, opt.withDefaults())
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	id, err := read(ctx, t)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return Result{}, errors.Join(fmt.Errorf("unpack: %w", roomless(err)), t.empty())
	}
	t.result.DiffID = id
	return t.result, nil
}

// Sync makes everything in the file system of dir durable: one syncfs instead of an fsync for each file.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync layer: %w", err)
	}
	defer func() { _ = d.Close() }() // nothing was written through it
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync layer %s: %w", dir, roomless(err))
	}
	return nil
}

// roomless gives a full file system its kind.
func roomless(err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, full) && !errors.Is(err, errs.Unavailable) {
			return errs.E(errs.Unavailable, "%w", err)
		}
	}
	return err
}
