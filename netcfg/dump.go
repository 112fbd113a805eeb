package netcfg

import (
	"errors"
	"fmt"
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
func dumpAddrs(h *netlink.Handle, link netlink.Link, family int) ([]netlink.Addr, error) {
	return repeat("addresses", func() ([]netlink.Addr, error) { return h.AddrList(link, family) })
}

// dumpRoutes lists the IPv4 routes of all tables.
func dumpRoutes(h *netlink.Handle) ([]netlink.Route, error) {
	return repeat("routes", func() ([]netlink.Route, error) {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		return h.RouteListFiltered(netlink.FAMILY_V4, all, netlink.RT_FILTER_TABLE)
	})
}

// deleteFlows forgets the IPv4 connections that f names.
func deleteFlows(h *netlink.Handle, f netlink.CustomConntrackFilter) (uint, error) {
	return repeat("connections", func() (uint, error) {
		return h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, f)
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
	last, err := readTable(c, t)
	for range dumpTries {
		if err != nil {
			return nil, err
		}
		before := last
		if last, err = readTable(c, t); err == nil && reflect.DeepEqual(before, last) {
			return last, nil
		}
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
