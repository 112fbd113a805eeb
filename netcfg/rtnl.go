package netcfg

import (
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

// setPort names the link, puts it on the bridge and sets it up.
func (s *sock) setPort(name, alias string, bridge int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	return s.do(unix.RTM_NEWLINK, 0, msg,
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
}

// deleteGroup deletes all links of a group at once.
func (s *sock) deleteGroup(group uint32) error {
	return s.do(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
}
