package netcfg

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Every netlink dump goes through this file: the kernel may break one off when
// the list changes under it, and the library then returns what it has with
// ErrDumpInterrupted instead of asking again.

// dumpTries is how often a dump is asked for again; one repetition is rare.
const dumpTries = 10

func repeat[T any](what string, dump func() (T, error)) (T, error) {
	var none T
	for range dumpTries {
		v, err := dump()
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return none, fmt.Errorf("read %s: %w", what, err)
		}
	}
	return none, errs.E(errs.Unavailable, "read %s: the list kept changing", what)
}

// linkByName asks for one link; kernels that cannot look up a name dump all.
func linkByName(h *netlink.Handle, name string) (netlink.Link, error) {
	return repeat("link "+name, func() (netlink.Link, error) { return h.LinkByName(name) })
}

func dumpLinks(h *netlink.Handle) ([]netlink.Link, error) {
	return repeat("links", h.LinkList)
}

// dumpAddrs lists the addresses of link, nil for all links.
func dumpAddrs(h *netlink.Handle, link netlink.Link) ([]netlink.Addr, error) {
	return repeat("addresses", func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
}

// dumpRoutes lists a family's routes of all tables.
func dumpRoutes(h *netlink.Handle, family int) ([]netlink.Route, error) {
	return repeat("routes", func() ([]netlink.Route, error) {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		return h.RouteListFiltered(family, all, netlink.RT_FILTER_TABLE)
	})
}

// dumpPeers lists where a VXLAN device sends what is for nobody known.
func dumpPeers(h *netlink.Handle, index int) (peers []netip.Addr, err error) {
	entries, err := repeat("forwarding entries", func() ([]netlink.Neigh, error) {
		return h.NeighList(index, unix.AF_BRIDGE)
	})
	for _, e := range entries {
		if a, ok := netip.AddrFromSlice(e.IP); ok && bytes.Equal(e.HardwareAddr, make([]byte, 6)) {
			peers = append(peers, a.Unmap())
		}
	}
	return peers, err
}

// dumpQdiscs lists the queueing disciplines of link.
func dumpQdiscs(h *netlink.Handle, link netlink.Link) ([]netlink.Qdisc, error) {
	return repeat("queueing disciplines", func() ([]netlink.Qdisc, error) { return h.QdiscList(link) })
}

// deleteFlows forgets the connections of a family that f names.
func deleteFlows(h *netlink.Handle, family netlink.InetFamily, f netlink.CustomConntrackFilter) (uint, error) {
	return repeat("connections", func() (uint, error) {
		return h.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
	})
}

// tableDump is what the kernel holds of our nftables table.
type tableDump struct {
	chains map[string]*nftables.Chain
	rules  map[string][]*nftables.Rule
	maps   map[string][]nftables.SetElement
}

// dumpTable reads a table, nil if there is none. The library does not tell an
// interrupted dump from a whole one, so it is read until two in a row agree.
func dumpTable(c *nftables.Conn, t *nftables.Table) (*tableDump, error) {
	var last *tableDump
	known := false
	for range dumpTries + 1 {
		now, err := readTable(c, t)
		if err != nil && !errors.Is(err, unix.ENOENT) { // else it went while it was read
			return nil, err
		}
		if known && err == nil && reflect.DeepEqual(last, now) {
			return now, nil
		}
		last, known = now, err == nil
	}
	return nil, errs.E(errs.Unavailable, "list nftables table %s: it kept changing", t.Name)
}

func readTable(c *nftables.Conn, t *nftables.Table) (*tableDump, error) {
	tables, err := c.ListTablesOfFamily(t.Family)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	there := false
	for _, have := range tables {
		there = there || have.Name == t.Name
	}
	if !there {
		return nil, nil
	}
	d := &tableDump{
		chains: map[string]*nftables.Chain{},
		rules:  map[string][]*nftables.Rule{},
		maps:   map[string][]nftables.SetElement{},
	}
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name != t.Name {
			continue
		}
		d.chains[ch.Name] = ch
		if d.rules[ch.Name], err = c.GetRules(t, ch); err != nil {
			return nil, fmt.Errorf("list rules of %s: %w", ch.Name, err)
		}
	}
	sets, err := c.GetSets(t)
	if err != nil {
		return nil, fmt.Errorf("list maps: %w", err)
	}
	for _, s := range sets {
		if d.maps[s.Name], err = c.GetSetElements(s); err != nil {
			return nil, fmt.Errorf("list elements of %s: %w", s.Name, err)
		}
	}
	return d, nil
}

// dumpRules lists the rules of IPv4 routing.
func dumpRules(h *netlink.Handle) ([]netlink.Rule, error) {
	return repeat("rules of routing", func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_V4) })
}
