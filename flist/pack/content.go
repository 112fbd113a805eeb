package pack

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/errs"
)

// job is a piece of a file to be written: one of its chunks or, if the file is not open yet, all of it, which is a chunk or
// nothing.
type job struct {
	in   *folder
	node int
	file *target // nil: to be made
	i    int     // chunk
}

// target is a file of several chunks, open for writing.
type target struct {
	fd   int
	left counter
}

// file hands out the pieces of a file.
func (u *unpacker) file(ctx context.Context, in *folder, i int) error {
	n := &u.l.Nodes[i]
	if n.Missing() {
		return errs.E(errs.Invalid, "the flist has not its content: whoever packed it was interrupted")
	}
	if len(n.Chunks) <= 1 {
		return u.send(ctx, job{in: in.hold(), node: i})
	}
	fd, err := create(in.fd, n.Name)
	if err != nil {
		return err
	}
	f := &target{fd: fd}
	f.left.set(len(n.Chunks))
	for k := range n.Chunks {
		u.jobs <- job{in: in.hold(), node: i, file: f, i: k} // also when ctx has ended: the last one closes the file
	}
	return nil
}

func (u *unpacker) send(ctx context.Context, j job) error {
	select {
	case u.jobs <- j:
		return nil
	case <-ctx.Done():
		u.release(ctx, j.in)
		return ctx.Err()
	}
}

func create(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// work does a job. What it reads a chunk into is buf.
func (u *unpacker) work(ctx context.Context, j job, buf []byte) {
	defer u.release(ctx, j.in)
	n := &u.l.Nodes[j.node]
	if j.file == nil {
		if ctx.Err() == nil {
			u.fail(u.named(j.node, u.small(ctx, j.in.fd, n, buf)))
		}
		return
	}
	if ctx.Err() == nil {
		u.fail(u.named(j.node, u.copy(ctx, j.file.fd, n, j.i, buf)))
	}
	if j.file.left.last() {
		if ctx.Err() == nil {
			u.fail(u.named(j.node, u.dress(j.file.fd, n)))
		}
		u.fail(unix.Close(j.file.fd))
	}
}

// linkFrom is the size from which a file shares its inode with the cache. Small ones save little, and programs count links:
// cron takes no crontab that has two.
const linkFrom = 64 << 10

// small makes a file of one chunk or none.
func (u *unpacker) small(ctx context.Context, dir int, n *flist.Node, buf []byte) error {
	if len(n.Chunks) == 1 && n.Size >= linkFrom && u.src == nil && u.opt.Link {
		if done, err := u.link(ctx, dir, n); done || err != nil {
			return err
		}
	}
	fd, err := create(dir, n.Name)
	if err != nil {
		return err
	}
	if len(n.Chunks) == 1 {
		err = u.copy(ctx, fd, n, 0, buf)
	}
	if err == nil {
		err = u.dress(fd, n)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}

// copy writes chunk i into the file.
func (u *unpacker) copy(ctx context.Context, fd int, n *flist.Node, i int, buf []byte) error {
	size, at := n.ChunkLen(i), int64(i)*int64(n.ChunkSize)
	if u.src != nil {
		plain, err := u.src.Fetch(ctx, n.Chunks[i], size)
		if err == nil {
			err = u.write(fd, plain, at)
		}
		return err
	}
	f, err := u.v.Open(ctx, n.Chunks[i], size)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if copyRange(fd, f, at, size) {
		u.count(size)
		return nil
	}
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(size)), buf[:size]); err != nil {
		return fmt.Errorf("read chunk: %w", err)
	}
	return u.write(fd, buf[:size], at)
}

// copyRange copies within the kernel, which shares the blocks where the file system can. If it did not do all of it, the
// same can be written again.
func copyRange(to int, from *os.File, at int64, size int) bool {
	in := int64(0)
	for left := size; left > 0; {
		n, err := unix.CopyFileRange(int(from.Fd()), &in, to, &at, left, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return false
		}
		left -= n
	}
	return true
}

func (u *unpacker) write(fd int, p []byte, at int64) error {
	for done := 0; done < len(p); {
		n, err := unix.Pwrite(fd, p[done:], at+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		done += n
	}
	u.count(len(p))
	return nil
}

func (u *unpacker) count(n int) {
	u.bytes.Add(int64(n))
	if u.opt.Progress != nil {
		u.opt.Progress(int64(n))
	}
}

// link makes the file another name of the view's file; false if that is another file system's, some other file has it
// with other attributes, or some file of this tree has it already. The lock is against others who unpack from the same cache.
func (u *unpacker) link(ctx context.Context, dir int, n *flist.Node) (bool, error) {
	size := n.ChunkLen(0)
	f, err := u.v.Open(ctx, n.Chunks[0], size)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read; it also ends the lock
	fd := int(f.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("lock chunk: %w", err)
	}
	var st, here unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if err := unix.Fstat(dir, &here); err != nil {
		return false, err
	}
	switch {
	case st.Dev != here.Dev || st.Nlink == 0:
		return false, nil
	case st.Nlink == 1: // the cache alone has it
		if err := u.dress(fd, n); err != nil {
			return false, err
		}
	case st.Uid != n.UID || st.Gid != n.GID || st.Mode&0o7777 != u.mode(n) || st.Mtim != (unix.Timespec{Sec: n.MTime}):
		return false, nil
	}
	if _, twice := u.inodes.LoadOrStore(st.Ino, true); twice { // "cp a b" would take two files for one
		return false, nil
	}
	err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), dir, n.Name, unix.AT_SYMLINK_FOLLOW)
	if err != nil { // another mount, too many links, just evicted: then it is copied
		return false, nil
	}
	u.count(size)
	u.linked.Add(int64(size))
	return true, nil
}
