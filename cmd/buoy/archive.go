package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// unpack makes what an archive has below root, and nothing elsewhere, whatever
// it says. Files are ours; what is neither file, directory nor link is told.
func unpack(root *os.Root, r io.Reader, tell func(string)) error {
	modes := map[string]fs.FileMode{} // of directories, which must be open until they are full
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(name, 0o700); err != nil {
				return err
			}
			modes[name] = h.FileInfo().Mode().Perm()
			continue
		}
		if err := unpackOne(root, name, h, archive, tell); err != nil {
			return err
		}
	}
	var all error
	for name, mode := range modes {
		all = errors.Join(all, root.Chmod(name, mode))
	}
	return all
}

func unpackOne(root *os.Root, name string, h *tar.Header, content io.Reader, tell func(string)) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(h.Linkname), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, h.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	tell(name + " is left out: it is no file, directory or link")
	return nil
}

// pack writes dir, called name, as an archive whose files are root's.
func pack(w io.Writer, dir, name string, tell func(string)) error {
	archive := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		return packOne(archive, file, path.Join(name, filepath.ToSlash(below)), d, tell)
	})
	return errors.Join(err, archive.Close())
}

func packOne(archive *tar.Writer, file, name string, d fs.DirEntry, tell func(string)) error {
	st, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	case !st.IsDir() && !st.Mode().IsRegular():
		tell(file + " is left out: it is no file, directory or link")
		return nil
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = name, 0, 0, "", ""
	if err := archive.WriteHeader(h); err != nil || !st.Mode().IsRegular() {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(archive, in); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}
