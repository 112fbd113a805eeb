package netcfg

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/thread"
)

// Ability is something that the kernel may be able to do.
type Ability struct {
	Module string // that it comes with: veth, 8021q, …
	Err    error  // why it cannot be had; nil: it can
}

// Abilities tries what NICs and ports need of the kernel, which does not list
// it: in a network namespace that goes at once. Needs root.
func Abilities() (all []Ability, err error) {
	attrs := func(name string, parent int) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name, a.ParentIndex = name, parent
		return a
	}
	pair := func(name string) *netlink.Veth {
		return &netlink.Veth{LinkAttrs: attrs(name, 0), PeerName: name + "-peer"}
	}
	kinds := []struct {
		module string
		under  bool // it hangs on another link
		link   func(parent int) netlink.Link
	}{
		{"bridge", false, func(int) netlink.Link { return &netlink.Bridge{LinkAttrs: attrs("bridge", 0)} }},
		{"veth", false, func(int) netlink.Link { return pair("veth") }},
		{"8021q", true, func(parent int) netlink.Link {
			return &netlink.Vlan{LinkAttrs: attrs("vlan", parent), VlanId: 7, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		}},
		{"vxlan", false, func(int) netlink.Link { return &netlink.Vxlan{LinkAttrs: attrs("vxlan", 0), VxlanId: 7, Port: 4789} }},
		{"macvlan", true, func(parent int) netlink.Link {
			return &netlink.Macvlan{LinkAttrs: attrs("macvlan", parent), Mode: netlink.MACVLAN_MODE_BRIDGE}
		}},
		{"ipvlan", true, func(parent int) netlink.Link {
			return &netlink.IPVlan{LinkAttrs: attrs("ipvlan", parent), Mode: netlink.IPVLAN_MODE_L2}
		}},
	}
	err = thread.Own(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, k := range kinds {
			parent := 0
			if k.under {
				p := pair("p-" + k.module)
				if err := h.LinkAdd(p); err != nil {
					all = append(all, Ability{k.module, err})
					continue
				}
				parent = p.Index
			}
			all = append(all, Ability{k.module, h.LinkAdd(k.link(parent))})
		}
		all = append(all, Ability{"nf_tables", ableRules()})
		return nil
	})
	return all, err
}

// ableRules asks nftables for its tables, in the present namespace.
func ableRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	_, err = c.ListTables()
	return err
}
