package inventory

import (
	"encoding/binary"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// NIC is a network interface.
type NIC struct {
	Index        int
	Name         string
	Addrs        []string // "10.0.0.2/24"
	Flags        []string // "up", "broadcast", "loopback", "pointtopoint", "multicast", "running"
	HardwareAddr string   // "52:54:00:12:34:56"; empty if it has none
	MTU          int
	Kind         string // "bridge", "veth", "vlan", …; empty for hardware and lo
	Master       int    // index of the bridge or bond that it is a port of
	Parent       int    // index of the NIC that a vlan or macvlan sits on; 0 if in another namespace
	Permanent    string // the MAC it was made with, where the driver says

	RXBytes, RXPackets, RXErrors, RXDropped uint64
	TXBytes, TXPackets, TXErrors, TXDropped uint64
}

// NICs lists the interfaces of the calling thread's network namespace, by index.
//
// Everything, counters too, comes from one netlink dump of links and one of
// addresses: sysfs shows the namespace it was mounted in, and a dump cannot mix
// two namespaces. FS's folders do not matter.
func (FS) NICs() ([]NIC, error) {
	links, err := dump(unix.RTM_GETLINK)
	if err != nil {
		return nil, unavailable("nics", err)
	}
	addrs, err := dump(unix.RTM_GETADDR)
	if err != nil {
		return nil, unavailable("nics", err)
	}
	nics := parseLinks(links)
	byIndex := make(map[int]*NIC, len(nics))
	for i := range nics {
		byIndex[nics[i].Index] = &nics[i]
	}
	for _, m := range addrs {
		if index, prefix, ok := parseAddr(m); ok && byIndex[index] != nil {
			byIndex[index].Addrs = append(byIndex[index].Addrs, prefix.String())
		}
	}
	return nics, nil
}

// dump asks the kernel for a table; it asks again when the table changed
// meanwhile and the answer may lack entries.
func dump(request int) ([]syscall.NetlinkMessage, error) {
	for range 10 {
		raw, err := syscall.NetlinkRIB(request, unix.AF_UNSPEC)
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(raw)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 }) {
			return messages, nil
		}
	}
	return nil, errs.E(errs.Unavailable, "netlink dump was interrupted ten times")
}

func parseLinks(messages []syscall.NetlinkMessage) []NIC {
	var nics []NIC
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		nic := NIC{
			Index: int(int32(binary.NativeEndian.Uint32(m.Data[4:]))),
			Flags: linkFlags(binary.NativeEndian.Uint32(m.Data[8:])),
		}
		elsewhere := false
		for kind, value := range attributes(m.Data[unix.SizeofIfInfomsg:]) {
			nic.set(kind, value)
			elsewhere = elsewhere || kind == unix.IFLA_LINK_NETNSID
		}
		if elsewhere {
			nic.Parent = 0
		}
		nics = append(nics, nic)
	}
	slices.SortFunc(nics, func(a, b NIC) int { return a.Index - b.Index })
	return nics
}

// set takes one attribute of a link.
func (n *NIC) set(attr uint16, value []byte) {
	word := 0
	if len(value) == 4 {
		word = int(binary.NativeEndian.Uint32(value))
	}
	switch attr {
	case unix.IFLA_IFNAME:
		n.Name = labelText(value)
	case unix.IFLA_ADDRESS:
		n.HardwareAddr = hardwareAddr(value)
	case unix.IFLA_PERM_ADDRESS:
		n.Permanent = hardwareAddr(value)
	case unix.IFLA_MTU:
		n.MTU = word
	case unix.IFLA_MASTER:
		n.Master = word
	case unix.IFLA_LINK:
		n.Parent = word
	case unix.IFLA_LINKINFO:
		n.Kind = linkKind(value)
	case unix.IFLA_STATS64:
		counters := []*uint64{
			&n.RXPackets, &n.TXPackets, &n.RXBytes, &n.TXBytes,
			&n.RXErrors, &n.TXErrors, &n.RXDropped, &n.TXDropped,
		}
		for i, p := range counters {
			if len(value) >= 8*(i+1) {
				*p = binary.NativeEndian.Uint64(value[8*i:])
			}
		}
	}
}

// hardwareAddr is the text of an address that is not all zero. Tunnels have
// their IP address there; that is none.
func hardwareAddr(b []byte) string {
	if len(b) < 6 || !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return ""
	}
	return net.HardwareAddr(b).String()
}

// attributes goes through netlink attributes: length, kind, value, padding to
// four bytes. syscall.ParseNetlinkRouteAttr panics on a length that lies.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofNlAttr || length > len(b) || !yield(kind, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

// linkKind finds IFLA_INFO_KIND in IFLA_LINKINFO.
func linkKind(b []byte) string {
	for kind, value := range attributes(b) {
		if kind == unix.IFLA_INFO_KIND {
			return labelText(value)
		}
	}
	return ""
}

func linkFlags(bits uint32) []string {
	flags := []string{}
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.IFF_UP, "up"},
		{unix.IFF_BROADCAST, "broadcast"},
		{unix.IFF_LOOPBACK, "loopback"},
		{unix.IFF_POINTOPOINT, "pointtopoint"},
		{unix.IFF_MULTICAST, "multicast"},
		{unix.IFF_RUNNING, "running"},
	} {
		if bits&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	return flags
}

func parseAddr(m syscall.NetlinkMessage) (index int, prefix netip.Prefix, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return 0, netip.Prefix{}, false
	}
	var addr netip.Addr
	for kind, value := range attributes(m.Data[unix.SizeofIfAddrmsg:]) {
		// On a point-to-point link IFA_ADDRESS is the other end's.
		if kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !addr.IsValid() {
			if ip, ok := netip.AddrFromSlice(value); ok {
				addr = ip
			}
		}
	}
	prefix = netip.PrefixFrom(addr, int(m.Data[1]))
	return int(binary.NativeEndian.Uint32(m.Data[4:])), prefix, prefix.IsValid()
}

// physical says that n is hardware, or what a virtual machine takes for it.
func (n NIC) physical() bool {
	return n.Kind == "" && len(n.HardwareAddr) == len("00:00:00:00:00:00") && !slices.Contains(n.Flags, "loopback") && !strings.HasPrefix(n.Name, "lo")
}
