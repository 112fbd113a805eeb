package layer

import (
	"context"
	"io"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// entry is one thing an archive holds, whatever its format.
type entry struct {
	name     string // as the archive has it
	mode     uint32 // S_IFMT and the twelve permission bits; S_IFMT 0 is a hard link to target
	uid, gid int64
	mtime    time.Time
	size     int64  // of a regular file
	sparse   bool   // it probably has holes
	target   string // of a link
	major    int64  // of a device
	minor    int64
	xattrs   map[string]string
	// copy writes the content of a regular file.
	copy func(ctx context.Context, w io.Writer) (int64, error)
}

func (e entry) format() uint32 { return e.mode & unix.S_IFMT }

// Limits of names. Every directory can then be opened by its path in one call and removed by ordinary programs.
const (
	maxPath  = unix.PathMax - 1
	maxName  = 255
	maxDepth = 512
)

// split cuts a name into components. Leading slashes count for nothing, as in any tar; ".." is refused even where it
// would stay inside, because no archiver writes it.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, errs.E(errs.Invalid, "entry %q: name is longer than %d bytes", name[:60]+"...", maxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, errs.E(errs.Invalid, "entry %q: name has a zero byte", name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, errs.E(errs.Invalid, "entry %q: leaves the root", name)
		case len(part) > maxName:
			return nil, errs.E(errs.Invalid, "entry %q: name is longer than %d bytes", name[:60]+"...", maxName)
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return nil, errs.E(errs.Invalid, "entry %q: is nested deeper than %d", name[:60]+"...", maxDepth)
	}
	return parts, nil
}

// check refuses what no file can have.
func (e entry) check() error {
	switch {
	case e.size < 0:
		return errs.E(errs.Invalid, "entry %q: size %d", e.name, e.size)
	case !owner(e.uid) || !owner(e.gid):
		return errs.E(errs.Invalid, "entry %q: owner %d:%d is not a number Linux has", e.name, e.uid, e.gid)
	case e.format() == unix.S_IFLNK && (e.target == "" || len(e.target) > maxPath || strings.IndexByte(e.target, 0) >= 0):
		return errs.E(errs.Invalid, "entry %q: symbolic link to a name of %d bytes", e.name, len(e.target))
	}
	return nil
}

// owner is false for 2^32-1 too: to the kernel it means "leave it".
func owner(id int64) bool { return id >= 0 && id < math.MaxUint32 }
