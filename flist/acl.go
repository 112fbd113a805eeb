package flist

import (
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// acl is a permission record of era C. Its name in the file is opaque: how it is made changed three times.
type acl struct {
	mode        uint32
	uid, gid    int64 // -1: known by name only, as all are from before 2020-07-30
	user, group string
	missing     bool
	err         error
}

func readACL(b []byte) (a acl, err error) {
	s, err := readMessage(b)
	if err != nil {
		return a, err
	}
	user, err := s.text(0)
	if err != nil {
		return a, err
	}
	group, err := s.text(1)
	if err != nil {
		return a, err
	}
	a.mode = uint32(s.uint16(0))
	a.user, a.group = string(user), string(group)
	a.uid, a.gid = ^int64(s.uint64(8)), ^int64(s.uint64(16)) // their default is -1, and defaults are stored as 0
	for _, id := range []int64{a.uid, a.gid} {
		if id < -1 || id >= math.MaxUint32 {
			return a, fmt.Errorf("there is no user or group %d", id)
		}
	}
	return a, nil
}

// owners gives nodes their permissions.
type owners struct {
	acls []acl // by number
}

func newOwners(names []string, records map[string]acl) owners {
	o := owners{make([]acl, len(names))}
	for i, name := range names {
		a, ok := records[name]
		a.missing = !ok
		o.acls[i] = a
	}
	return o
}

// set sets mode and owner of a node. A node whose permission record is missing is root's and nobody may write it: that
// gives nothing away and keeps the rest of the tree readable.
func (o owners) set(l *List, at, id uint32) error {
	a, n := o.acls[id], &l.Nodes[at]
	if a.err != nil {
		return errs.E(errs.Invalid, "its permissions: %w", a.err)
	}
	if a.missing {
		a = acl{mode: 0o400}
		switch n.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			a.mode = 0o500
		case unix.S_IFLNK:
			a.mode = 0o777
		}
	}
	n.setMode(a.mode)
	n.UID, n.GID = ownerNumber(a.uid, a.user), ownerNumber(a.gid, a.group)
	if a.uid < 0 || a.gid < 0 {
		l.pending = append(l.pending, pendingOwner{at, a.user, a.group, a.uid < 0, a.gid < 0})
	}
	return nil
}

// setMode adds permission bits. Before 2020 they came with the type, which for special files is known from there only.
func (n *Node) setMode(mode uint32) {
	if old := n.Mode & unix.S_IFMT; old != unix.S_IFDIR && old != unix.S_IFREG && old != unix.S_IFLNK {
		switch t := mode & unix.S_IFMT; t {
		case unix.S_IFIFO, unix.S_IFSOCK:
			n.Mode, n.Rdev = t, 0
		case unix.S_IFBLK, unix.S_IFCHR:
			if n.Rdev != 0 {
				n.Mode = t
			}
		}
	}
	n.Mode |= mode & 0o7777
}

// nobody owns what a name says that the image does not know. Root would be worse: the file may be a setuid program.
const nobody = 65534

// ownerNumber is the number of an owner before the image's own files are asked: a name that is a number is that number
// (packers wrote so for owners without a name).
func ownerNumber(id int64, name string) uint32 {
	if id >= 0 {
		return uint32(id)
	}
	if name == "root" {
		return 0
	}
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return nobody
	}
	return uint32(n)
}
