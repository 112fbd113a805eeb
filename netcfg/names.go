package netcfg

import (
	"crypto/sha256"
	"encoding/base32"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Links of ours are known by their alias: "buoy:<instance>" for the bridge,
// "buoy:<instance>:<container>" for the host end of a container's link. A
// crash may come between making a link and giving it the alias, so there is a
// second mark that a link is born with: the bridge's MAC, the host end's name.

const aliasMark = "buoy:"

// wasOff on the alias of a bridge says that ip_forward was 0 before the
// instances on this machine, for one that starts while another already set it.
const wasOff = " (ip_forward was 0)"

func hash(n int, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:n]
}

// portMark starts the names of this instance's host ends.
func (n *Net) portMark() string { return "bv" + hash(4, n.cfg.Instance) }

// portName is the host end of container's link.
func (n *Net) portName(container string) string {
	return n.portMark() + hash(9, n.cfg.Instance, container)
}

func (n *Net) portAlias(container string) string {
	return aliasMark + n.cfg.Instance + ":" + container
}

func (n *Net) bridgeAlias(forwardWasOff bool) string {
	if forwardWasOff {
		return aliasMark + n.cfg.Instance + wasOff
	}
	return aliasMark + n.cfg.Instance
}

func (n *Net) bridgeMAC() net.HardwareAddr {
	sum := sha256.Sum256([]byte("buoy bridge\x00" + n.cfg.Instance + "\x00" + n.cfg.Bridge))
	return append(net.HardwareAddr{0x02, 0x62}, sum[:4]...)
}

// guestMAC is the default MAC of the container with address a: neighbours that
// remember a former holder of the address are right at once.
func guestMAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x63, b[0], b[1], b[2], b[3]}
}

// ownsBridge says whether link is this instance's bridge.
func (n *Net) ownsBridge(link netlink.Link) bool {
	a := link.Attrs()
	if link.Type() != "bridge" {
		return false
	}
	if a.Alias == "" {
		return a.HardwareAddr.String() == n.bridgeMAC().String()
	}
	return a.Alias == n.bridgeAlias(false) || a.Alias == n.bridgeAlias(true)
}

// ownsPort says whether link is the host end of a container of this instance,
// and of which; "" if a crash kept its name from being written.
func (n *Net) ownsPort(link netlink.Link) (container string, ours bool) {
	a := link.Attrs()
	if container, ours = strings.CutPrefix(a.Alias, n.portAlias("")); ours {
		return container, true
	}
	return "", a.Alias == "" && link.Type() == "veth" && strings.HasPrefix(a.Name, n.portMark())
}

// otherBridge says whether link is the bridge of another instance.
func (n *Net) otherBridge(link netlink.Link) bool {
	return link.Type() == "bridge" && strings.HasPrefix(link.Attrs().Alias, aliasMark) && !n.ownsBridge(link)
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
