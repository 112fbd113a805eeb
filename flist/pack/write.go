package pack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Write puts l into a file, in the form of its era. The same list gives the same bytes. Readers see the old file or the new
// one.
func Write(ctx context.Context, file string, l *flist.List) error {
	var b []byte
	var err error
	switch l.Era {
	case flist.EraC:
		b, err = encodeC(ctx, l)
	case flist.EraD:
		b, err = encodeD(ctx, l)
	default:
		return errs.E(errs.Invalid, "write %s: flists of era %s cannot be written", file, l.Era)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return atomicfile.Write(file, b, 0o644)
}

const schemaC = `CREATE TABLE entries (key VARCHAR(64) PRIMARY KEY, value BLOB);
CREATE TABLE metadata (key VARCHAR(64) PRIMARY KEY, value TEXT);`

// encodeC is the archive of era C: its database, and the stores in the form that 0-fs reads.
func encodeC(ctx context.Context, l *flist.List) ([]byte, error) {
	db, err := databaseC(ctx, l)
	if err != nil {
		return nil, err
	}
	var router []byte
	if !slices.ContainsFunc(routesOf(l.Meta), foreign) { // with others in it, 0-fs would refuse to start
		if router, err = routerYAML(l.Meta); err != nil {
			return nil, fmt.Errorf("write router.yaml: %w", err)
		}
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out) // its header has neither a name nor a time
	t := tar.NewWriter(z)
	files := []struct {
		name    string
		content []byte
	}{{"./flistdb.sqlite3", db}, {"./router.yaml", router}}
	err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, Format: tar.FormatGNU})
	for _, f := range files {
		if err != nil || len(f.content) == 0 {
			continue
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Format: tar.FormatGNU}
		if err = t.WriteHeader(&h); err == nil {
			_, err = t.Write(f.content)
		}
	}
	if err := errors.Join(err, t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func databaseC(ctx context.Context, l *flist.List) (_ []byte, err error) {
	records, err := recordsC(ctx, newEncoder(l))
	if err != nil {
		return nil, err
	}
	d, err := newDatabase(ctx, schemaC)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	err = d.insert(ctx, "INSERT INTO entries VALUES (?, ?)", func(add func(...any) error) error {
		for _, key := range slices.Sorted(maps.Keys(records)) {
			if err := add(key, records[key]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	texts, err := metadataC(l.Meta)
	if err != nil {
		return nil, err
	}
	if err := insertTexts(ctx, d, "metadata", texts); err != nil {
		return nil, err
	}
	return d.bytes(ctx, "")
}

func insertTexts(ctx context.Context, d *database, table string, texts map[string]string) error {
	return d.insert(ctx, "INSERT INTO "+table+" VALUES (?, ?)", func(add func(...any) error) error {
		for _, key := range slices.Sorted(maps.Keys(texts)) {
			if err := add(key, texts[key]); err != nil {
				return err
			}
		}
		return nil
	})
}

func newEncoder(l *flist.List) *encoder {
	return &encoder{l: l, user: idName, group: idName, acis: map[string][]byte{}}
}

// recordsC are all records of the list, by key.
func recordsC(ctx context.Context, e *encoder) (map[string][]byte, error) {
	records := map[string][]byte{}
	paths := map[uint32]string{0: ""} // of the directories whose turn is still to come
	for i := range e.l.Nodes {
		n := &e.l.Nodes[i]
		if n.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		path := paths[uint32(i)]
		delete(paths, uint32(i))
		for k := n.First; k < n.First+n.Count; k++ {
			if kid := &e.l.Nodes[k]; kid.Mode&unix.S_IFMT == unix.S_IFDIR {
				paths[k] = join(path, kid.Name)
			}
		}
		record, err := e.dir(i, path)
		if err != nil {
			return nil, fmt.Errorf("directory %q: %w", "/"+path, err)
		}
		records[dirKey(path)] = record
	}
	maps.Copy(records, e.acis)
	return records, nil
}

const schemaD = `CREATE TABLE inode (ino INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER, name VARCHAR(255), size INTEGER,
	uid INTEGER, gid INTEGER, mode INTEGER, rdev INTEGER, ctime INTEGER, mtime INTEGER);
CREATE TABLE extra (ino INTEGER PRIMARY KEY, data VARCHAR(4096));
CREATE TABLE block (ino INTEGER, id VARCHAR(32), key VARCHAR(32));
CREATE TABLE tag (key VARCHAR(10) PRIMARY KEY, value VARCHAR(255));
CREATE TABLE route (start integer, end integer, url VARCHAR(2048));`

const indexesD = `CREATE INDEX parents ON inode (parent);
CREATE INDEX names ON inode (name);
CREATE INDEX block_ino ON block (ino);`

// encodeD is the SQLite file of era D.
func encodeD(ctx context.Context, l *flist.List) (_ []byte, err error) {
	d, err := newDatabase(ctx, schemaD)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	err = d.insert(ctx, "INSERT INTO inode VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", func(add func(...any) error) error {
		for i := range l.Nodes {
			n := &l.Nodes[i]
			name, parent, size := n.Name, int64(n.Parent)+1, n.Size
			if i == 0 {
				name, parent = "/", 0
			}
			if !utf8.ValidString(name) || !utf8.ValidString(n.Target) {
				return errs.E(errs.Invalid, "file %q: its name or target is not UTF-8, which .fl cannot hold; .flist can", name)
			}
			if n.Mode&unix.S_IFMT == unix.S_IFDIR {
				size = dirSize
			}
			if err := add(i+1, parent, name, size, n.UID, n.GID, n.Mode, int64(n.Rdev), n.CTime, n.MTime); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = insertContent(ctx, d, l)
	}
	if err == nil {
		err = insertMeta(ctx, d, l.Meta)
	}
	if err != nil {
		return nil, err
	}
	return d.bytes(ctx, indexesD)
}

// insertContent says what links point to and files consist of.
func insertContent(ctx context.Context, d *database, l *flist.List) error {
	err := d.insert(ctx, "INSERT INTO extra VALUES (?, ?)", func(add func(...any) error) error {
		for i := range l.Nodes {
			if target := l.Nodes[i].Target; target != "" {
				if err := add(i+1, []byte(target)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.insert(ctx, "INSERT INTO block VALUES (?, ?, ?)", func(add func(...any) error) error {
		for i := range l.Nodes {
			for _, ref := range l.Nodes[i].Chunks {
				if err := add(i+1, []byte(ref.ID), []byte(ref.Key)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func insertMeta(ctx context.Context, d *database, m flist.Meta) error {
	tags, err := tagsD(m)
	if err != nil {
		return err
	}
	if err := insertTexts(ctx, d, "tag", tags); err != nil {
		return err
	}
	return d.insert(ctx, "INSERT INTO route VALUES (?, ?, ?)", func(add func(...any) error) error {
		for _, r := range routesOf(m) {
			from, to, err := firstBytes(r)
			if err != nil {
				return err
			}
			if err := add(from, to, strings.TrimSpace(r.URL)); err != nil {
				return err
			}
		}
		return nil
	})
}
