package dns

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Domain has the names of containers: NAME, and NAME.buoy.internal. Nothing
// below it is ever asked of others.
const Domain = "buoy.internal"

const (
	zone = Domain + "."
	// ttl is how long, in seconds, others may remember what we know.
	ttl = 5
)

// local answers what needs nobody else: what we know, and what we remember.
// nil: it has to be forwarded.
func (s *Server) local(a Asker, q *dns.Msg) *dns.Msg {
	if answer := known(s.cfg.Names, a, q); answer != nil {
		return answer
	}
	return s.cache.get(q, time.Now())
}

// known answers from Names. nil: it is not ours to answer.
func known(names Names, a Asker, q *dns.Msg) *dns.Msg {
	question := q.Question[0]
	name := dns.CanonicalName(question.Name)
	if addr, ok := reversed(name); ok {
		target, known := names.Reverse(a, addr)
		if !known {
			return nil
		}
		ptr := &dns.PTR{Hdr: header(question.Name, dns.TypePTR), Ptr: target + "." + zone}
		return answer(q, name, []dns.RR{ptr})
	}
	bare, below := strings.CutSuffix(name, "."+zone)
	if name == zone { // it is there, and has nothing
		return answer(q, zone, nil)
	}
	apex := zone
	if !below {
		bare = strings.TrimSuffix(name, ".")
		apex = name
	}
	var addrs []netip.Addr
	var ok bool
	if bare != "" { // the root
		addrs, ok = names.Lookup(a, bare)
	}
	if !ok && !below {
		return nil
	}
	var rrs []dns.RR
	for _, a := range addrs {
		rrs = append(rrs, address(question.Name, a.Unmap()))
	}
	m := answer(q, apex, rrs)
	if !ok {
		m.Rcode = dns.RcodeNameError
	}
	return m
}

// answer holds those of rrs that were asked for. Without any it says so, and
// for how long that is so, on behalf of apex.
func answer(q *dns.Msg, apex string, rrs []dns.RR) *dns.Msg {
	m := (&dns.Msg{}).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	for _, rr := range rrs {
		if t := q.Question[0].Qtype; t == dns.TypeANY || t == rr.Header().Rrtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{&dns.SOA{
			Hdr: header(apex, dns.TypeSOA), Ns: zone, Mbox: "nobody.invalid.",
			Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
		}}
	}
	return m
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

// reversed reads 4.3.2.1.in-addr.arpa. and the like of IPv6.
func reversed(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		return reversedOf(rest, 4, 10, 8)
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		return reversedOf(rest, 32, 16, 4)
	}
	return netip.Addr{}, false
}

// reversedOf reads n labels of so many bits in that base, last one first.
func reversedOf(s string, n, base, bits int) (netip.Addr, bool) {
	labels := strings.Split(s, ".")
	if len(labels) != n {
		return netip.Addr{}, false
	}
	b := make([]byte, n*bits/8)
	for i, l := range labels {
		v, err := strconv.ParseUint(l, base, bits)
		if err != nil || strconv.FormatUint(v, base) != l {
			return netip.Addr{}, false
		}
		at := n - 1 - i
		b[at*bits/8] |= byte(v) << (8 - bits - at*bits%8)
	}
	return netip.AddrFromSlice(b)
}
