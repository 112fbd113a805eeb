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
	f := staleFlows{gone: map[flowEnd]bool{}, fresh: map[uint16]bool{}}
	for k, guest := range gone {
		if k.proto == UDP {
			f.gone[flowEnd{k.host.Port(), guest}] = true
		}
	}
	for k := range fresh {
		if k.proto == UDP {
			f.fresh[k.host.Port()] = true
		}
	}
	if len(f.gone)+len(f.fresh) == 0 {
		return nil
	}
	s, err := n.host()
	if err != nil {
		return err
	}
	addrs, err := dumpAddrs(s.slow.Handle, nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	f.local = map[netip.Addr]bool{}
	for _, a := range addrs {
		f.local[toPrefix(a.IPNet).Addr()] = true
	}
	count, err := deleteFlows(s.slow.Handle, f)
	if err != nil {
		// The ports are right; a kernel without this interface only keeps a
		// busy old flow longer.
		n.cfg.Log.Warn("stale UDP flows not cleared", "error", err)
		return nil
	}
	n.cfg.Log.Debug("stale UDP flows cleared", "flows", count)
	return nil
}

// flowEnd is a forward as a flow shows it: the port asked for, who answers.
type flowEnd struct {
	port  uint16
	guest netip.AddrPort
}

// staleFlows matches flows that a change of the UDP ports made wrong.
type staleFlows struct {
	gone  map[flowEnd]bool    // flows that a forward made that is gone
	fresh map[uint16]bool     // flows to a local port that is published now
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
	return s.fresh[f.Forward.DstPort] && asked == answers && (s.local[asked] || asked.IsLoopback())
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
