package squashfs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Node is one name in an image.
type Node struct {
	Path     string // below the root, "" for the root itself
	Mode     uint32 // S_IFMT, permissions, setuid, setgid, sticky
	UID, GID uint32
	ModTime  int64 // seconds
	// Inode says which file this is: two Nodes with the same Inode and Links above 1 are hard links.
	Inode  uint64
	Links  uint32
	Size   int64  // of a regular file
	Target string // of a symbolic link
	Major  uint32 // of a device
	Minor  uint32
	Xattrs map[string]string // by full name

	list     listing
	contents contents
}

// listing is where a directory's entries are.
type listing struct {
	start  uint32
	offset uint16
	size   uint32
}

// contents is where a file's data is.
type contents struct {
	start    uint64
	fragment uint32
	offset   uint32
	sizes    cursor // of the blocks
}

var formats = [8]uint32{0, unix.S_IFDIR, unix.S_IFREG, unix.S_IFLNK, unix.S_IFBLK, unix.S_IFCHR, unix.S_IFIFO, unix.S_IFSOCK}

// node reads the inode a reference points to.
func (im *Image) node(ref uint64) (Node, error) {
	c, err := im.cursorAt(im.inodes, ref>>16, int(ref&0xffff))
	if err != nil {
		return Node{}, err
	}
	h, err := c.take(16)
	if err != nil {
		return Node{}, err
	}
	u16, u32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	kind, extended := u16(h), false
	if kind > 7 {
		kind, extended = kind-7, true
	}
	if kind == 0 || kind > 7 {
		return Node{}, damaged("inode kind %d is unknown", u16(h))
	}
	n := Node{Mode: formats[kind] | uint32(u16(h[2:])&0o7777), ModTime: int64(u32(h[8:])), Inode: ref}
	uid, gid := u16(h[4:]), u16(h[6:])
	if n.UID, err = im.id(uid); err != nil {
		return Node{}, err
	}
	if n.GID, err = im.id(gid); err != nil {
		return Node{}, err
	}
	var xattr uint32
	switch kind {
	case 1:
		xattr, err = n.directory(&c, extended)
	case 2:
		xattr, err = n.regular(&c, extended)
	case 3:
		xattr, err = n.symlink(&c, extended)
	default:
		xattr, err = n.special(&c, kind, extended)
	}
	if err == nil && xattr != none32 {
		n.Xattrs, err = im.xattrsOf(xattr)
	}
	return n, err
}

func (n *Node) directory(c *cursor, extended bool) (uint32, error) {
	u16, u32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	if !extended {
		b, err := c.take(16)
		if err != nil {
			return 0, err
		}
		n.Links = u32(b[4:])
		n.list = listing{start: u32(b), size: uint32(u16(b[8:])), offset: u16(b[10:])}
		return none32, nil
	}
	b, err := c.take(24)
	if err != nil {
		return 0, err
	}
	n.Links = u32(b)
	n.list = listing{size: u32(b[4:]), start: u32(b[8:]), offset: u16(b[18:])}
	return u32(b[20:]), nil
}

func (n *Node) regular(c *cursor, extended bool) (uint32, error) {
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	if !extended {
		b, err := c.take(16)
		if err != nil {
			return 0, err
		}
		n.Links, n.Size = 1, int64(u32(b[12:]))
		n.contents = contents{start: uint64(u32(b)), fragment: u32(b[4:]), offset: u32(b[8:]), sizes: *c}
		return none32, nil
	}
	b, err := c.take(40)
	if err != nil {
		return 0, err
	}
	n.Size, n.Links = int64(u64(b[8:])), u32(b[24:])
	if n.Size < 0 {
		return 0, damaged("file of %d bytes", u64(b[8:]))
	}
	n.contents = contents{start: u64(b), fragment: u32(b[28:]), offset: u32(b[32:]), sizes: *c}
	return u32(b[36:]), nil
}

func (n *Node) symlink(c *cursor, extended bool) (uint32, error) {
	b, err := c.take(8)
	if err != nil {
		return 0, err
	}
	n.Links = binary.LittleEndian.Uint32(b)
	size := binary.LittleEndian.Uint32(b[4:])
	if size == 0 || size >= unix.PathMax {
		return 0, damaged("symbolic link of %d bytes", size)
	}
	target, err := c.take(int(size))
	if err != nil {
		return 0, err
	}
	n.Target = string(target)
	return trailer(c, extended)
}

// special reads devices (kinds 4 and 5), fifos and sockets.
func (n *Node) special(c *cursor, kind uint16, extended bool) (uint32, error) {
	b, err := c.take(4)
	if err != nil {
		return 0, err
	}
	n.Links = binary.LittleEndian.Uint32(b)
	if kind == 4 || kind == 5 {
		if b, err = c.take(4); err != nil {
			return 0, err
		}
		dev := binary.LittleEndian.Uint32(b)
		n.Major, n.Minor = dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	}
	return trailer(c, extended)
}

// trailer reads the xattr index that ends an extended inode.
func trailer(c *cursor, extended bool) (uint32, error) {
	if !extended {
		return none32, nil
	}
	b, err := c.take(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}
