package mount

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/errs"
)

// layer is a directory that has all files of a list.
type layer struct{ dir *os.File }

func openLayer(path string) (*layer, error) {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errs.E(errs.NotFound, "open the unpacked flist: %w", err)
	}
	return &layer{dir}, nil
}

// open is a node's file, if it is one of the right size; what somebody has done to the directory must not lead elsewhere.
func (l *layer) open(list *flist.List, node uint32) (*os.File, error) {
	fd, err := unix.Openat2(int(l.dir.Fd()), list.Path(int(node)), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_NOATIME,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != list.Nodes[node].Size {
		return nil, errors.Join(errors.New("it is another file"), err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), list.Nodes[node].Name), nil
}

func (l *layer) readAt(list *flist.List, node uint32, p []byte, off int64) (int, error) {
	f, err := l.open(list, node)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}
