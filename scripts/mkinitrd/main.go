// Command mkinitrd writes the initramfs of machines that have no system of
// their own: buoy's programs, the modules of a kernel that such machines need,
// and what makes and mends file systems. "make boot" calls it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/buoy-edge/buoy/internal/cpio"
	"github.com/buoy-edge/buoy/internal/kmod"
)

func main() {
	var c config
	flag.StringVar(&c.kernel, "kernel", "", "`directory` of a kernel's unpacked package")
	flag.StringVar(&c.bin, "bin", "", "`directory` of buoy's programs")
	flag.StringVar(&c.firmware, "firmware", "", "`directory` of firmware, of which what the modules may ask for is taken")
	flag.StringVar(&c.version, "version", "", "`version` of buoy")
	flag.Int64Var(&c.epoch, "epoch", 0, "`time` of all files, in seconds since 1970, which machines take for the least that a clock may show")
	out := flag.String("o", "", "`file` to write")
	flag.Parse()
	if err := c.write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "mkinitrd:", err)
		os.Exit(1)
	}
}

type config struct {
	kernel, bin, firmware, version string
	epoch                          int64
}

func (c config) write(out string) (err error) {
	tree, err := kmod.OpenTree(c.kernel)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	if err := c.fill(z, tree); err != nil {
		return err
	}
	return z.Close()
}

func (c config) fill(to io.Writer, tree *kmod.Tree) error {
	w := cpio.NewWriter(to)
	w.Time = time.Unix(c.epoch, 0)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var/lib", "/etc/buoy/conf.d", "/mnt"} {
		w.Dir(dir, 0o755)
	}
	w.Link("/init", "usr/bin/buoyd")
	w.Link("/sbin/modprobe", "../usr/bin/buoyd") // the kernel's place for it
	for _, name := range []string{"buoyd", "buoy-shim", "buoy-reaper", "buoy-init", "buoy-flist"} {
		if err := copyFile(w, filepath.Join("/usr/bin", name), filepath.Join(c.bin, name), 0o755); err != nil {
			return err
		}
	}
	w.File("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"))
	w.File("/etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	w.File("/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	if err := copyFile(w, "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt", 0o644); err != nil {
		return fmt.Errorf("whom to trust in registries: %w; install ca-certificates", err)
	}
	for _, name := range []string{"mke2fs", "e2fsck"} {
		if err := addProgram(w, filepath.Join("/usr/sbin", name), "/usr/sbin", "/sbin"); err != nil {
			return fmt.Errorf("%w; install e2fsprogs", err)
		}
	}
	if err := c.addModules(w, tree); err != nil {
		return err
	}
	// The last: process 1 takes an archive without it for one whose end is missing.
	w.File("/etc/os-release", 0o644, fmt.Appendf(nil, "NAME=buoy\nID=buoy\nPRETTY_NAME=\"buoy %s\"\nVERSION_ID=%q\nBUILD_ID=%s\n",
		c.version, c.version, w.Time.UTC().Format(time.RFC3339)))
	return w.Close()
}

func copyFile(w *cpio.Writer, to, from string, perm fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err == nil {
		w.File(to, perm, data)
	}
	return err
}

// addModules adds modules, packed one by one: they stay in memory, and most are
// never loaded.
func (c config) addModules(w *cpio.Writer, tree *kmod.Tree) error {
	chosen, err := tree.Closure(choose(tree))
	if err != nil {
		return err
	}
	dir := filepath.Join("/lib/modules", tree.Release)
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	for i, m := range chosen {
		if strings.Contains(m.File, "/crypto/") {
			// Each CPU would have all that it is good at loaded, which tests itself for
			// seconds. Who wants an algorithm asks for it by name.
			chosen[i].Aliases = slices.DeleteFunc(m.Aliases, func(a string) bool { return strings.HasPrefix(a, "cpu:") })
		}
		w.File(filepath.Join(dir, m.File+kmod.Packed), 0o644, z.EncodeAll(m.Data, nil))
		if c.firmware == "" {
			continue
		}
		for _, name := range m.Firmware {
			err := copyFile(w, filepath.Join("/lib/firmware", name), filepath.Join(c.firmware, name), 0o644)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	lists := kmod.Depmod(chosen)
	if lists["modules.builtin"], err = os.ReadFile(filepath.Join(tree.Modules, "modules.builtin")); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		w.File(filepath.Join(dir, name), 0o644, lists[name])
	}
	return nil
}

// choose names the modules for machines in racks and closets: disks, cables,
// keyboards, watchdogs, clocks, and what containers are made of. What they
// depend on comes along.
func choose(tree *kmod.Tree) (names []string) {
	for _, dir := range []string{
		"arch", "crypto", "lib", "fs/ext4", "fs/overlayfs", "fs/fuse", "fs/efivarfs", "fs/nls",
		"net/8021q", "net/802", "net/bridge", "net/core", "net/ipv4", "net/ipv6", "net/key", "net/llc", "net/netfilter", "net/openvswitch",
		"net/packet", "net/psample", "net/sched", "net/sctp", "net/unix", "net/vmw_vsock", "net/xfrm",
		"drivers/acpi", "drivers/ata", "drivers/block", "drivers/char/hw_random", "drivers/char/ipmi", "drivers/cpufreq", "drivers/edac",
		"drivers/firmware", "drivers/gpio", "drivers/hid", "drivers/hv", "drivers/hwmon", "drivers/i2c/busses", "drivers/input",
		"drivers/message", "drivers/mfd", "drivers/mmc", "drivers/net", "drivers/nvme", "drivers/pci", "drivers/pinctrl", "drivers/ptp", "drivers/rtc", "drivers/scsi",
		"drivers/thermal", "drivers/tty", "drivers/usb/common", "drivers/usb/core", "drivers/usb/host", "drivers/usb/storage", "drivers/usb/serial",
		"drivers/vhost", "drivers/virt", "drivers/virtio", "drivers/watchdog", "drivers/xen",
	} {
		names = append(names, tree.Below("kernel/"+dir)...)
	}
	for _, dir := range []string{ // and not these
		"drivers/net/arcnet", "drivers/net/can", "drivers/net/fddi", "drivers/net/hamradio", "drivers/net/ieee802154", "drivers/net/plip", "drivers/net/ppp",
		"drivers/net/slip", "drivers/net/wan", "drivers/net/wireless", "drivers/net/wwan", "drivers/net/appletalk", "drivers/nvme/target",
		"drivers/input/joystick", "drivers/input/tablet", "drivers/input/touchscreen", "drivers/block/drbd", "drivers/tty/ipwireless", "drivers/hid/surface-hid",
		"drivers/scsi/pcmcia", "drivers/net/ethernet/8390/pcmcia", "drivers/thunderbolt",
	} {
		below := tree.Below("kernel/" + dir)
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(below, name) })
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return strings.HasSuffix(name, "_test") || strings.HasSuffix(name, "_kunit") || strings.HasPrefix(name, "test_") || name == "rcutorture" || name == "torture"
	})
}
