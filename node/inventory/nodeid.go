package inventory

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// NodeID is what this node is called unless told otherwise: the MAC of its
// management NIC without colons, as Zero-OS has it ("525400123456").
//
// The management NIC is that of the default route: lowest metric, IPv4 before
// IPv6. A bridge, bond or vlan there stands for the hardware below it, because a
// bridge takes the lowest MAC of its ports and so may take a container's. With
// no such route it is the first hardware NIC by name, with none at all the id
// is made from /etc/machine-id. It changes when the network does: keep it.
func (f FS) NodeID() (string, error) {
	nics, err := f.NICs()
	if err != nil {
		return "", err
	}
	return nodeID(f.defaultRoutes(), nics, f.etc("machine-id"))
}

// ManagementAddr is the address of the management NIC, preferring the default
// route's family and leaving out link-local ones; invalid if there is none.
func (f FS) ManagementAddr() netip.Addr {
	nics, err := f.NICs()
	if err != nil {
		return netip.Addr{}
	}
	return managementAddr(f.defaultRoutes(), nics)
}

func nodeID(routes []route, nics []NIC, machineID string) (string, error) {
	for _, r := range routes {
		i := slices.IndexFunc(nics, func(n NIC) bool { return n.Name == r.nic })
		if i < 0 {
			continue
		}
		if mac := stableMAC(nics[i], nics); mac != "" {
			return mac, nil
		}
	}
	if hardware := byName(nics); len(hardware) > 0 {
		return plain(hardware[0].HardwareAddr), nil
	}
	if machineID = strings.TrimSpace(machineID); machineID == "" || machineID == "uninitialized" {
		return "", errs.E(errs.Unavailable, "no NIC has a MAC and /etc/machine-id is empty: give the node a name with --node-id")
	}
	// machine-id(5) asks not to show the id itself. A MAC that nobody was given
	// has bit 1 of its first byte set and bit 0 clear.
	sum := sha256.Sum256([]byte("buoy node " + machineID))
	sum[0] = sum[0]&^1 | 2
	return hex.EncodeToString(sum[:6]), nil
}

// byName is the hardware among the NICs, by name.
func byName(nics []NIC) []NIC {
	hardware := slices.DeleteFunc(slices.Clone(nics), func(n NIC) bool { return !n.physical() })
	slices.SortStableFunc(hardware, func(a, b NIC) int { return strings.Compare(a.Name, b.Name) })
	return hardware
}

// stableMAC is the MAC of the hardware below n, or else n's own; empty if it has
// none (a tunnel).
func stableMAC(n NIC, nics []NIC) string {
	for range 8 { // vlan on bond on …; the kernel allows no more
		if n.physical() {
			break
		}
		below := slices.DeleteFunc(byName(nics), func(p NIC) bool { return p.Master != n.Index })
		if len(below) > 0 {
			// A bond puts its own MAC on its ports.
			return plain(cmp.Or(below[0].Permanent, below[0].HardwareAddr))
		}
		i := slices.IndexFunc(nics, func(p NIC) bool { return n.on(p) })
		if i < 0 {
			break
		}
		n = nics[i]
	}
	if len(n.HardwareAddr) != len("00:00:00:00:00:00") {
		return ""
	}
	return plain(n.HardwareAddr)
}

// on says that n stands on p: as a vlan on its parent, as a bridge on a port
// that itself has hardware below.
func (n NIC) on(p NIC) bool {
	switch {
	case p.Index == n.Parent:
		return n.Kind == "vlan" || n.Kind == "macvlan" || n.Kind == "ipvlan"
	case p.Master == n.Index:
		return p.Kind == "vlan" || p.Kind == "bond" || p.Kind == "team"
	}
	return false
}

func plain(mac string) string { return strings.ReplaceAll(mac, ":", "") }

func managementAddr(routes []route, nics []NIC) netip.Addr {
	addr := func(n NIC, v4 bool) netip.Addr {
		for _, a := range n.Addrs {
			p, err := netip.ParsePrefix(a)
			if ip := p.Addr(); err == nil && ip.Is4() == v4 && ip.IsGlobalUnicast() {
				return ip
			}
		}
		return netip.Addr{}
	}
	for _, r := range routes {
		for _, n := range nics {
			if ip := addr(n, r.v4); n.Name == r.nic && ip.IsValid() {
				return ip
			}
		}
	}
	for _, v4 := range []bool{true, false} {
		for _, n := range byName(nics) {
			if ip := addr(n, v4); ip.IsValid() {
				return ip
			}
		}
	}
	return netip.Addr{}
}

// route is a default route.
type route struct {
	nic    string
	metric uint64
	v4     bool
}

// defaultRoutes lists the default routes, best first.
func (f FS) defaultRoutes() []route {
	file := func(name string) []byte {
		for _, dir := range []string{"thread-self/net", "self/net", "net"} {
			if text, err := read(f.proc(dir, name)); err == nil {
				return text
			}
		}
		return nil
	}
	return append(parseRoutes4(file("route")), parseRoutes6(file("ipv6_route"))...)
}

func parseRoutes4(text []byte) []route {
	var routes []route
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line) // Iface Destination Gateway Flags RefCnt Use Metric Mask …
		if len(w) < 8 || w[1] != "00000000" || w[7] != "00000000" {
			continue
		}
		routes = appendRoute(routes, w[0], w[3], w[6], 10, true)
	}
	return byMetric(routes)
}

func parseRoutes6(text []byte) []route {
	var routes []route
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line) // destination length source length nexthop metric refcnt use flags nic
		if len(w) < 10 || strings.Trim(w[0], "0") != "" || w[1] != "00" || w[3] != "00" || w[9] == "lo" {
			continue
		}
		routes = appendRoute(routes, w[9], w[8], w[5], 16, false)
	}
	return byMetric(routes)
}

func appendRoute(routes []route, nic, flags, metric string, base int, v4 bool) []route {
	bits, err := strconv.ParseUint(flags, 16, 32)
	if err != nil || bits&unix.RTF_UP == 0 || bits&unix.RTF_REJECT != 0 {
		return routes
	}
	m, err := strconv.ParseUint(metric, base, 32)
	if err != nil {
		return routes
	}
	return append(routes, route{nic: nic, metric: m, v4: v4})
}

func byMetric(routes []route) []route {
	slices.SortStableFunc(routes, func(a, b route) int { return cmp.Compare(a.metric, b.metric) })
	return routes
}
