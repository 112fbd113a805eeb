package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// book is a Names of one network and its listener, 10.0.0.1; "far" is known
// on another one.
type book map[string][]netip.Addr

var here = netip.MustParseAddr("10.0.0.1")

func (b book) Lookup(a Asker, name string) ([]netip.Addr, bool) {
	if name == "far" && a.Listener == here {
		return nil, false
	}
	addrs, ok := b[name]
	return addrs, ok
}

func (b book) Reverse(asker Asker, addr netip.Addr) (string, bool) {
	for name, addrs := range b {
		for _, a := range addrs {
			if a == addr && (name != "far" || asker.Listener != here) {
				return name, true
			}
		}
	}
	return "", false
}

func addrs(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

var names = book{
	"web":   addrs("10.0.0.2", "fd00::2"),
	"v4":    addrs("10.0.0.3"),
	"web.1": addrs("10.0.0.4"),
	"none":  nil,
	"far":   addrs("10.9.0.2"),
}

func question(name, qtype string) *dns.Msg {
	return (&dns.Msg{}).SetQuestion(name, dns.StringToType[qtype])
}

// short is an answer in one line.
func short(m *dns.Msg) string {
	if m == nil {
		return "forward"
	}
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	for _, rr := range m.Ns {
		words = append(words, "("+dns.TypeToString[rr.Header().Rrtype]+" of "+rr.Header().Name+")")
	}
	return strings.Join(words, " ")
}

func TestKnown(t *testing.T) {
	for _, c := range []struct{ name, qtype, want string }{
		{"web.", "A", "NOERROR 10.0.0.2"},
		{"WeB.Buoy.Internal.", "A", "NOERROR 10.0.0.2"},
		{"web.buoy.internal.", "AAAA", "NOERROR fd00::2"},
		{"web.", "ANY", "NOERROR 10.0.0.2 fd00::2"},
		{"web.1.", "A", "NOERROR 10.0.0.4"},
		{"web.1.buoy.internal.", "A", "NOERROR 10.0.0.4"},
		{"v4.", "AAAA", "NOERROR (SOA of v4.)"},
		{"v4.buoy.internal.", "AAAA", "NOERROR (SOA of buoy.internal.)"},
		{"v4.buoy.internal.", "HTTPS", "NOERROR (SOA of buoy.internal.)"},
		{"none.", "A", "NOERROR (SOA of none.)"},
		{"far.", "A", "forward"},
		{"far.buoy.internal.", "A", "NXDOMAIN (SOA of buoy.internal.)"},
		{"nobody.buoy.internal.", "A", "NXDOMAIN (SOA of buoy.internal.)"},
		{"a.web.buoy.internal.", "TXT", "NXDOMAIN (SOA of buoy.internal.)"},
		{"buoy.internal.", "A", "NOERROR (SOA of buoy.internal.)"},
		{"notbuoy.internal.", "A", "forward"},
		{"nobody.", "A", "forward"},
		{"example.com.", "A", "forward"},
		{".", "NS", "forward"},
		{"2.0.0.10.in-addr.arpa.", "PTR", "NOERROR web.buoy.internal."},
		{"2.0.0.10.IN-ADDR.arpa.", "A", "NOERROR (SOA of 2.0.0.10.in-addr.arpa.)"},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", "PTR", "NOERROR web.buoy.internal."},
		{"02.0.0.10.in-addr.arpa.", "PTR", "forward"},
		{"9.0.0.10.in-addr.arpa.", "PTR", "forward"},
		{"2.0.9.10.in-addr.arpa.", "PTR", "forward"},
		{"0.10.in-addr.arpa.", "PTR", "forward"},
		{"256.0.0.10.in-addr.arpa.", "PTR", "forward"},
	} {
		q := question(c.name, c.qtype)
		got := known(names, Asker{Listener: here}, q)
		if short(got) != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, c.qtype, short(got), c.want)
		}
		if got == nil {
			continue
		}
		if got.Id != q.Id || !got.Response || got.Question[0] != q.Question[0] || !got.RecursionAvailable {
			t.Errorf("%s %s: the answer's header is\n%s", c.name, c.qtype, got)
		}
		for _, rr := range append(got.Answer, got.Ns...) {
			if rr.Header().Ttl > 5 {
				t.Errorf("%s lasts more than 5 s", rr)
			}
		}
	}
}

func TestRead(t *testing.T) {
	wire := func(edit func(*dns.Msg)) []byte {
		q := question("web.", "A")
		edit(q)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := wire(func(*dns.Msg) {})
	for _, c := range []struct {
		what string
		wire []byte
		want string
	}{
		{"a query", good, "query"},
		{"nothing", nil, "silence"},
		{"half a header", good[:11], "silence"},
		{"an answer", wire(func(q *dns.Msg) { q.Response = true }), "silence"},
		{"half a question", good[:len(good)-3], "FORMERR"},
		{"an update", wire(func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }), "NOTIMP"},
		{"no question", wire(func(q *dns.Msg) { q.Question = nil }), "FORMERR"},
		{"two questions", wire(func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }), "FORMERR"},
		{"an answer inside", wire(func(q *dns.Msg) { q.Answer = []dns.RR{address("web.", here)} }), "FORMERR"},
		{"class CH", wire(func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }), "REFUSED"},
		{"a transfer", wire(func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAXFR }), "REFUSED"},
		{"EDNS of the future", wire(func(q *dns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(1) }), "BADVERS"},
	} {
		q, refusal := read(c.wire)
		got := "silence"
		switch {
		case q != nil && refusal == nil:
			got = "query"
		case refusal != nil:
			var m dns.Msg
			packed := pack(nil, refusal, 512)
			if err := m.Unpack(packed); err != nil || len(packed) > len(c.wire)+11 { // an OPT record
				t.Errorf("%s: %d bytes for %d, %v", c.what, len(packed), len(c.wire), err)
			}
			got = strings.ReplaceAll(dns.RcodeToString[m.Rcode], "BADSIG", "BADVERS") // one number, two names
			if good := (&dns.Msg{}); good.Unpack(c.wire) == nil && m.Id != good.Id {
				t.Errorf("%s: id %d, asked with %d", c.what, m.Id, good.Id)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// TestSizes asks for more addresses than fit one packet.
func TestSizes(t *testing.T) {
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}))
	}
	big := book{"big": many}
	for _, c := range []struct {
		edns uint16 // 0: without
		want int
	}{{0, 512}, {100, 512}, {1000, 1000}, {65535, 1232}} {
		q := question("big.", "A")
		if c.edns > 0 {
			q.SetEdns0(c.edns, true)
		}
		wire := pack(q, known(big, Asker{Listener: here}, q), udpSize(q))
		var m dns.Msg
		if err := m.Unpack(wire); err != nil {
			t.Fatal(err)
		}
		if len(wire) > c.want || len(wire) < c.want-32 || !m.Truncated || len(m.Answer) == 0 {
			t.Errorf("EDNS %d: %d bytes, truncated %v, %d addresses; want %d bytes", c.edns, len(wire), m.Truncated, len(m.Answer), c.want)
		}
		if opt := m.IsEdns0(); (opt != nil) != (c.edns > 0) || opt != nil && !opt.Do() {
			t.Errorf("EDNS %d: options %v", c.edns, opt)
		}
		if wire = pack(q, known(big, Asker{Listener: here}, q), maxAnswerTCP); m.Unpack(wire) != nil || m.Truncated || len(m.Answer) != 200 {
			t.Errorf("by TCP: %d of 200 addresses", len(m.Answer))
		}
	}
}

// TestUnpackable has a name that DNS cannot carry.
func TestUnpackable(t *testing.T) {
	odd := book{strings.Repeat("x", 70): addrs("10.0.0.2")}
	q := question("2.0.0.10.in-addr.arpa.", "PTR")
	var m dns.Msg
	if err := m.Unpack(pack(q, known(odd, Asker{Listener: here}, q), 512)); err != nil || m.Rcode != dns.RcodeServerFailure || m.Id != q.Id {
		t.Errorf("answer %v, %v; want SERVFAIL", &m, err)
	}
}

// FuzzQuery takes any packet; what is answered is an answer to it that fits.
func FuzzQuery(f *testing.F) {
	for _, q := range []*dns.Msg{question("web.", "A"), question("x.buoy.internal.", "TXT"), question("2.0.0.10.in-addr.arpa.", "PTR")} {
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		q.SetEdns0(4096, true)
		if b, err = q.Pack(); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, answer := read(b)
		if q != nil {
			if answer = known(names, Asker{Listener: here}, q); answer == nil {
				answer = refuse(q, dns.RcodeServerFailure)
				if _, err := outgoing(q).Pack(); err != nil {
					t.Fatalf("cannot be forwarded: %v", err)
				}
			}
		}
		if answer == nil {
			return
		}
		wire := pack(q, answer, udpSize(q))
		var m dns.Msg
		if err := m.Unpack(wire); err != nil || len(wire) > maxAnswerUDP || wire[0] != b[0] || wire[1] != b[1] || !m.Response {
			t.Fatalf("answer of %d bytes (%v):\n%s", len(wire), err, &m)
		}
	})
}
