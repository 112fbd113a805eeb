package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol: what a balancer before us says of the client, ahead of
// all else (haproxy's doc/proxy-protocol.txt).
var (
	sign1 = []byte("PROXY ")
	sign2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

const (
	longest1 = 107
	longest2 = 4 << 10 // with what else it may tell, which nobody here reads
)

var errProxy = errors.New("the PROXY header is malformed")

// told is what a PROXY header says; both are invalid if it says nothing.
type told struct{ from, at netip.AddrPort }

// parseProxy reads the header that b begins with. n is how long it is, 0 if
// b does not begin with one; more says that b is too short to tell.
func parseProxy(b []byte) (t told, n int, more bool, err error) {
	switch {
	case len(b) >= len(sign2) && bytes.HasPrefix(b, sign2):
		return parseProxy2(b)
	case bytes.HasPrefix(b, sign1):
		return parseProxy1(b)
	case len(b) < len(sign2) && bytes.HasPrefix(sign2, b), len(b) < len(sign1) && bytes.HasPrefix(sign1, b):
		return told{}, 0, true, nil
	}
	return told{}, 0, false, nil
}

func parseProxy1(b []byte) (t told, n int, more bool, err error) {
	end := bytes.Index(b, []byte("\r\n"))
	if end < 0 && len(b) < longest1 {
		return t, 0, true, nil
	}
	if end < 0 || end+2 > longest1 {
		return t, 0, false, errProxy
	}
	f := strings.Split(string(b[len(sign1):end]), " ")
	if f[0] == "UNKNOWN" {
		return t, end + 2, false, nil
	}
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return t, 0, false, errProxy
	}
	from, err1 := addrPort(f[1], f[3])
	at, err2 := addrPort(f[2], f[4])
	if err1 != nil || err2 != nil || from.Addr().Is4() != (f[0] == "TCP4") || at.Addr().Is4() != (f[0] == "TCP4") {
		return t, 0, false, errProxy
	}
	return told{from, at}, end + 2, false, nil
}

func addrPort(addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, errProxy
	}
	n, ok := number([]byte(port))
	if !ok || n > 65535 || strconv.FormatInt(n, 10) != port {
		return netip.AddrPort{}, errProxy
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

func parseProxy2(b []byte) (t told, n int, more bool, err error) {
	if len(b) < 16 {
		return t, 0, true, nil
	}
	size := int(binary.BigEndian.Uint16(b[14:16]))
	if b[12]>>4 != 2 || b[12]&15 > 1 || 16+size > longest2 {
		return t, 0, false, errProxy
	}
	if len(b) < 16+size {
		return t, 0, true, nil
	}
	if b[12]&15 == 0 { // the balancer itself: it looks whether we live
		return t, 16 + size, false, nil
	}
	body := b[16 : 16+size]
	length := map[byte]int{1: 4, 2: 16}[b[13]>>4]
	if length == 0 { // not IP
		return t, 16 + size, false, nil
	}
	if len(body) < 2*length+4 {
		return t, 0, false, errProxy
	}
	from, _ := netip.AddrFromSlice(body[:length])
	at, _ := netip.AddrFromSlice(body[length : 2*length])
	t.from = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(body[2*length:]))
	t.at = netip.AddrPortFrom(at.Unmap(), binary.BigEndian.Uint16(body[2*length+2:]))
	return t, 16 + size, false, nil
}

// proxy2 is the header for a backend.
func proxy2(from, at netip.AddrPort) []byte {
	b := bytes.Clone(sign2)
	f, a := from.Addr().Unmap(), at.Addr().Unmap()
	if f.Is4() && a.Is4() {
		b = append(b, 0x21, 0x11, 0, 12)
		b = append(append(b, f.AsSlice()...), a.AsSlice()...)
	} else {
		f16, a16 := f.As16(), a.As16()
		b = append(b, 0x21, 0x21, 0, 36)
		b = append(append(b, f16[:]...), a16[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	return binary.BigEndian.AppendUint16(b, at.Port())
}

// meet finds out who a client is: who has connected, or whom a PROXY header
// of somebody trusted names. early are bytes that were read and belong to what
// follows. silent is how long to wait for a client that says nothing; if it
// does not, it is taken as it is.
func (p *Proxy) meet(c *net.TCPConn, silent time.Duration) (who peer, early []byte, err error) {
	who.from, who.at = addrOf(c.RemoteAddr()), addrOf(c.LocalAddr())
	if p.trusts(who.from.Addr()) {
		_ = c.SetReadDeadline(time.Now().Add(silent))
		var t told
		if t, early, err = readProxy(c); err != nil {
			return who, nil, err
		}
		if t.from.IsValid() {
			who.from, who.at = t.from, t.at
		}
		_ = c.SetReadDeadline(time.Time{})
	}
	who.text = who.from.Addr().String()
	who.trusted = p.trusts(who.from.Addr())
	return who, early, nil
}

// readProxy reads a PROXY header, if there is one, and what came with it.
func readProxy(c net.Conn) (told, []byte, error) {
	b := make([]byte, 0, 256)
	for {
		t, n, more, err := parseProxy(b)
		if err != nil || !more {
			return t, b[n:], err
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, longest2+256), b...)
		}
		n, err = c.Read(b[len(b):cap(b)])
		if errors.Is(err, os.ErrDeadlineExceeded) && len(b) == 0 {
			return told{}, nil, nil
		}
		if err != nil {
			return t, nil, err
		}
		b = b[:len(b)+n]
	}
}

func (p *Proxy) trusts(a netip.Addr) bool {
	for _, prefix := range p.cfg.ProxyProtocolFrom {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

func addrOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		at := a.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
	case *net.UDPAddr:
		at := a.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
	}
	return netip.AddrPort{}
}
