package netcfg

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Links of ours are known by their alias:
//
//	buoy:<instance>                  the default bridge
//	buoy:<instance>/bridge           a bridge made through the API
//	buoy:<instance>/nat              such a one whose containers go out by NAT
//	buoy:<instance>/vlan 7 on eth1   a VLAN's links
//	buoy:<instance>/vxlan 7 on eth1  a VXLAN's links
//	buoy:<instance>/passthrough eth1 a NIC of the machine while it is lent out
//	buoy:<instance>:<container>      the host end of a container's first NIC
//	buoy:<instance>/1:<container>    of its second
//
// A crash may come between making a link and giving it the alias, so there is a
// second mark that a link is born with: a bridge's MAC, the name of all others.

const aliasMark = "buoy:"

// The kinds of links in an alias.
const (
	markBridge      = "/bridge"
	markNAT         = "/nat"
	markPassthrough = "/passthrough "
)

func hash(n int, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:n]
}

// born starts the names of this instance's links of a kind: bv, the host end
// of a container's; bb, the bridge of a VLAN or VXLAN; bl, what connects it.
func (n *Net) born(kind string) string { return kind + hash(4, n.cfg.Instance) }

func (n *Net) portMark() string { return n.born("bv") }

// portName is the host end of a container's NIC.
func (n *Net) portName(container string, index int) string {
	if index == 0 {
		return n.portMark() + hash(9, n.cfg.Instance, container)
	}
	return n.portMark() + hash(9, n.cfg.Instance, container, strconv.Itoa(index))
}

func (n *Net) alias() string { return aliasMark + n.cfg.Instance }

func (n *Net) portAlias(container string, index int) string {
	if index == 0 {
		return n.alias() + ":" + container
	}
	return fmt.Sprintf("%s/%d:%s", n.alias(), index, container)
}

// birthMAC is what a bridge of that name is made with.
func (n *Net) birthMAC(bridge string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("buoy bridge\x00" + n.cfg.Instance + "\x00" + bridge))
	return append(net.HardwareAddr{0x02, 0x62}, sum[:4]...)
}

// machineID tells this machine from others on a network they share; "" where
// the system has none.
var machineID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/etc/machine-id")
	return strings.TrimSpace(string(b))
})

// guestMAC is the MAC of a NIC that asks for none. On the default bridge it is
// made from the address: neighbours that remember a former holder of the
// address are right at once. Elsewhere other machines are on the same network,
// so it is made from this machine's name and from near, the MAC of the link
// that leads there, as well; it stays over restarts, for the sake of leases.
func guestMAC(l Link, near string) net.HardwareAddr {
	var first netip.Addr
	if len(l.Addrs) > 0 {
		first = l.Addrs[0].Addr()
	}
	if l.NIC.Type == NICDefault && first.Is4() {
		b := first.As4()
		return net.HardwareAddr{0x02, 0x63, b[0], b[1], b[2], b[3]}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "buoy NIC\x00%s\x00%s\x00%s\x00%d\x00%s", machineID(), near, l.Container, l.Index, first))
	return append(net.HardwareAddr{0x06}, sum[:5]...)
}

// ownsBridge says whether link is this instance's default bridge.
func (n *Net) ownsBridge(link netlink.Link) bool {
	a := link.Attrs()
	if link.Type() != "bridge" {
		return false
	}
	if a.Alias == "" {
		return a.HardwareAddr.String() == n.birthMAC(a.Name).String()
	}
	base, _ := cutNote(a.Alias)
	return base == n.alias()
}

// ownsPort says whether link is the host end of a container of this instance,
// and of which; "" if a crash kept its name from being written.
func (n *Net) ownsPort(link netlink.Link) (of holder, ours bool) {
	a := link.Attrs()
	if a.Alias == "" {
		return holder{}, link.Type() == "veth" && strings.HasPrefix(a.Name, n.portMark())
	}
	rest, ours := strings.CutPrefix(a.Alias, n.alias())
	if !ours {
		return holder{}, false
	}
	if container, first := strings.CutPrefix(rest, ":"); first {
		return holder{container, 0}, true
	}
	numbered, ours := strings.CutPrefix(rest, "/")
	number, container, _ := strings.Cut(numbered, ":")
	index, err := strconv.Atoi(number)
	return holder{container, index}, ours && err == nil
}

// ownsSegment says whether link is one of a VLAN's or VXLAN's of this instance.
func (n *Net) ownsSegment(link netlink.Link) bool {
	a := link.Attrs()
	if a.Alias == "" {
		return strings.HasPrefix(a.Name, n.born("bb")) || strings.HasPrefix(a.Name, n.born("bl"))
	}
	return strings.HasPrefix(a.Alias, n.alias()+"/vlan ") || strings.HasPrefix(a.Alias, n.alias()+"/vxlan ")
}

// ownsMade says whether link is a bridge that this instance made through the API.
func (n *Net) ownsMade(link netlink.Link) bool {
	base, _ := cutNote(link.Attrs().Alias)
	return link.Type() == "bridge" && (base == n.alias()+markBridge || base == n.alias()+markNAT)
}

// otherBridge says whether link is a bridge of another instance which needs
// the machine to forward packets.
func (n *Net) otherBridge(link netlink.Link) bool {
	base, _ := cutNote(link.Attrs().Alias)
	of, ours := strings.CutPrefix(base, aliasMark)
	of, kind, _ := strings.Cut(of, "/")
	return link.Type() == "bridge" && ours && of != n.cfg.Instance && !strings.Contains(of, ":") && (kind == "" || "/"+kind == markNAT)
}

// checkLinkName holds the kernel's rules for names of links.
func checkLinkName(name string) error {
	switch {
	case name == "" || len(name) > 15:
		return errs.E(errs.Invalid, "interface name %q: use 1 to 15 characters", name)
	case name == "." || name == ".." || name == "lo" || name == "all" || name == "default":
		return errs.E(errs.Invalid, "interface name %q is reserved", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }):
		return errs.E(errs.Invalid, "interface name %q: use letters, digits, '.', '-' and '_'", name)
	}
	return nil
}
