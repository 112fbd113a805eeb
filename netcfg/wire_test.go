package netcfg

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// nicLink is a NIC of container with these addresses.
func nicLink(container string, nic NIC, addrs ...string) Link {
	l := Link{Container: container, NIC: nic}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, prefix(a))
	}
	return l
}

// joinNS makes a namespace for the link and attaches it.
func joinNS(t testing.TB, n *Net, l Link) (ns *Netns) {
	t.Helper()
	ns, err := n.Netns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	attach(t, n, ns, l)
	return ns
}

func attach(t testing.TB, n *Net, ns *Netns, l Link) {
	t.Helper()
	if err := n.Attach(t.Context(), ns.Path(), l); err != nil {
		t.Fatal(err)
	}
}

func detach(t testing.TB, n *Net, path string, l Link) {
	t.Helper()
	if err := n.Detach(t.Context(), path, l); err != nil {
		t.Fatal(err)
	}
}

// refused wants an error of the kind that says so.
func refused(t testing.TB, err error, kind errs.Kind, says string) {
	t.Helper()
	if err == nil || errs.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		t.Errorf("err = %v (%s), want %s: … %s …", err, errs.KindOf(err), kind, says)
	}
}

// ping asks a machine with packets of that many bytes, and says whether one
// answered within some hundred milliseconds.
func ping(t testing.TB, ns, to string, size int) (answered bool) {
	t.Helper()
	a := netip.MustParseAddr(to)
	family, proto, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), byte(0)
	var sa unix.Sockaddr = &unix.SockaddrInet4{}
	if a.Is6() {
		family, proto, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129
		sa = &unix.SockaddrInet6{Addr: a.As16()}
	} else {
		sa = &unix.SockaddrInet4{Addr: a.As4()}
	}
	packet := make([]byte, size)
	packet[0] = request
	binary.BigEndian.PutUint16(packet[4:], uint16(time.Now().UnixNano()))
	if a.Is4() {
		binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	}
	err := InNS(ns, func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		buf := make([]byte, 70000)
		for range 5 {
			if err := unix.Sendto(fd, packet, 0, sa); err != nil {
				return nil // no way there, or too large
			}
			for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
				k, _, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					break
				}
				b := buf[:k]
				if a.Is4() {
					b = b[int(b[0]&15)*4:]
				}
				if b[0] == reply && slices.Equal(b[4:8], packet[4:8]) {
					answered = true
					return nil
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return answered
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// reaches wants an answer within the time that links take to forward.
func reaches(t testing.TB, from, to string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); !ping(t, from, to, 64); {
		if time.Now().After(end) {
			t.Errorf("%s does not answer", to)
			return
		}
	}
}

func cutOff(t testing.TB, from, to string) {
	t.Helper()
	if ping(t, from, to, 64) {
		t.Errorf("%s answers", to)
	}
}

// seen is an interface of a namespace as ip(8) tells it.
type seen struct {
	Name    string   `json:"ifname"`
	MAC     string   `json:"address"`
	MTU     int      `json:"mtu"`
	Alias   string   `json:"ifalias"`
	Master  string   `json:"master"`
	Qdisc   string   `json:"qdisc"`
	Flags   []string `json:"flags"`
	Index   int      `json:"ifindex"`
	AddrsIn []struct {
		Local string `json:"local"`
		Bits  int    `json:"prefixlen"`
		Scope string `json:"scope"`
	} `json:"addr_info"`
	Info struct {
		Kind string `json:"info_kind"`
		Data struct {
			Mode string `json:"mode"`
		} `json:"info_data"`
	} `json:"linkinfo"`
}

func (s seen) addrs() (list []string) {
	for _, a := range s.AddrsIn {
		if a.Scope != "link" {
			list = append(list, netip.PrefixFrom(netip.MustParseAddr(a.Local), a.Bits).String())
		}
	}
	return list
}

func (s seen) up() bool { return slices.Contains(s.Flags, "UP") }

// look finds an interface; nil if there is none.
func (w *world) look(t testing.TB, ns, name string) *seen {
	t.Helper()
	var list []seen
	if err := json.Unmarshal([]byte(w.sh(t, ns, "ip -d -j addr 2>/dev/null")), &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Name == name {
			return &s
		}
	}
	return nil
}

// back wants the host to become as it was.
func (w *world) back(t testing.TB, before string) {
	t.Helper()
	after := w.state(t)
	for end := time.Now().Add(3 * time.Second); after != before && time.Now().Before(end); after = w.state(t) {
		time.Sleep(10 * time.Millisecond)
	}
	if after != before {
		t.Errorf("not as before:\n%s", diff(after, before))
	}
}

func empty(t testing.TB, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("state directory: %v, %v", left, err)
	}
}
