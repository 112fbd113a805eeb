package layer

import (
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// A walk through more links or components than this is an attack: Linux itself follows 40 links.
const (
	maxLinks = 40
	maxSteps = 2048
)

// walk resolves a directory the way a process with this root would: links are followed, absolute ones from the root, ".."
// stops at the root. Missing directories, also at the end of a dangling link, are made if create.
func (t *tree) walk(name string, dir []string, create bool) (string, error) {
	w := walker{t: t, name: name, create: create, todo: dir, fd: -1}
	defer func() { w.leave() }()
	for steps := 0; len(w.todo) > 0; steps++ {
		if steps > maxSteps {
			return "", errs.E(errs.Invalid, "entry %q: its directory is a maze of links", name)
		}
		part := w.todo[0]
		w.todo = w.todo[1:]
		switch part {
		case "", ".":
		case "..":
			w.leave()
			w.done = w.done[:max(len(w.done)-1, 0)]
		default:
			if err := w.enter(part); err != nil {
				return "", err
			}
		}
	}
	return strings.Join(w.done, "/"), nil
}

type walker struct {
	t      *tree
	name   string // of the entry, for errors
	create bool
	todo   []string
	done   []string // path so far, without links
	fd     int      // of done, -1 if it has to be opened
	links  int
}

func (w *walker) leave() {
	if w.fd >= 0 {
		closeFd(w.fd)
	}
	w.fd = -1
}

// enter goes into the directory part, or puts the target of the link part before what is still to do.
func (w *walker) enter(part string) error {
	if w.fd < 0 {
		fd, err := openBeneath(int(w.t.top.Fd()), "./"+strings.Join(w.done, "/"))
		if err != nil {
			return failed(w.name, err)
		}
		w.fd = fd
	}
	if len(part) > maxName {
		return errs.E(errs.Invalid, "entry %q: a link above it has a name longer than %d bytes", w.name, maxName)
	}
	st, err := statAt(w.fd, part)
	switch {
	case errors.Is(err, unix.ENOENT) && w.create:
		return w.mkdir(part, false)
	case err != nil:
		return failed(w.name, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.into(part)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return w.follow(part)
	case w.t.opt.Whiteouts && w.create && isWhiteout(st):
		if err := unix.Unlinkat(w.fd, part, 0); err != nil {
			return failed(w.name, err)
		}
		return w.mkdir(part, true)
	}
	return errs.E(errs.Invalid, "entry %q: %q above it is not a directory", w.name, part)
}

func (w *walker) follow(part string) error {
	if w.links++; w.links > maxLinks {
		return errs.E(errs.Invalid, "entry %q: too many symbolic links above it", w.name)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(w.fd, part, buf)
	if err != nil {
		return failed(w.name, err)
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		w.leave()
		w.done = nil
	}
	w.todo = append(strings.Split(target, "/"), w.todo...)
	return nil
}

func (w *walker) into(part string) error {
	fd, err := openDir(w.fd, part)
	if err != nil {
		return failed(w.name, err)
	}
	w.leave()
	w.fd = fd
	w.done = append(w.done, part)
	if len(w.done) > maxDepth || len(strings.Join(w.done, "/")) > maxPath {
		return errs.E(errs.Invalid, "entry %q: is nested deeper than %d through links", w.name, maxDepth)
	}
	return nil
}

// mkdir makes a directory that the archive only implies: root's, 0755, of 1970, so that it is the same on every machine.
func (w *walker) mkdir(part string, isOpaque bool) error {
	if len(w.done) >= maxDepth {
		return errs.E(errs.Invalid, "entry %q: is nested deeper than %d through links", w.name, maxDepth)
	}
	if err := unix.Mkdirat(w.fd, part, 0o755); err != nil {
		return failed(w.name, err)
	}
	if err := w.into(part); err != nil {
		return err
	}
	e := entry{name: w.name, mode: unix.S_IFDIR | 0o755, uid: int64(os.Geteuid()), gid: int64(os.Getegid())}
	if err := dressFd(w.fd, e); err != nil {
		return err
	}
	if isOpaque {
		if err := markOpaque(w.name, w.fd); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.fd, &st); err != nil {
		return failed(w.name, err)
	}
	return w.t.remember(w.name, strings.Join(w.done, "/"), st.Ino, time.Unix(0, 0))
}
