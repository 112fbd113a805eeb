package squashfs

import "encoding/binary"

const (
	nameMax  = 255     // of an attribute: Linux's XATTR_NAME_MAX
	valueMax = 1 << 16 // Linux's XATTR_SIZE_MAX
	// maxXattrs is above what Linux lets one file have: a list of names of 64 KiB.
	maxXattrs = 4096
)

var prefixes = []string{"user.", "trusted.", "security."}

func (im *Image) xattrsOf(i uint32) (map[string]string, error) {
	if i >= im.xattrCount {
		return nil, damaged("extended attributes %d of %d", i, im.xattrCount)
	}
	b, err := im.lookup(im.xattrs+16, i, 16)
	if err != nil {
		return nil, err
	}
	ref, count := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])
	if count > maxXattrs {
		return nil, damaged("%d extended attributes on one file", count)
	}
	c, err := im.cursorAt(im.xattrData, ref>>16, int(ref&0xffff))
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, min(count, 16))
	total := 0
	for range count {
		name, value, err := im.xattr(&c)
		if err != nil {
			return nil, err
		}
		if total += len(name) + len(value); total > 1<<20 {
			return nil, damaged("extended attributes of one file are above 1 MiB")
		}
		if name != "" {
			all[name] = value
		}
	}
	return all, nil
}

// xattr reads one attribute; its name is empty if its namespace is unknown.
func (im *Image) xattr(c *cursor) (name, value string, err error) {
	h, err := c.take(4)
	if err != nil {
		return "", "", err
	}
	kind, size := binary.LittleEndian.Uint16(h), binary.LittleEndian.Uint16(h[2:])
	if size == 0 || size > nameMax {
		return "", "", damaged("extended attribute name of %d bytes", size)
	}
	b, err := c.take(int(size))
	if err != nil {
		return "", "", err
	}
	name = string(b)
	if b, err = valueOf(c); err != nil {
		return "", "", err
	}
	if kind&0x100 != 0 { // the value is a reference to where it is
		if len(b) != 8 {
			return "", "", damaged("reference to an extended attribute of %d bytes", len(b))
		}
		ref := binary.LittleEndian.Uint64(b)
		away, err := im.cursorAt(im.xattrData, ref>>16, int(ref&0xffff))
		if err != nil {
			return "", "", err
		}
		if b, err = valueOf(&away); err != nil {
			return "", "", err
		}
	}
	if int(kind&0xff) >= len(prefixes) {
		return "", "", nil
	}
	return prefixes[kind&0xff] + name, string(b), nil
}

func valueOf(c *cursor) ([]byte, error) {
	b, err := c.take(4)
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(b)
	if size > valueMax {
		return nil, damaged("extended attribute of %d bytes", size)
	}
	return c.take(int(size))
}
