package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Pack writes dir as a tar stream that Unpack, docker and tar understand. The same tree gives the same bytes: names are
// sorted and only what Unpack restores is in it. Whiteouts and opaque directories of overlayfs become ".wh." files, hard
// links stay links, sockets are left out. A file whose own name starts with ".wh." cannot be packed: errs.Invalid.
func Pack(ctx context.Context, w io.Writer, dir string) error {
	top, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { _ = top.Close() }() // nothing was written through it
	return newPacker(w).all(ctx, top)
}

func (p *packer) all(ctx context.Context, top *os.File) error {
	err := p.dir(ctx, int(top.Fd()), "")
	if err == nil {
		err = p.tw.Close()
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", top.Name(), err)
	}
	return nil
}

type packer struct {
	live  bool   // it is no layer, and others change it: see PackRoot
	mount uint64 // live: what is on another is left out
	owner int    // is 0 in the archive

	tw    *tar.Writer
	first map[[2]uint64]string // name of each inode with hard links
	buf   []byte
	attrs [2 << 16]byte // the longest list, and the longest value, that the kernel gives
}

// dir writes the directory fd and what it holds.
func (p *packer) dir(ctx context.Context, fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed(name, err)
	}
	h := p.header(&st, name+"/")
	if name == "" {
		h.Name = "./"
	}
	h.Typeflag = tar.TypeDir
	if err := p.writeFd(fd, h); err != nil {
		return failed(name, err)
	}
	if foreign, err := p.foreign(fd); foreign || err != nil {
		return failed(name, err)
	}
	var mark [2]byte
	if n, err := unix.Fgetxattr(fd, opaqueXattr, mark[:]); err == nil && string(mark[:n]) == opaqueValue {
		if err := p.whiteout(path.Join(name, whiteoutOpaque), &st); err != nil {
			return err
		}
	}
	names, err := readNames(fd)
	if p.gone(err) {
		return nil
	}
	if err != nil {
		return failed(name, err)
	}
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.node(ctx, fd, base, path.Join(name, base)); err != nil {
			return err
		}
	}
	return nil
}

func readNames(fd int) ([]string, error) {
	again, err := openDir(fd, ".")
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(again), "directory")
	defer func() { _ = d.Close() }() // nothing was written through it
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// node writes what is called base in the directory fd.
func (p *packer) node(ctx context.Context, fd int, base, name string) error {
	if strings.HasPrefix(base, whiteoutPrefix) && !p.live {
		return errs.E(errs.Invalid, "%q has the name of a whiteout", name)
	}
	st, err := statAt(fd, base)
	if p.gone(err) {
		return nil
	}
	if err != nil {
		return failed(name, err)
	}
	format := st.Mode & unix.S_IFMT
	switch {
	case format == unix.S_IFDIR:
		sub, err := openDir(fd, base)
		if p.gone(err) {
			return nil
		}
		if err != nil {
			return failed(name, err)
		}
		defer closeFd(sub)
		return p.dir(ctx, sub, name)
	case format == unix.S_IFSOCK:
		return nil
	case isWhiteout(st) && p.live: // unpacked it would be one
		return nil
	case isWhiteout(st):
		return p.whiteout(path.Join(path.Dir(name), whiteoutPrefix+base), st)
	}
	return p.leaf(ctx, fd, base, name, st)
}

// leaf writes what is no directory.
func (p *packer) leaf(ctx context.Context, fd int, base, name string, st *unix.Stat_t) error {
	h := p.header(st, name)
	if inode := [2]uint64{st.Dev, st.Ino}; st.Nlink > 1 {
		if target, ok := p.first[inode]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, target
			return failed(name, p.tw.WriteHeader(h))
		}
		p.first[inode] = name
	}
	switch format := st.Mode & unix.S_IFMT; format {
	case unix.S_IFREG:
		return failed(name, p.file(ctx, fd, base, h, st))
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, base, buf)
		if p.gone(err) || p.live && err == unix.EINVAL {
			return nil
		}
		if err != nil {
			return failed(name, err)
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, string(buf[:n]), 0o777
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if format == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return failed(name, p.tw.WriteHeader(h))
}

func (p *packer) header(st *unix.Stat_t, name string) *tar.Header {
	return &tar.Header{
		Format: tar.FormatPAX, Name: name, Mode: int64(st.Mode & 0o7777), Uid: max(int(st.Uid)-p.owner, 0), Gid: max(int(st.Gid)-p.owner, 0),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
}

// whiteout writes the marker that stands for st, with its time only: it has no owner or mode that would mean anything.
func (p *packer) whiteout(name string, st *unix.Stat_t) error {
	return failed(name, p.tw.WriteHeader(&tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(st.Mtim.Unix()),
	}))
}

func (p *packer) file(ctx context.Context, dir int, base string, h *tar.Header, st *unix.Stat_t) error {
	size := st.Size
	fd, err := p.open(dir, base)
	if p.gone(err) {
		delete(p.first, [2]uint64{st.Dev, st.Ino})
		return nil
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer func() { _ = f.Close() }() // nothing was written through it
	foreign, err := p.foreign(fd)
	if err != nil {
		return err
	}
	if foreign {
		size = 0
	}
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := p.writeFd(fd, h); err != nil {
		return err
	}
	n, err := copyTar(ctx, p.tw, io.LimitReader(f, size), p.buf)
	if err == nil && n != size {
		if p.live {
			return p.pad(ctx, size-n)
		}
		err = errs.E(errs.Conflict, "file changed while it was packed")
	}
	return err
}

// writeFd writes the header of what is open as fd, with its extended attributes.
func (p *packer) writeFd(fd int, h *tar.Header) error {
	list, value := p.attrs[:1<<16], p.attrs[1<<16:]
	n, err := unix.Flistxattr(fd, list)
	if err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	for name := range strings.SplitSeq(string(list[:max(n, 0)]), "\x00") {
		if !keptXattr(name) {
			continue
		}
		m, err := unix.Fgetxattr(fd, name, value)
		if err == unix.ENODATA {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+toPax.Replace(name)] = string(value[:m])
	}
	return p.tw.WriteHeader(h)
}
