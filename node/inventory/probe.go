package inventory

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// probeSize is how much of a partition probe needs: to the end of btrfs's label.
const probeSize = 0x1022b

// probe names the file system (as blkid does) that starts with head, and its
// label.
func probe(head []byte) (kind, label string) {
	b := make([]byte, probeSize)
	copy(b, head)
	at := func(offset int, magic string) bool { return string(b[offset:offset+len(magic)]) == magic }
	text := func(offset, length int) string { return labelText(b[offset : offset+length]) }
	switch {
	case at(0, "LUKS\xba\xbe"):
		return "crypto_LUKS", text(24, 48)
	case at(512, "LABELONE") && at(536, "LVM2"):
		return "LVM2_member", ""
	case at(4096, "\xfc\x4e\x2b\xa9"), at(0, "\xfc\x4e\x2b\xa9"):
		return "linux_raid_member", ""
	case at(0, "XFSB"):
		return "xfs", text(108, 12)
	case at(0x438, "\x53\xef"):
		return extKind(b[1024:2048]), text(1024+120, 16)
	case at(0x10040, "_BHRfS_M"):
		return "btrfs", text(0x1012b, 256)
	case at(1024, "\x10\x20\xf5\xf2"):
		return "f2fs", wideText(b[1024+0x7c : 1024+0x7c+1024])
	case at(1024, "\xe2\xe1\xf5\xe0"):
		return "erofs", text(1024+64, 16)
	case at(0, "hsqs"):
		return "squashfs", ""
	case at(32769, "CD001"):
		return "iso9660", text(32808, 32)
	case at(3, "NTFS    "):
		return "ntfs", ""
	case at(3, "EXFAT   "):
		return "exfat", ""
	case at(82, "FAT32   "):
		return "vfat", fatLabel(text(71, 11))
	case at(54, "FAT12   "), at(54, "FAT16   "):
		return "vfat", fatLabel(text(43, 11))
	}
	for _, page := range []int{4096, 16384, 65536} { // of the kernel that made it
		if at(page-10, "SWAPSPACE2") {
			return "swap", text(1052, 16)
		}
	}
	return "", ""
}

// extKind tells the generations apart by their features, like blkid.
func extKind(super []byte) string {
	compat := binary.LittleEndian.Uint32(super[0x5c:])
	incompat := binary.LittleEndian.Uint32(super[0x60:])
	readOnly := binary.LittleEndian.Uint32(super[0x64:])
	const (
		hasJournal   = 0x4
		journalOnly  = 0x8
		ext3Incompat = 0x2 | 0x4 | 0x10 // filetype, recover, meta_bg
		ext3ReadOnly = 0x1 | 0x2 | 0x4  // sparse_super, large_file, btree_dir
	)
	switch {
	case incompat&journalOnly != 0:
		return "jbd"
	case incompat&^ext3Incompat != 0 || readOnly&^ext3ReadOnly != 0:
		return "ext4"
	case compat&hasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

func labelText(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return strings.TrimSpace(clean(b))
}

func wideText(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return string(utf16.Decode(units))
}

func fatLabel(s string) string {
	if s == "NO NAME" {
		return ""
	}
	return s
}
