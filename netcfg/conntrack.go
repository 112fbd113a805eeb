package netcfg

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows clears the kernel's memory of UDP flows over ports that went
// away or came: as long as packets come it would send them where the first one
// went. TCP connections end by themselves.
func (n *Net) forgetFlows(gone, fresh portMap) error {
	f := staleFlows{gone: map[flowEnd]bool{}, fresh: map[flowStart]bool{}}
	families := map[netlink.InetFamily]bool{}
	for k, guest := range gone {
		for i := 0; k.proto == UDP && i <= int(k.last-k.first); i++ {
			families[inetFamily(k.host)] = true
			f.gone[flowEnd{k.first + uint16(i), netip.AddrPortFrom(guest.Addr(), guest.Port()+uint16(i))}] = true
		}
	}
	for k := range fresh {
		for i := 0; k.proto == UDP && i <= int(k.last-k.first); i++ {
			families[inetFamily(k.host)] = true
			f.fresh[flowStart{k.host.Is4(), k.first + uint16(i)}] = true
		}
	}
	if len(families) == 0 {
		return nil
	}
	s, err := n.host()
	if err != nil {
		return err
	}
	addrs, err := dumpAddrs(s.slow.Handle, nil)
	if err != nil {
		return err
	}
	f.local = map[netip.Addr]bool{}
	for _, a := range addrs {
		f.local[toPrefix(a.IPNet).Addr()] = true
	}
	for family := range families {
		count, err := deleteFlows(s.slow.Handle, family, f)
		if err != nil {
			// The ports are right; a kernel without this interface only keeps a
			// busy old flow longer.
			n.cfg.Log.Warn("stale UDP flows not cleared", "error", err)
			continue
		}
		n.cfg.Log.Debug("stale UDP flows cleared", "flows", count)
	}
	return nil
}

func inetFamily(a netip.Addr) netlink.InetFamily {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// flowEnd is a forward as a flow shows it: the port asked for, who answers.
type flowEnd struct {
	port  uint16
	guest netip.AddrPort
}

// flowStart is a port of the machine.
type flowStart struct {
	four bool
	port uint16
}

// staleFlows matches flows that a change of the UDP ports made wrong.
type staleFlows struct {
	gone  map[flowEnd]bool    // flows that a forward made that is gone
	fresh map[flowStart]bool  // flows to a local port that is published now
	local map[netip.Addr]bool // the host's addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	asked, answers := addrOf(f.Forward.DstIP), addrOf(f.Reverse.SrcIP)
	if s.gone[flowEnd{f.Forward.DstPort, netip.AddrPortFrom(answers, f.Reverse.SrcPort)}] {
		return true
	}
	return s.fresh[flowStart{asked.Is4(), f.Forward.DstPort}] && asked == answers && (s.local[asked] || asked.IsLoopback())
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
