package flist

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Types of a special file in era C.
const (
	typeSocket = iota
	typeBlock
	typeChar
	typeFifo
	typeUnknown
)

// special reads a special file. The packers of era C never set the type, which makes everything a socket, but write the
// numbers of devices. So a socket that has such is a device: a block device if Linux gives disks that number, else one of
// characters. A socket without them may have been a fifo; it stays a socket, which unpacking leaves out.
// The packers before 2020 wrote the true type into the mode: setMode prefers that.
func special(n *Node, of structure) error {
	data, err := of.bytes(0)
	if err != nil {
		return err
	}
	major, minor, isDevice, err := deviceNumbers(data)
	if err != nil {
		return err
	}
	kind := of.uint16(0)
	switch {
	case kind == typeFifo:
		n.Mode = unix.S_IFIFO
	case kind == typeBlock:
		n.Mode = unix.S_IFBLK
	case kind == typeChar:
		n.Mode = unix.S_IFCHR
	case kind > typeUnknown:
		return fmt.Errorf("its type %d is unknown", kind)
	case !isDevice:
		n.Mode = unix.S_IFSOCK
	case isDisk(major, minor):
		n.Mode = unix.S_IFBLK
	default:
		n.Mode = unix.S_IFCHR
	}
	if n.Mode == unix.S_IFBLK || n.Mode == unix.S_IFCHR {
		if !isDevice {
			return fmt.Errorf("it is a device without numbers")
		}
		n.Rdev = unix.Mkdev(major, minor)
	}
	return nil
}

// deviceNumbers reads "major,minor"; other packers' texts, such as "(nothing)", are no numbers.
func deviceNumbers(data []byte) (major, minor uint32, ok bool, err error) {
	a, b, found := strings.Cut(string(bytes.TrimRight(data[:min(len(data), 64)], "\x00")), ",")
	decimal := func(s string) (uint64, bool) {
		n, err := strconv.ParseUint(s, 10, 64)
		return n, err == nil
	}
	x, okX := decimal(a)
	y, okY := decimal(b)
	if !found || !okX || !okY {
		return 0, 0, false, nil
	}
	if x > maxMajor || y > maxMinor {
		return 0, 0, false, fmt.Errorf("there is no device %d:%d", x, y)
	}
	return uint32(x), uint32(y), true, nil
}

// What fits into Linux's 32 bits.
const (
	maxMajor = 0xfff
	maxMinor = 0xfffff
)

// disks are the majors of common block devices (Linux, admin-guide/devices.txt): loop, sd, md, sr, sd, dm, mmc, nbd, drbd,
// xvd, what is given dynamically to dm, virtio and nvme. That of ram disks is left out: as characters it is null, zero, random.
var disks = []uint32{7, 8, 9, 11, 43, 65, 66, 67, 68, 69, 70, 71, 128, 129, 130, 131, 132, 133, 134, 135, 147, 179, 202, 252, 253, 254, 259}

func isDisk(major, minor uint32) bool {
	// vcs has the major of loop: its numbers begin anew at 128.
	return slices.Contains(disks, major) && (major != 7 || minor < 128)
}
