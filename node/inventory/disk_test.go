package inventory

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
)

func TestDisks(t *testing.T) {
	got, err := machine("arm64").Disks()
	want := []Disk{{
		Device: "/dev/mmcblk0", Size: 62333952 * 512, Type: SSD,
		Partitions: []Partition{
			{Name: "mmcblk0p1", Size: 512000, PartUUID: "9730496b-01", Label: "my boot", FSType: "vfat"},
			{Name: "mmcblk0p2", Size: 1024000, PartUUID: "9730496b-02"},
			{Name: "mmcblk0p10", Size: 5120000, FSType: "ext4"},
		},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("arm64: Disks = %+v, %v, want %+v", got, err, want)
	}
	got, err = machine("vm").Disks()
	want = []Disk{{Device: "/dev/vda", Size: 536870912 * 512, Type: HDD, FSType: "ext4"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("vm: Disks = %+v, %v, want %+v", got, err, want)
	}
}

func TestDiskTypes(t *testing.T) {
	dir := t.TempDir()
	f := FS{Proc: dir, Sys: dir, Dev: filepath.Join(dir, "dev")}
	const tib = 1 << 40 / 512
	for name, d := range map[string]struct{ sectors, rotational, hidden int64 }{
		"sda": {7 * tib, 1, 0}, "sdb": {7*tib + 1, 1, 0}, "sdc": {8 * tib, 0, 0}, "nvme0n1": {tib, 0, 0}, "nvme0c0n1": {tib, 0, 1},
		"cciss!c0d0": {tib, 1, 0}, "sdd": {0, 1, 0}, "dm-0": {tib, 0, 0}, "md127": {tib, 1, 0}, "sr0": {1000, 1, 0}, "zram0": {1000, 0, 0},
	} {
		write(t, filepath.Join(dir, "block", name, "size"), strconv.FormatInt(d.sectors, 10)+"\n")
		write(t, filepath.Join(dir, "block", name, "queue/rotational"), strconv.FormatInt(d.rotational, 10)+"\n")
		write(t, filepath.Join(dir, "block", name, "hidden"), strconv.FormatInt(d.hidden, 10)+"\n")
	}
	disks, err := f.Disks()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]DiskType{}
	for _, d := range disks {
		got[d.Device] = d.Type
	}
	want := map[string]DiskType{"/dev/sda": HDD, "/dev/sdb": Archive, "/dev/sdc": SSD, "/dev/nvme0n1": NVMe, "/dev/cciss/c0d0": HDD}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("types = %v, want %v", got, want)
	}
}

func TestProbe(t *testing.T) {
	image := func(parts map[int]string) []byte {
		b := make([]byte, probeSize)
		for offset, text := range parts {
			copy(b[offset:], text)
		}
		return b
	}
	le := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	tests := []struct {
		parts       map[int]string
		kind, label string
	}{
		{map[int]string{0x438: "\x53\xef", 1024 + 120: "root", 1024 + 0x5c: le(0x3c), 1024 + 0x60: le(0x2c2)}, "ext4", "root"},
		{map[int]string{0x438: "\x53\xef", 1024 + 0x5c: le(0x4), 1024 + 0x60: le(0x2)}, "ext3", ""},
		{map[int]string{0x438: "\x53\xef", 1024 + 0x60: le(0x2)}, "ext2", ""},
		{map[int]string{0: "XFSB", 108: "data"}, "xfs", "data"},
		{map[int]string{0x10040: "_BHRfS_M", 0x1012b: "pool"}, "btrfs", "pool"},
		{map[int]string{82: "FAT32   ", 71: "EFI        "}, "vfat", "EFI"},
		{map[int]string{54: "FAT16   ", 43: "NO NAME    "}, "vfat", ""},
		{map[int]string{4086: "SWAPSPACE2", 1052: "sw"}, "swap", "sw"},
		{map[int]string{65526: "SWAPSPACE2"}, "swap", ""},
		{map[int]string{512: "LABELONE", 536: "LVM2 001"}, "LVM2_member", ""},
		{map[int]string{0: "LUKS\xba\xbe\x00\x02", 24: "secret"}, "crypto_LUKS", "secret"},
		{map[int]string{4096: "\xfc\x4e\x2b\xa9"}, "linux_raid_member", ""},
		{map[int]string{1024: "\x10\x20\xf5\xf2", 1024 + 0x7c: "f\x002\x00"}, "f2fs", "f2"},
		{map[int]string{0: "hsqs"}, "squashfs", ""},
		{nil, "", ""},
	}
	for _, tt := range tests {
		kind, label := probe(image(tt.parts))
		if kind != tt.kind || label != tt.label {
			t.Errorf("probe(%v) = %q %q, want %q %q", tt.parts, kind, label, tt.kind, tt.label)
		}
	}
}

func TestProbeReadsTheDevice(t *testing.T) {
	dir := t.TempDir()
	f := FS{Proc: dir, Sys: dir, Dev: filepath.Join(dir, "dev")}
	write(t, filepath.Join(dir, "block/sda/size"), "100\n")
	write(t, filepath.Join(dir, "dev/sda"), "XFSB"+string(make([]byte, 104))+"short")
	disks, err := f.Disks()
	if err != nil || len(disks) != 1 || disks[0].FSType != "xfs" || disks[0].Label != "short" {
		t.Errorf("Disks = %+v, %v", disks, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
