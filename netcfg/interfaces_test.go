package netcfg

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// Interface is, for tests, a link with its addresses and what went through it.
type Interface struct {
	Name   string
	Addrs  []netip.Prefix
	Flags  []string // "up", "broadcast", …
	HWAddr string
	MTU    int

	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Interfaces lists the links of the namespace at nsPath, "" for the host's.
func (n *Net) Interfaces(nsPath string) ([]Interface, error) {
	if nsPath == "" {
		s, err := n.host()
		if err != nil {
			return nil, err
		}
		return interfaces(s.fast.Handle)
	}
	ns, err := n.open(nsPath)
	if err != nil {
		return nil, err
	}
	defer ns.release()
	return interfaces(ns.h)
}

func interfaces(h *netlink.Handle) ([]Interface, error) {
	links, err := dumpLinks(h)
	if err != nil {
		return nil, err
	}
	addrs, err := dumpAddrs(h, nil)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	byIndex := map[int][]netip.Prefix{}
	for _, a := range addrs {
		byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], toPrefix(a.IPNet))
	}
	list := make([]Interface, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		i := Interface{
			Name:   a.Name,
			Addrs:  byIndex[a.Index],
			Flags:  strings.Split(a.Flags.String(), "|"),
			HWAddr: a.HardwareAddr.String(),
			MTU:    a.MTU,
		}
		if s := a.Statistics; s != nil {
			i.RxBytes, i.RxPackets, i.RxErrors, i.RxDropped = s.RxBytes, s.RxPackets, s.RxErrors, s.RxDropped
			i.TxBytes, i.TxPackets, i.TxErrors, i.TxDropped = s.TxBytes, s.TxPackets, s.TxErrors, s.TxDropped
		}
		list = append(list, i)
	}
	return list, nil
}
