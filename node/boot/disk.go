package boot

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Label is that of the file system that state is kept on: ext4, on a disk or a
// part of one.
const Label = "BUOY-DATA"

// volume is a file system as it calls itself.
type volume struct{ device, label, id string }

// blockDevices are the disks, and the parts of disks, that may hold a file system.
func blockDevices() (devices []string) {
	names, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return nil
	}
	for _, n := range names {
		size := readLine(filepath.Join("/sys/class/block", n.Name(), "size"))
		if base := strings.TrimRight(n.Name(), "0123456789"); base == "loop" || base == "ram" || base == "zram" || base == "nbd" || size == "0" {
			continue
		}
		devices = append(devices, "/dev/"+strings.ReplaceAll(n.Name(), "!", "/"))
	}
	return devices
}

// findState looks for the file system that is labelled for us, in all devices.
// errs.NotFound; errs.Conflict: there are several.
func findState(devices []string) (volume, error) {
	var found volume
	for _, dev := range devices {
		v, err := readVolume(dev)
		if err != nil || v.label != Label {
			continue // what cannot be read may be a drive without a disk
		}
		if found.id != "" && found.id != v.id { // one disk may be seen by several ways
			return volume{}, errs.E(errs.Conflict, "%s and %s are both labelled %s: neither is used; take one out, or label it otherwise", found.device, dev, Label)
		}
		if found.id == "" {
			found = v
		}
	}
	if found.id == "" {
		return volume{}, errs.E(errs.NotFound, "no disk is labelled %s", Label)
	}
	return found, nil
}

// Where ext4 has its superblock, and in that its magic number, UUID and label.
const (
	superblock = 1024
	atMagic    = 0x38
	atUUID     = 0x68
	atLabel    = 0x78
	labelLen   = 16
)

// readVolume reads a device's superblock. errs.NotFound: it has none of ext4.
func readVolume(dev string) (volume, error) {
	f, err := os.Open(dev)
	if err != nil {
		return volume{}, err
	}
	defer f.Close()
	sb := make([]byte, atLabel+labelLen)
	if _, err := f.ReadAt(sb, superblock); err != nil {
		return volume{}, err
	}
	if sb[atMagic] != 0x53 || sb[atMagic+1] != 0xEF {
		return volume{}, errs.E(errs.NotFound, "%s is not ext4", dev)
	}
	label, _, _ := bytes.Cut(sb[atLabel:], []byte{0})
	return volume{dev, string(label), hex.EncodeToString(sb[atUUID:atLabel])}, nil
}

// blankEnds is how much of a disk's beginning and of its end must be zeros for it
// to be blank: partition tables, RAID, LVM and all file systems have something there.
const blankEnds = 4 << 20

// blank says whether a disk is, and otherwise where there is something.
func blank(f io.ReaderAt, size int64) (at int64, ok bool, err error) {
	for _, from := range []int64{0, max(0, size-blankEnds)} {
		data, err := io.ReadAll(io.NewSectionReader(f, from, min(size, blankEnds)))
		if err != nil {
			return 0, false, err
		}
		if i := slices.IndexFunc(data, func(b byte) bool { return b != 0 }); i >= 0 {
			return from + int64(i), false, nil
		}
	}
	return 0, true, nil
}

// leastDisk is the smallest disk that is worth keeping state on.
const leastDisk = 256 << 20

// createState makes a file system for state on a blank disk. errs.NotFound: there
// is no such disk, yet. errs.Conflict: it is in use, or has somebody's data.
func createState(ctx context.Context, dev string) error {
	// O_EXCL: nobody has it mounted, or is part of something that is.
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_EXCL, 0)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENXIO):
		return errs.E(errs.NotFound, "there is no disk %s", dev)
	case err != nil:
		return errs.E(errs.Conflict, "%s is not touched: it is in use: %w", dev, err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < leastDisk {
		return errs.E(errs.Conflict, "%s is not used: it has %d MiB, and state wants %d", dev, size>>20, leastDisk>>20)
	}
	at, ok, err := blank(f, size)
	if err != nil {
		return fmt.Errorf("read %s: %w", dev, err)
	}
	if !ok {
		return errs.E(errs.Conflict, "%s is not touched: it is not blank, there is something at byte %d; if nobody needs that, write zeros over its first and last %d MiB", dev, at, blankEnds>>20)
	}
	if err := f.Close(); err != nil { // or mke2fs would find it in use
		return err
	}
	out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-L", Label, "-m", "1", dev).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a file system on %s: %w: %s", dev, err, bytes.TrimSpace(out))
	}
	return nil
}
