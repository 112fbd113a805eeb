package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/kmod"
)

// openModules opens the index of the modules of the kernel that runs.
func openModules() (*kmod.Index, error) {
	cmdline, err := os.ReadFile(cmdlineFile)
	if err != nil {
		return nil, err
	}
	return kmod.Open(filepath.Join("/lib/modules", readLine("/proc/sys/kernel/osrelease")), string(cmdline))
}

// usual are modules that containers want. The kernel would ask for each when it
// is needed first, in the middle of a start.
var usual = []string{
	"overlay", "fuse", "bridge", "veth", "8021q", "nf_tables", "nf_conntrack", "nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_redir",
	"nft_reject_inet", "nft_fib_inet", "nft_limit", "tun", "loop",
}

// devices has the drivers of what is in the machine, or comes into it, loaded.
type devices struct {
	socket *os.File
	latest atomic.Int64 // when the kernel told of a device, UnixNano: see quiet
}

// openDevices begins to hear of devices.
func openDevices() (*devices, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("hear of devices: %w", err)
	}
	d := &devices{socket: os.NewFile(uintptr(fd), "uevents")}
	d.latest.Store(time.Now().UnixNano())
	const kernel = 1                                                        // its group
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) // a machine may have hundreds of disks
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernel}); err != nil {
		return nil, errors.Join(fmt.Errorf("hear of devices: %w", err), d.socket.Close())
	}
	return d, nil
}

// loadAll loads what containers want, and drivers for all devices that are there.
func (d *devices) loadAll(say func(string, ...any)) error {
	x, err := openModules()
	if err != nil {
		return err
	}
	for _, name := range usual {
		if err := x.Load(name); err != nil {
			say("containers may lack something", "error", err)
		}
	}
	return filepath.WalkDir("/sys/devices", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "modalias" {
			loadFor(x, readLine(path), say)
		}
		return nil // what has gone meanwhile
	})
}

func loadFor(x *kmod.Index, alias string, say func(string, ...any)) {
	if alias == "" {
		return
	}
	for _, name := range x.Find(alias) {
		// ENODEV is how a driver says that it is not for this device after all.
		if err := x.Load(name); err != nil && !errors.Is(err, unix.ENODEV) {
			say("driver is not loaded", "device", alias, "error", err)
		}
	}
}

// run loads drivers for what comes until ctx ends. The index, a few MB, is kept
// only while much comes.
func (d *devices) run(ctx context.Context, say func(string, ...any)) error {
	defer context.AfterFunc(ctx, func() { d.socket.Close() })()
	var x *kmod.Index
	message := make([]byte, 16<<10)
	for {
		if err := d.socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			return ended(ctx, err)
		}
		n, err := d.socket.Read(message)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			x = nil
			continue
		case errors.Is(err, unix.ENOBUFS): // too much at once: look at all of it
			if err := d.loadAll(say); err != nil {
				return err
			}
			continue
		case err != nil:
			return ended(ctx, err)
		}
		d.latest.Store(time.Now().UnixNano())
		action, alias := uevent(message[:n])
		if action != "add" || alias == "" {
			continue
		}
		if x == nil {
			if x, err = openModules(); err != nil {
				return err
			}
		}
		loadFor(x, alias, say)
	}
}

// ended is err, unless it is only that ctx has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return fmt.Errorf("hear of devices: %w", err)
	}
	return nil
}

// quiet says that no device was told of for so long.
func (d *devices) quiet(span time.Duration) bool {
	return time.Since(time.Unix(0, d.latest.Load())) > span
}

// uevent reads what the kernel tells: "ACTION@PATH", and "KEY=VALUE" of many kinds.
func uevent(message []byte) (action, alias string) {
	for line := range bytes.SplitSeq(message, []byte{0}) {
		key, value, _ := strings.Cut(string(line), "=")
		switch key {
		case "ACTION":
			action = value
		case "MODALIAS":
			alias = value
		}
	}
	return action, alias
}
