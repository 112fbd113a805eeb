package netcfg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Forward is a published port: what arrives at Host goes to Guest.
type Forward struct {
	Container string
	Proto     Proto
	Host      netip.AddrPort // unspecified address: all local addresses
	Guest     netip.AddrPort // address and port of the container
}

// portKey is what a packet is looked up by, portMap what the kernel is to know.
type portKey struct {
	proto Proto
	host  netip.AddrPort
}

type portMap map[portKey]netip.AddrPort

func (f Forward) key() portKey { return portKey{f.Proto, f.Host} }

func (k portKey) String() string { return fmt.Sprintf("%s/%s", k.host, k.proto) }

// SetPorts publishes these ports and no others, all at once. The same set
// again changes nothing. Connections over a TCP port that is no longer in the
// set go on; UDP has no connections, so there the kernel's memory of flows is
// cleared for ports that come, go or change.
//
// errs.Conflict: two forwards want the same host port.
func (n *Net) SetPorts(ctx context.Context, forwards []Forward) error {
	want, owners, err := n.checkForwards(forwards)
	if err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	n.setMu.Lock()
	defer n.setMu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	if n.ports == nil || !maps.Equal(want, n.ports) {
		if err := n.replacePorts(want); err != nil {
			return fmt.Errorf("publish ports: %w", err)
		}
	}
	n.setOwners(owners)
	return nil
}

func (n *Net) setOwners(owners map[portKey]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owners = owners
}

// checkForwards is the set as maps.
func (n *Net) checkForwards(forwards []Forward) (portMap, map[portKey]string, error) {
	want := make(portMap, len(forwards))
	owners := make(map[portKey]string, len(forwards))
	byPort := map[portKey][]Forward{} // by protocol and port alone
	for _, f := range forwards {
		if err := n.checkForward(f); err != nil {
			return nil, nil, err
		}
		port := portKey{f.Proto, netip.AddrPortFrom(netip.IPv4Unspecified(), f.Host.Port())}
		for _, other := range byPort[port] {
			if collide(f.key(), other.key()) {
				return nil, nil, errs.E(errs.Conflict, "port %s of container %s is already published by container %s",
					f.key(), f.Container, other.Container)
			}
		}
		byPort[port] = append(byPort[port], f)
		want[f.key()] = f.Guest
		owners[f.key()] = f.Container
	}
	return want, owners, nil
}

func (n *Net) checkForward(f Forward) error {
	switch {
	case f.Proto != TCP && f.Proto != UDP:
		return errs.E(errs.Invalid, "port %s: the protocol is %q; use tcp or udp", f.key(), f.Proto)
	case !f.Host.Addr().Is4() || f.Host.Port() == 0:
		return errs.E(errs.Invalid, "port %s: it needs an IPv4 address and a port on the host", f.key())
	case !n.usable(f.Guest.Addr()) || f.Guest.Port() == 0:
		return errs.E(errs.Invalid, "port %s: %s is not a port of a container", f.key(), f.Guest)
	}
	return nil
}

// collide says whether two could not be bound at the same time.
func collide(a, b portKey) bool {
	return a.proto == b.proto && a.host.Port() == b.host.Port() &&
		(a.host.Addr() == b.host.Addr() || a.host.Addr().IsUnspecified() || b.host.Addr().IsUnspecified())
}

// CheckFree says whether f could be published: errs.Conflict if another
// container publishes the port or a process of the host listens on it,
// errs.Invalid if the machine does not have the address.
func (n *Net) CheckFree(f Forward) error {
	n.mu.Lock()
	for k, container := range n.owners {
		if collide(k, f.key()) && container != f.Container {
			n.mu.Unlock()
			return errs.E(errs.Conflict, "port %s is already published by container %s", f.key(), container)
		}
	}
	n.mu.Unlock()
	err := n.onHost(func() error { return tryBind(f) })
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return errs.E(errs.Conflict, "port %s is in use by a process on the host", f.key())
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return errs.E(errs.Invalid, "port %s: %s is not an address of this machine", f.key(), f.Host.Addr())
	case err != nil:
		return fmt.Errorf("check port %s: %w", f.key(), err)
	}
	return nil
}

func tryBind(f Forward) error {
	if f.Proto == UDP {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(f.Host))
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(f.Host))
	if err != nil {
		return err
	}
	return l.Close()
}
