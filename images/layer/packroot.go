package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// PackRoot writes the root file system top, which others may be changing, as a tar stream. What is mounted into it is an
// empty file or directory. What goes meanwhile is left out, a file that shrinks is filled up with zeros. Owners are as
// those see them whose root is owner.
func PackRoot(ctx context.Context, w io.Writer, top *os.File, owner int) error {
	mount, err := mountOf(int(top.Fd()))
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	p := newPacker(w)
	p.live, p.mount, p.owner = true, mount, owner
	return p.all(ctx, top)
}

// mountOf is the mount that fd is on.
func mountOf(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, errs.E(errs.Conflict, "this needs Linux 5.8, which tells what is mounted where")
	}
	return st.Mnt_id, nil
}

// foreign says whether something else is mounted at fd.
func (p *packer) foreign(fd int) (bool, error) {
	if !p.live {
		return false, nil
	}
	mount, err := mountOf(fd)
	return mount != p.mount, err
}

// open opens a regular file. Of what others change it opens nothing else: to
// open a device may do something.
func (p *packer) open(dir int, base string) (int, error) {
	if !p.live {
		return unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	path, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer closeFd(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.ENOENT
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// gone says whether err is that something went, or became something else, while
// it was looked at, which is only to be expected of what others change.
func (p *packer) gone(err error) bool {
	return p.live && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE))
}

// pad fills up a file that has become shorter.
func (p *packer) pad(ctx context.Context, missing int64) error {
	for ; missing > 0; missing -= min(missing, int64(len(zeros))) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := p.tw.Write(zeros[:min(missing, int64(len(zeros)))]); err != nil {
			return err
		}
	}
	return nil
}

func newPacker(w io.Writer) *packer {
	return &packer{tw: tar.NewWriter(w), first: map[[2]uint64]string{}, buf: make([]byte, copyBuffer)}
}
