package netcfg

import (
	"net"
	"net/netip"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// NICType says what a NIC of a container is connected to.
type NICType string

// NICDefault is the NAT bridge of this node.
const NICDefault NICType = "default"

// NIC is a network interface as a container's description asks for it.
type NIC struct {
	Type   NICType
	ID     string // which VLAN, VXLAN or bridge; nothing for default
	Name   string // inside the container; "": eth<index>
	HWAddr string // MAC; "": we choose
	Config NICConfig
}

// NICConfig says how the NIC gets its address. A default NIC gets it from us:
// of its config only DNS counts.
type NICConfig struct {
	DHCP    bool
	CIDR    string
	Gateway string
	DNS     []string
}

// Validate says in a sentence what is wrong with the NIC; errs.Invalid.
func (n NIC) Validate() error {
	if n.Type != NICDefault {
		return errs.E(errs.Invalid, "NIC type %q is not supported by this version; "+
			"supported: default (or hostNetworking, or no NIC)", n.Type)
	}
	if n.Name != "" {
		if err := checkNICName(n.Name); err != nil {
			return err
		}
	}
	if n.HWAddr != "" {
		mac, err := net.ParseMAC(n.HWAddr)
		if err != nil {
			return errs.E(errs.Invalid, "NIC hwaddr %q is not a MAC address like 02:00:5e:10:00:01", n.HWAddr)
		}
		if err := checkMAC(mac); err != nil {
			return err
		}
	}
	for _, s := range n.Config.DNS {
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
			return errs.E(errs.Invalid, "NIC dns server %q is not an IP address", s)
		}
	}
	return nil
}

// checkNICName holds the rules of Zero-OS: eth<index> is given by us, zt by
// ZeroTier.
func checkNICName(name string) error {
	if strings.HasPrefix(name, "eth") || strings.HasPrefix(name, "zt") {
		return errs.E(errs.Invalid, "NIC name %q: names must not start with \"eth\" or \"zt\"", name)
	}
	return checkLinkName(name)
}

func checkMAC(mac net.HardwareAddr) error {
	switch {
	case len(mac) != 6:
		return errs.E(errs.Invalid, "MAC address %s has %d bytes; an Ethernet one has 6", mac, len(mac))
	case mac[0]&1 != 0:
		return errs.E(errs.Invalid, "MAC address %s is a multicast address; a NIC needs a unicast one", mac)
	case [6]byte(mac) == [6]byte{}:
		return errs.E(errs.Invalid, "MAC address %s is all zero", mac)
	}
	return nil
}
