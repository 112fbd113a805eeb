package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// port is a published port as the node's API writes it: "8080:80",
// "127.0.0.1:5353:53/udp", "eth0:8000-8003:80".
type port struct {
	where       string // an address, a prefix or an interface; empty: all
	first, last uint16 // of the host
	guest       uint16
	udp         bool
}

func parsePort(s string) (p port, ok bool) {
	// "10.0.0.0/8:80:80/udp" has a slash that is none before a protocol.
	if rest, proto, has := cutLast(s, "/"); has && !strings.Contains(proto, ":") {
		if proto != "tcp" && proto != "udp" {
			return port{}, false
		}
		s, p.udp = rest, proto == "udp"
	}
	host, guest, ok := cutLast(s, ":")
	if !ok {
		return port{}, false
	}
	if where, number, more := cutLast(host, ":"); more {
		p.where, host = strings.Trim(where, "[]"), number
	}
	first, last, span := strings.Cut(host, "-")
	if !span {
		last = first
	}
	guest, _, _ = strings.Cut(guest, "-")
	return p, number(first, &p.first) && number(last, &p.last) && number(guest, &p.guest) && p.first <= p.last
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func number(s string, to *uint16) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	*to = uint16(n)
	return err == nil && n > 0
}

// at is where the port is reached on a host with that address; empty is the one
// that the host calls from.
func (p port) at(address string) string {
	if a, err := netip.ParseAddr(p.where); err == nil && !a.IsUnspecified() {
		address = p.where
	}
	return net.JoinHostPort(address, strconv.Itoa(int(p.first)))
}

// ports gives out ports of the host.
type ports struct {
	first, last uint16
	free        func(ctx context.Context, p uint16) bool // asks the machine

	mu      sync.Mutex
	claimed map[uint16]bool // by launches under way
}

// claim chooses a port of the host for each of wants that does not care, other
// than what containers have and than those of avoid, which it adds to. Where
// the search begins depends on the launch, so that few launches meet. The
// caller calls release when the node knows of the ports.
func (p *ports) claim(ctx context.Context, launch string, wants []hostapi.LaunchPort, has []buoy.ContainerSummary, avoid map[uint16]bool) (published []string, release func(), err error) {
	taken := map[uint16]bool{}
	for _, c := range has {
		for _, text := range c.Ports {
			if had, ok := parsePort(text); ok {
				for n := int(had.first); n <= int(had.last); n++ {
					taken[uint16(n)] = true
				}
			}
		}
	}
	for _, w := range wants {
		taken[w.Host] = true
	}
	var mine []uint16
	release = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, n := range mine {
			delete(p.claimed, n)
		}
	}
	size := int(p.last) - int(p.first) + 1
	h := fnv.New32a()
	_, _ = h.Write([]byte(launch)) // it never fails
	at, tried := int(h.Sum32()%uint32(size)), 0
	for _, w := range wants {
		n := w.Host
		for ; n == 0 && tried < size; tried++ {
			c := uint16(int(p.first) + (at+tried)%size)
			if !taken[c] && !avoid[c] && p.take(c) {
				mine = append(mine, c)
				if avoid[c] = true; p.free(ctx, c) {
					n = c
				}
			}
		}
		if n == 0 {
			release()
			return nil, nil, errs.E(errs.Unavailable, "none of the ports %d to %d of this host is free", p.first, p.last)
		}
		text := fmt.Sprintf("%d:%d", n, w.Container)
		if w.UDP {
			text += "/udp"
		}
		published = append(published, text)
	}
	return published, release, nil
}

func (p *ports) take(n uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claimed[n] {
		return false
	}
	p.claimed[n] = true
	return true
}

// bindable says whether no program of the host has the port, TCP or UDP.
func bindable(ctx context.Context, n uint16) bool {
	var lc net.ListenConfig
	at := ":" + strconv.Itoa(int(n))
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return false
	}
	defer l.Close()
	u, err := lc.ListenPacket(ctx, "udp", at)
	if err != nil {
		return false
	}
	return u.Close() == nil
}
