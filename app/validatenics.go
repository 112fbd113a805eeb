package app

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Bounds of network interfaces, which hosts have, too.
const (
	maxVLAN = 4094
	maxVNI  = 1<<24 - 1
	minMTU  = 576
	maxMTU  = 65535
	minRate = 8_000
	maxRate = 1_000_000_000_000
)

// network checks what replicas are connected to, as far as fields alone say it.
func (c *checker) network(s *Spec) {
	r := &s.Container
	names, keys := map[string]bool{}, map[[3]string]bool{}
	for i, n := range r.NICs {
		where := func(field string) string { return at("spec.nics", i, field) }
		if n.Config == nil {
			n.Config = &buoy.NICConfig{}
		}
		c.word(where("type"), n.Type, "default", "bridge", "vlan", "vxlan", "macvlan", "ipvlan", "passthrough", "cni")
		c.nic(where, n)
		c.addresses(where, n.Config)
		if n.Name != "" && names[n.Name] {
			c.add(where("name"), "is %q a second time", n.Name)
		}
		key := [3]string{n.Type, n.ID, n.Config.Uplink}
		if keys[key] {
			c.add("spec.nics", "has two that are both %s: keep one of them", strings.TrimSpace(n.Type+" "+n.ID)).With = []string{"spec.nics"}
		}
		if n.HWAddr != "" || n.Config.CIDR != "" || len(n.Config.CIDRs) > 0 {
			c.alone("spec.replicas", s.Replicas, n.Type)
			c.alone("scaling.minReplicas", s.Scaling.Min, n.Type)
		}
		names[n.Name], keys[key] = true, true
	}
	for i, server := range r.DNS {
		c.address(at("spec.dns", i, ""), server)
	}
	published := len(s.Ports) > 0 && !r.HostNetworking
	if published && !slices.ContainsFunc(r.NICs, func(n buoy.NIC) bool { return n.Type == "default" }) {
		c.add("spec.nics", "has none of type default, which ports are published through").With = append(each("spec.nics", len(r.NICs), "type"), "spec.hostNetwork")
	}
}

// alone refuses addresses that several replicas would have.
func (c *checker) alone(path string, replicas int, nic string) {
	if replicas > 1 {
		c.add(path, "is %d, and the NIC of type %s has an address of its own, which one replica alone can have", replicas, nic).With = []string{"spec.nics"}
	}
}

// nic checks what the type of an interface wants.
func (c *checker) nic(where func(string) string, n buoy.NIC) {
	problem := func(field, format string, args ...any) {
		c.add(where(field), format, args...).With = []string{where("type")}
	}
	number := func(least, most uint64) {
		if v, err := strconv.ParseUint(n.ID, 10, 32); err != nil || v < least || v > most || strconv.FormatUint(v, 10) != n.ID {
			problem("id", "is %q; of a %s it must be %d to %d", n.ID, n.Type, least, most)
		}
	}
	link := func(field, name string) {
		if !validLink(name) {
			problem(field, "is %q; it must be the name of a link: 1 to 15 letters, digits, '.', '-' and '_'", name)
		}
	}
	k := n.Config
	switch n.Type {
	case "default":
		if n.ID != "" {
			problem("id", "is %q, and the type default takes none", n.ID)
		}
		if k.DHCP || k.Gateway != "" || len(k.Gateways) > 0 {
			problem("config", "has dhcp or a gateway, and that of the type default comes from the host")
		}
	case "vlan":
		number(0, maxVLAN)
	case "vxlan":
		number(1, maxVNI)
		if (k.Group != "") == (len(k.Peers) > 0) {
			c.add(where("config"), "must say who the peers of a vxlan are: a group, or peers").With = []string{where("type"), where("config")}
		}
	case "bridge", "passthrough":
		link("id", n.ID)
	case "macvlan":
		c.mode(where, n, [3]string{"bridge", "private", "vepa"})
	case "ipvlan":
		c.mode(where, n, [3]string{"l2", "l3", "l3s"})
		if n.HWAddr != "" {
			problem("hwaddr", "is %q, and an ipvlan has the MAC of the link it is on", n.HWAddr)
		}
	case "cni":
		if n.ID == "" || strings.ContainsFunc(n.ID, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
			problem("id", "is %q; it must be the name of a network in the CNI configuration", n.ID)
		}
	}
	if n.Name != "" {
		link("name", n.Name)
	}
	if strings.HasPrefix(n.Name, "eth") || strings.HasPrefix(n.Name, "zt") {
		c.add(where("name"), "is %q; names that begin with eth or zt are given by hosts", n.Name)
	}
	if mac, err := net.ParseMAC(n.HWAddr); n.HWAddr != "" && (err != nil || len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == [6]byte{}) {
		c.add(where("hwaddr"), "is %q; it must be the MAC address of a machine, like 02:00:5e:10:00:01", n.HWAddr)
	}
}

func (c *checker) mode(where func(string) string, n buoy.NIC, modes [3]string) {
	if n.Config.Mode != "" && !slices.Contains(modes[:], n.Config.Mode) {
		c.add(where("config.mode"), "is %q; of a %s it must be %s or %s", n.Config.Mode, n.Type, strings.Join(modes[:2], ", "), modes[2]).With = []string{where("type")}
	}
}

// addresses checks the configuration of an interface.
func (c *checker) addresses(where func(string) string, k *buoy.NICConfig) {
	if k.MTU != 0 {
		c.number(where("config.mtu"), int64(k.MTU), minMTU, maxMTU)
	}
	if k.DHCP && (k.CIDR != "" || len(k.CIDRs) > 0 || k.Gateway != "" || len(k.Gateways) > 0) {
		c.add(where("config.dhcp"), "is true, and an address or a gateway is there, too: keep one of them")
	}
	prefix := func(path, text string) {
		if p, err := netip.ParsePrefix(text); err != nil || p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr().IsLoopback() {
			c.add(path, "is %q; it must be an address with its length, like 192.168.1.10/24", text)
		}
	}
	if k.CIDR != "" {
		prefix(where("config.cidr"), k.CIDR)
	}
	for i, text := range k.CIDRs {
		prefix(at(where("config.cidrs"), i, ""), text)
	}
	if k.Gateway != "" {
		c.address(where("config.gateway"), k.Gateway)
	}
	for _, f := range []struct {
		name  string
		texts []string
	}{{"gateways", k.Gateways}, {"dns", k.DNS}, {"peers", k.Peers}} {
		for i, text := range f.texts {
			c.address(at(where("config."+f.name), i, ""), text)
		}
	}
	if k.Group != "" {
		if a, err := netip.ParseAddr(k.Group); err != nil || !a.IsMulticast() {
			c.add(where("config.group"), "is %q; it must be a multicast address, like 239.1.1.1", k.Group)
		}
	}
	for i, route := range k.Routes {
		path := at(where("config.routes"), i, "")
		if p, err := netip.ParsePrefix(route.To); err != nil || p != p.Masked() {
			c.add(path+".to", "is %q; it must be a network, like 10.1.0.0/16", route.To)
		}
		if route.Via != "" {
			c.address(path+".via", route.Via)
		}
	}
	if k.Rate != nil {
		c.rate(where("config.rate.in"), k.Rate.In)
		c.rate(where("config.rate.out"), k.Rate.Out)
	}
}

func (c *checker) rate(path string, bits uint64) {
	if bits != 0 && (bits < minRate || bits > maxRate) {
		c.add(path, "is %d; it must be %d to %d bits a second", bits, minRate, maxRate)
	}
}

// address complains about what is no address of a machine.
func (c *checker) address(path, text string) {
	if a, err := netip.ParseAddr(text); err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		c.add(path, "is %q; it must be an IP address", text)
	}
}

func validLink(name string) bool {
	return name != "" && len(name) <= 15 && !slices.Contains([]string{".", "..", "lo", "all", "default"}, name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) })
}
