package netcfg

import (
	"errors"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The library looks a link up by name after it made one, and sets alias,
// master and state one by one. A container's start waits for that, so here is
// the one message each that it takes; and the deletion of many links in one,
// which the library does not have.

// sock is a library handle and a socket of the same namespace for messages of
// our own. One request at a time goes through each.
type sock struct {
	*netlink.Handle
	raw map[int]*nl.SocketHandle
}

// openSock opens sockets in the namespace of the calling thread.
func openSock(families ...int) (*sock, error) {
	h, err := netlink.NewHandle(families...)
	if err != nil {
		return nil, err
	}
	raw, err := nl.Subscribe(unix.NETLINK_ROUTE) // no groups: a plain socket
	if err != nil {
		h.Close()
		return nil, err
	}
	return &sock{h, map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: raw}}}, nil
}

func (s *sock) close() {
	s.Close()
	s.raw[unix.NETLINK_ROUTE].Close()
}

func (s *sock) do(kind, flags int, msg *nl.IfInfomsg, attrs ...*nl.RtAttr) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.Sockets = s.raw
	req.AddData(msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// veth is a pair of links: host stays here, guest is made inside the namespace
// ns.
type veth struct {
	host, guest string
	mac         net.HardwareAddr // guest's
	mtu         int              // 0: the kernel's
	ns          int              // file descriptor
}

func (s *sock) addVeth(v veth) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC) // up is refused here: it has no peer yet
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.guest))
	peer.AddRtAttr(unix.IFLA_ADDRESS, v.mac)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.ns)))
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.host)), info}
	if v.mtu > 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.mtu)))
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.mtu))))
	}
	return s.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), attrs...)
}

// setPort names the link, puts it on the bridge and sets it up. IPv6 is first
// told to make no address for it: nobody would use that, and each costs the
// machine a route, some packets and a fifth of a start's time when many start
// (2026-11).
func (s *sock) setPort(name, alias string, bridge int) error {
	af := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	af.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenNone))
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))),
	}
	err := s.do(unix.RTM_NEWLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), append(attrs, af)...)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // without IPv6 there is nothing to tell
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	if err == nil {
		attrs = attrs[:1]
	}
	return s.do(unix.RTM_NEWLINK, 0, msg, attrs...)
}

const addrGenNone = 1 // IN6_ADDR_GEN_MODE_NONE

// childLink is a link that shares parent, made inside the namespace ns.
type childLink struct {
	kind   string // "macvlan", "ipvlan"
	parent int
	mode   uint32
	name   string
	mac    net.HardwareAddr // none: parent's
	mtu    int              // 0: parent's
	ns     int              // file descriptor
}

func (s *sock) addChild(c childLink) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(c.kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	if c.kind == "macvlan" {
		data.AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(c.mode))
	} else {
		data.AddRtAttr(nl.IFLA_IPVLAN_MODE, nl.Uint16Attr(uint16(c.mode)))
	}
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(c.name)),
		nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(c.parent))),
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(c.ns))),
		info,
	}
	if len(c.mac) > 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_ADDRESS, c.mac))
	}
	if c.mtu > 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(c.mtu))))
	}
	return s.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), attrs...)
}

// probe asks for a link of the kind without what it takes. It is never made:
// a kernel that knows the kind, or can load it, answers EINVAL, another one
// EOPNOTSUPP.
func (s *sock) probe(kind string) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	return s.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), info)
}

// moveLink moves a link into the namespace ns and names it there.
func (s *sock) moveLink(index, ns int, name string) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return s.do(unix.RTM_NEWLINK, 0, msg,
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns))),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// deleteGroup deletes all links of a group at once.
func (s *sock) deleteGroup(group uint32) error {
	return s.do(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
}
