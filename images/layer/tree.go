package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// tree is the directory being filled. Only the archive's entries change it meanwhile; names are still never followed by
// the kernel: a parent is opened by a path that may hold no symbolic link, and links inside are followed by walk, which
// knows no way above the root.
type tree struct {
	opt    Options
	result Result
	root   *os.Root // removes things
	top    *os.File // the same directory, for the calls os.Root lacks

	rootEntry *entry             // what the archive says about the root itself; set last
	dirs      map[string]dirTime // by path without links
	names     int64              // bytes of names in memory

	// The parent of the last entry: archives come directory by directory.
	parentName, parentReal string
	parentFd               int // -1 if there is none
	buf                    []byte
}

// dirTime is set when everything is unpacked, if the directory is still the same one.
type dirTime struct {
	inode uint64
	mtime time.Time
}

// maxNames bounds the memory for dirs. 300,000 directories of 100 bytes are 50 MB of it.
const maxNames = 256 << 20

func openTree(dir string, opt Options) (_ *tree, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack into %s: %w", dir, err)
	}
	t := &tree{opt: opt, root: root, dirs: map[string]dirTime{}, parentFd: -1, buf: make([]byte, copyBuffer)}
	if t.top, err = root.Open("."); err != nil {
		return nil, errors.Join(fmt.Errorf("unpack into %s: %w", dir, err), root.Close())
	}
	if _, err := t.top.Readdirnames(1); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errs.E(errs.Conflict, "directory is not empty")
		}
		return nil, errors.Join(fmt.Errorf("unpack into %s: %w", dir, err), t.close())
	}
	return t, nil
}

func (t *tree) close() error {
	t.forget()
	return errors.Join(t.top.Close(), t.root.Close())
}

// empty removes everything, after a failure.
func (t *tree) empty() error {
	t.forget()
	_, seek := t.top.Seek(0, io.SeekStart)
	names, err := t.top.Readdirnames(-1)
	err = errors.Join(seek, err)
	for _, name := range names {
		err = errors.Join(err, t.root.RemoveAll(name))
	}
	if x := unix.Fremovexattr(int(t.top.Fd()), opaqueXattr); !noXattr(x) {
		err = errors.Join(err, x)
	}
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// finish sets what later entries would have changed again: the root's own properties and the times of directories.
func (t *tree) finish() error {
	t.forget()
	top := int(t.top.Fd())
	for path, d := range t.dirs {
		fd, err := openBeneath(top, path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // a later entry replaced it
		}
		if err != nil {
			return failed(path, err)
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && st.Ino == d.inode {
			err = setTime(fd, ".", d.mtime)
		}
		closeFd(fd)
		if err != nil {
			return failed(path, err)
		}
	}
	if t.rootEntry == nil {
		return nil
	}
	if err := dressFd(top, *t.rootEntry); err != nil {
		return err
	}
	if err := setTime(top, ".", t.rootEntry.mtime); err != nil {
		return failed(t.rootEntry.name, err)
	}
	return nil
}

// forget drops the cached parent.
func (t *tree) forget() {
	if t.parentFd >= 0 && t.parentFd != int(t.top.Fd()) {
		closeFd(t.parentFd)
	}
	t.parentFd = -1
}

// parent opens the directory dir for an entry, making what is missing, and says its path without links. The descriptor is
// good until the next call.
func (t *tree) parent(name string, dir []string) (fd int, real string, err error) {
	key := strings.Join(dir, "/")
	if t.parentFd >= 0 && key == t.parentName {
		return t.parentFd, t.parentReal, nil
	}
	t.forget()
	fd, real, err = t.open(name, dir, true)
	if err != nil {
		return -1, "", err
	}
	t.parentFd, t.parentName, t.parentReal = fd, key, real
	return fd, real, nil
}

// open is parent without the memory; without create what is missing is unix.ENOENT. The caller closes fd.
func (t *tree) open(name string, dir []string, create bool) (fd int, real string, err error) {
	top := int(t.top.Fd())
	path := strings.Join(dir, "/")
	if fd, err = openBeneath(top, "./"+path); err == nil {
		return fd, path, nil
	}
	if real, err = t.walk(name, dir, create); err != nil {
		return -1, "", err
	}
	if fd, err = openBeneath(top, "./"+real); err != nil {
		return -1, "", failed(name, err)
	}
	return fd, real, nil
}

// remember notes the time a directory is to have.
func (t *tree) remember(name, real string, inode uint64, mtime time.Time) error {
	if _, ok := t.dirs[real]; !ok {
		if err := t.charge(real); err != nil {
			return failed(name, err)
		}
	}
	t.dirs[real] = dirTime{inode: inode, mtime: mtime}
	return nil
}

// charge counts a name that is kept in memory.
func (t *tree) charge(name string) error {
	if t.names += int64(len(name)) + 64; t.names > maxNames {
		return errs.E(errs.Invalid, "names of directories and links are more than %d MiB", maxNames>>20)
	}
	return nil
}

// openBeneath opens a directory below top by a path that holds no links.
func openBeneath(top int, path string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(top, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// openDir opens the directory name of fd.
func openDir(fd int, name string) (int, error) {
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

func statAt(fd int, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return &st, err
}

// closeFd closes a directory or O_PATH descriptor, for which close has nothing to report.
func closeFd(fd int) { _ = unix.Close(fd) }

func setTime(fd int, name string, t time.Time) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// failed says which entry it was.
func failed(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("entry %q: %w", name, err)
}
