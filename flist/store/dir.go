package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// dir keeps a chunk in a file: ab/abcd…, or abcd… as old ones do.
type dir struct {
	path  string
	made  sync.Map // directories that are known to exist
	wrote atomic.Bool
	reads chan struct{} // a place for each read under way
}

func openDir(u *url.URL) (*dir, error) {
	if u.Host != "" || !filepath.IsAbs(u.Path) {
		return nil, errs.E(errs.Invalid, "a directory has three slashes: %s:///path", u.Scheme)
	}
	return &dir{path: filepath.Clean(u.Path), reads: make(chan struct{}, maxReads)}, nil
}

func (d *dir) file(id chunk.ID) string { return filepath.Join(d.path, id.String()[:2], id.String()) }

// maxReads is how many reads may hang: a thread each, of a file system that is far away and does not answer.
const maxReads = 64

// get does not wait longer than ctx for a disk that hangs, though the read itself cannot be ended.
func (d *dir) get(ctx context.Context, id chunk.ID, c call) ([]byte, error) {
	select {
	case d.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var stored []byte
	var err error
	done := make(chan struct{})
	go func() {
		stored, err = d.read(id, c)
		<-d.reads
		close(done)
	}()
	select {
	case <-done:
		return stored, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *dir) read(id chunk.ID, c call) ([]byte, error) {
	stored, err := readFile(d.file(id), c)
	if errors.Is(err, fs.ErrNotExist) {
		stored, err = readFile(filepath.Join(d.path, id.String()), c)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return stored, err
	}
	if _, err := os.Stat(d.path); err != nil { // a disk that is not mounted has no opinion on chunks
		return nil, err
	}
	return nil, errs.E(errs.NotFound, "it is not there")
}

// readFile reads a file that may be anything: the URL can be a stranger's.
func readFile(path string, c call) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errs.E(errs.Invalid, "%s is not a file", path)
	}
	if err := c.tooLong(st.Size()); err != nil {
		return nil, err
	}
	stored := make([]byte, st.Size())
	if _, err := io.ReadFull(f, stored); err != nil {
		return nil, errs.E(errs.Invalid, "%s shrinks: %w", path, err)
	}
	return stored, nil
}

// put writes beside the name and renames. It does not sync: close does, once for all.
func (d *dir) put(_ context.Context, id chunk.ID, stored []byte, c call) error {
	d.wrote.Store(true) // what is there already may not be durable either
	path := d.file(id)
	if old, err := readFile(path, c); err == nil && bytes.Equal(old, stored) {
		return nil
	}
	parent := filepath.Dir(path)
	if _, ok := d.made.Load(parent); !ok {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return err
		}
		d.made.Store(parent, true)
	}
	f, err := os.CreateTemp(parent, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(stored)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// close makes what was put durable.
func (d *dir) close() error {
	if !d.wrote.Load() {
		return nil
	}
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}
