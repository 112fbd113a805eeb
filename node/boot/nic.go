package boot

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// nic is hardware that a cable can be plugged into.
type nic struct {
	name    string
	mac     net.HardwareAddr // that it was made with
	carrier bool             // it hears the other end; known while it is up
}

// id is what a node is called by its NIC.
func (n nic) id() string { return strings.ReplaceAll(n.mac.String(), ":", "") }

// readNICs lists the NICs below a directory like /sys/class/net, by name.
func readNICs(sys string) (all []nic, err error) {
	names, err := os.ReadDir(sys)
	if err != nil {
		return nil, fmt.Errorf("look for NICs: %w", err)
	}
	for _, e := range names {
		dir := filepath.Join(sys, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
			continue // a bridge, a tunnel, and what else is none
		}
		mac, err := net.ParseMAC(readLine(filepath.Join(dir, "address")))
		if err != nil || len(mac) != 6 {
			continue // InfiniBand, for example
		}
		all = append(all, nic{e.Name(), mac, readLine(filepath.Join(dir, "carrier")) == "1"})
	}
	// eth10 comes after eth9.
	slices.SortFunc(all, func(a, b nic) int {
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	return all, nil
}

// choice is by what the management NIC is chosen.
type choice struct {
	asked  string           // a name or a MAC that somebody wants; "": none
	booted net.HardwareAddr // of which the machine was booted
	before net.HardwareAddr // that it was before
}

// choose gives the management NIC: the one that was asked for, the one that the
// machine was booted from, the one of before, the first with a cable. sure says
// that waiting makes it no better. errs.NotFound: it is not there.
func (c choice) choose(all []nic) (_ nic, sure bool, err error) {
	find := func(is func(nic) bool) (nic, bool) {
		i := slices.IndexFunc(all, is)
		if i < 0 {
			return nic{}, false
		}
		return all[i], true
	}
	if c.asked != "" {
		mac, _ := net.ParseMAC(c.asked) // or it is a name
		if n, ok := find(func(n nic) bool { return n.name == c.asked || mac != nil && bytes.Equal(n.mac, mac) }); ok {
			return n, true, nil
		}
		return nic{}, false, errs.E(errs.NotFound, "there is no NIC %s (buoy.uplink); there are: %s", c.asked, list(all))
	}
	for _, mac := range []net.HardwareAddr{c.booted, c.before} {
		if n, ok := find(func(n nic) bool { return bytes.Equal(n.mac, mac) }); ok {
			return n, true, nil
		}
	}
	if n, ok := find(func(n nic) bool { return n.carrier }); ok {
		return n, c.booted == nil && c.before == nil, nil
	}
	if len(all) == 0 {
		return nic{}, false, errs.E(errs.NotFound, "no NIC is there: the machine has none, or none that the kernel of this image has a driver for")
	}
	return all[0], false, nil
}

func list(all []nic) string {
	if len(all) == 0 {
		return "none"
	}
	var names []string
	for _, n := range all {
		names = append(names, n.name+" "+n.mac.String())
	}
	return strings.Join(names, ", ")
}

// setLink sets a link up, which is when it begins to hear the other end, or down,
// and says whether it was not so before.
func setLink(name string, up bool) (changed bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return false, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return false, fmt.Errorf("look at %s: %w", name, err)
	}
	flags := req.Uint16()
	if (flags&unix.IFF_UP != 0) == up {
		return false, nil
	}
	req.SetUint16(flags ^ unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return false, fmt.Errorf("set %s up or down: %w", name, err)
	}
	return true, nil
}
