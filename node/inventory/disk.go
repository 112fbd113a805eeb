package inventory

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DiskType is how a disk stores.
type DiskType string

// The disk types.
const (
	SSD     DiskType = "ssd"
	NVMe    DiskType = "nvme"
	HDD     DiskType = "hdd"
	Archive DiskType = "archive" // an HDD above 7 TiB
)

const archiveSize = 7 << 40

// Disk is a whole disk.
type Disk struct {
	Device     string // "/dev/sda"
	Size       int64  // bytes
	Type       DiskType
	Model      string
	Serial     string
	Label      string // of the file system on the disk itself, when it has no partitions
	FSType     string
	Partitions []Partition
}

// Partition is a part of a disk.
type Partition struct {
	Name     string // "sda1"
	Size     int64  // bytes
	PartUUID string
	Label    string // of the file system
	FSType   string // "ext4", "xfs", "swap", "LVM2_member", …; empty: none that we know
}

// Disks lists the disks by device name. Devices made of memory, files or other
// disks (ram, zram, loop, dm, md), CD drives, empty readers and the paths below
// an NVMe multipath disk are none.
//
// Labels and types come from udev's links and the mount table, where those are
// silent from the first 68 KiB of the partition, which wakes a sleeping disk.
func (f FS) Disks() ([]Disk, error) {
	entries, err := os.ReadDir(f.sys("block"))
	if err != nil {
		return nil, unavailable("disks", err)
	}
	mounts, _ := f.Mounts()
	l := labels{
		fs: f, mounts: mounts,
		label: f.links("by-label"), partUUID: f.links("by-partuuid"),
	}
	var disks []Disk
	for _, e := range entries {
		if d, ok := f.disk(e.Name(), l); ok {
			disks = append(disks, d)
		}
	}
	return disks, nil
}

func (f FS) disk(name string, l labels) (Disk, bool) {
	dir := f.sys("block", name)
	size := scaled(readInt(filepath.Join(dir, "size")), 512)
	if size <= 0 || virtualDisk(name) || readInt(filepath.Join(dir, "hidden")) == 1 {
		return Disk{}, false
	}
	d := Disk{
		Device: "/dev/" + deviceName(name), Size: size, Type: diskType(name, size, readInt(filepath.Join(dir, "queue/rotational")) == 1),
		Model: readString(filepath.Join(dir, "device/model")), Serial: readString(filepath.Join(dir, "device/serial")),
	}
	if d.Serial == "" { // virtio keeps it here
		d.Serial = readString(filepath.Join(dir, "serial"))
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		if readInt(filepath.Join(sub, "partition")) <= 0 {
			continue
		}
		p := Partition{Name: deviceName(e.Name()), Size: scaled(readInt(filepath.Join(sub, "size")), 512)}
		p.PartUUID = uevent(filepath.Join(sub, "uevent"), "PARTUUID")
		l.complete(&p)
		d.Partitions = append(d.Partitions, p)
	}
	if len(d.Partitions) == 0 {
		whole := Partition{Name: deviceName(name)}
		l.complete(&whole)
		d.Label, d.FSType = whole.Label, whole.FSType
	}
	slices.SortFunc(d.Partitions, func(a, b Partition) int { // sda2 before sda10
		if len(a.Name) != len(b.Name) {
			return len(a.Name) - len(b.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return d, true
}

func virtualDisk(name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "mtdblock", "drbd", "bcache"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	// The boot areas of an eMMC chip look like disks.
	return strings.HasPrefix(name, "mmcblk") && (strings.Contains(name, "boot") || strings.Contains(name, "rpmb"))
}

func diskType(name string, size int64, rotational bool) DiskType {
	switch {
	case strings.HasPrefix(name, "nvme"):
		return NVMe
	case rotational && size > archiveSize:
		return Archive
	case rotational:
		return HDD
	}
	return SSD
}

// deviceName is the name below /dev; sysfs has "cciss!c0d0" for cciss/c0d0.
func deviceName(name string) string { return strings.ReplaceAll(name, "!", "/") }

// uevent is a value of a uevent file; PARTUUID is there since Linux 6.13.
func uevent(path, key string) string {
	for line := range strings.Lines(readString(path)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), "="); k == key {
			return v
		}
	}
	return ""
}

// links reads a folder of /dev/disk: from device name to the link's name.
func (f FS) links(folder string) map[string]string {
	names := map[string]string{}
	dir := f.dev("disk", folder)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil {
			names[filepath.Base(target)] = unescape([]byte(e.Name()), 2, 16)
		}
	}
	return names
}

// labels knows what is on the partitions.
type labels struct {
	fs              FS
	mounts          []Mount
	label, partUUID map[string]string
}

// complete fills in what p lacks.
func (l labels) complete(p *Partition) {
	base := filepath.Base(p.Name)
	if p.PartUUID == "" {
		p.PartUUID = l.partUUID[base]
	}
	for _, m := range l.mounts {
		if m.Device == "/dev/"+p.Name {
			p.FSType = m.FSType
		}
	}
	p.Label = l.label[base]
	if p.FSType != "" && p.Label != "" {
		return
	}
	head, err := readAt(unix.AT_FDCWD, l.fs.dev(p.Name), nil, probeSize)
	if err != nil {
		return
	}
	kind, label := probe(head)
	if p.FSType == "" {
		p.FSType = kind
	}
	if p.Label == "" {
		p.Label = label
	}
}
