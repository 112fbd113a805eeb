package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// hosts are the addresses that f is to be published at now; an unspecified one
// means all of its kind. A forward without a guest is one to any guest. have
// are the addresses of an interface, or of all.
func (f Forward) hosts(have func(iface string) ([]netip.Addr, error)) ([]netip.Addr, error) {
	list := []netip.Addr{f.Host.Addr()}
	switch {
	case f.Iface != "" || f.Within.IsValid():
		var err error
		if list, err = have(f.Iface); err != nil {
			return nil, err
		}
	case list[0].IsUnspecified():
		list = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	guest, p := f.Guest.Addr(), f.port()
	return slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool {
		return !p.takes(a) || guest.IsValid() && guest.Is4() != a.Is4() || f.Within.IsValid() && !f.Within.Contains(a)
	}), nil
}

// addrsOf are the addresses that ports can be published at, of an interface or,
// for "", of all. An interface that is not there has none.
func (n *Net) addrsOf(iface string) ([]netip.Addr, error) {
	s, err := n.host()
	if err != nil {
		return nil, err
	}
	var link netlink.Link
	if iface != "" {
		link, err = linkByName(s.fast.Handle, iface)
		if isNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	addrs, err := dumpAddrs(s.fast.Handle, link)
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, a := range addrs {
		if h := toPrefix(a.IPNet).Addr(); checkHostAddr(h) == nil {
			list = append(list, h)
		}
	}
	return list, nil
}

// CheckFree says whether f could be published: errs.Conflict if another
// container publishes the port or a process of the host listens on it,
// errs.Invalid if the machine does not have the address. It does not look at
// f's guest if there is none yet.
func (n *Net) CheckFree(f Forward) error {
	hosts, err := f.hosts(n.addrsOf)
	if err != nil {
		return fmt.Errorf("check port %s: %w", f, err)
	}
	if len(hosts) == 0 {
		return errs.E(errs.Invalid, "port %s: this machine has no such address now", f)
	}
	n.mu.Lock()
	owners := n.owners
	n.mu.Unlock()
	for _, h := range hosts {
		for _, o := range owners {
			if o.forward.Container != f.Container && o.collides(owner{f, h}) {
				return errs.E(errs.Conflict, "port %s is already published by container %s", f, o.forward.Container)
			}
		}
	}
	return n.onHost(func() error { return tryBind(f, hosts) })
}

// tryBind says whether a process of the host could have f's ports now.
func tryBind(f Forward, hosts []netip.Addr) error {
	for _, h := range hosts {
		err := bind(f.Proto, h, 0)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return errs.E(errs.Invalid, "port %s: %s is not an address of this machine", f, h)
		}
		if err != nil && !(h.IsUnspecified() && errors.Is(err, unix.EAFNOSUPPORT)) {
			return fmt.Errorf("check port %s: %w", f, err)
		}
	}
	s := f.span()
	if s.first == s.last {
		busy, err := inUse(f.Proto, hosts, s.first)
		if err != nil {
			return fmt.Errorf("check port %s: %w", f, err)
		}
		if busy {
			return errs.E(errs.Conflict, "port %s is in use by a process on the host", f)
		}
		return nil
	}
	some, err := bound(f.Proto, s)
	if err != nil {
		return fmt.Errorf("check port %s: %w", f, err)
	}
	for _, port := range some {
		busy, err := inUse(f.Proto, hosts, port)
		if err != nil {
			return fmt.Errorf("check port %s: %w", f, err)
		}
		if busy {
			return errs.E(errs.Conflict, "port %s: %d is in use by a process on the host", f, port)
		}
	}
	return nil
}

// bound are the ports of s that some socket has, at whatever address. Binding
// each of 30,000 takes half a second, and takes it from who wants it.
func bound(p Proto, s span) ([]uint16, error) {
	var ports []uint16
	for _, name := range []string{string(p), string(p) + "6"} {
		raw, err := os.ReadFile("/proc/thread-self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, "6") {
			continue // no IPv6 on this machine
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err == nil && s.overlaps(span{uint16(port), uint16(port)}) { // else the headline
				ports = append(ports, uint16(port))
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// inUse says whether a process has the port at one of the hosts.
func inUse(p Proto, hosts []netip.Addr, port uint16) (bool, error) {
	for _, h := range hosts {
		err := bind(p, h, port)
		if errors.Is(err, unix.EADDRINUSE) {
			return true, nil
		}
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return false, err
		}
	}
	return false, nil
}

// bind has a port for a moment. It does not listen: nobody gets connected. As
// with servers, connections that have ended are no obstacle.
func bind(p Proto, a netip.Addr, port uint16) error {
	family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: a.As16()})
	if a.Is4() {
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	kind := unix.SOCK_STREAM
	if p == UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && p == TCP {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return err
	}
	return unix.Bind(fd, addr)
}
