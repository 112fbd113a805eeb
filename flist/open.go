package flist

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// maxDatabase is how long an flist's database may be. The greatest that is known has 10 MB, for 30,370 files.
const maxDatabase = 1 << 30

// Open reads an flist. Its owners and configuration may be in files of the image, whose contents it does not fetch: see
// ResolveOwners and LoadConfig. errs.Invalid: it is no flist that can be read.
func Open(ctx context.Context, file string) (*List, error) {
	l, err := open(ctx, file)
	if err != nil {
		return nil, errs.E(errs.KindOf(err), "flist %s: %w", file, err)
	}
	return l, nil
}

func open(ctx context.Context, file string) (*List, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0) // not blocked by a fifo
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errs.E(errs.Invalid, "it is no file")
	}
	if st.Size() > maxDatabase {
		return nil, errs.E(errs.Invalid, "it is %d bytes long, more than %d", st.Size(), maxDatabase)
	}
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && n < len(head) && err != io.EOF { //nolint:errorlint // ReadAt's EOF is bare
		return nil, err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return openArchive(ctx, f, st.Size())
	case bytes.HasPrefix(head, magicSQLite):
		content := make([]byte, st.Size())
		if _, err := io.ReadFull(f, content); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		return openDatabase(ctx, content, true)
	case isEraA(head):
		return nil, errs.E(errs.Invalid, "it is of era A (a text file, 2015 and 2016), which is not read; pack it again")
	}
	return nil, errs.E(errs.Invalid, "it is neither a .flist (tar.gz) nor a .fl (SQLite)")
}

// isEraA says whether the first line has the ten fields of a line of era A.
func isEraA(head []byte) bool {
	line, _, _ := bytes.Cut(head, []byte{'\n'})
	return bytes.Count(line, []byte{'|'}) == 9 && !bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' })
}

// openDatabase reads a database: of era C, or, if it came bare, of either.
func openDatabase(ctx context.Context, content []byte, bare bool) (_ *List, err error) {
	d, err := openSQLite(ctx, content)
	if err != nil {
		return nil, err
	}
	defer func() {
		if x := d.close(); err == nil {
			err = x
		}
	}()
	switch {
	case d.tables["entries"]:
		return readC(ctx, d)
	case d.tables["inode"] && bare:
		return readD(ctx, d)
	}
	return nil, errs.E(errs.Invalid, "its database is not that of an flist")
}
