package dns

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func rr(t testing.TB, s string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

func TestCache(t *testing.T) {
	soa := rr(t, "example. 900 IN SOA ns. me. 1 2 3 4 60")
	for _, c := range []struct {
		what   string
		answer dns.Msg
		lasts  time.Duration
	}{
		{"shortest record", dns.Msg{Answer: []dns.RR{rr(t, "a.example. 300 A 1.2.3.4"), rr(t, "a.example. 30 A 1.2.3.5")}}, 30 * time.Second},
		{"long", dns.Msg{Answer: []dns.RR{rr(t, "a.example. 90000 A 1.2.3.4")}}, time.Hour},
		{"never", dns.Msg{Answer: []dns.RR{rr(t, "a.example. 0 A 1.2.3.4")}}, 0},
		{"absurd", dns.Msg{Answer: []dns.RR{rr(t, "a.example. 2147483648 A 1.2.3.4")}}, 0},
		{"no such name", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Ns: []dns.RR{soa}}, time.Minute},
		{"no such type", dns.Msg{Ns: []dns.RR{soa}}, time.Minute},
		{"no such type behind an alias", dns.Msg{Answer: []dns.RR{rr(t, "a.example. 20 CNAME b.example.")}, Ns: []dns.RR{soa}}, 20 * time.Second},
		{"nothing, for nobody knows how long", dns.Msg{}, 0},
		{"no such name, for nobody knows how long", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}}, 0},
		{"failure", dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}, Ns: []dns.RR{soa}}, 0},
		{"truncated", dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}, Answer: []dns.RR{rr(t, "a.example. 30 A 1.2.3.4")}}, 0},
	} {
		var kept cache
		q := question("A.example.", "A")
		m := c.answer
		m.Question = q.Question
		kept.put(q, &m, noon)
		if c.lasts == 0 {
			if kept.get(q, noon) != nil {
				t.Errorf("%s: remembered", c.what)
			}
			continue
		}
		again := question("a.EXAMPLE.", "A")
		again.Id = q.Id + 1
		before := kept.get(again, noon.Add(c.lasts-time.Second))
		if before == nil || before.Rcode != c.answer.Rcode || before.Id != again.Id || before.Question[0].Name != "a.EXAMPLE." {
			t.Errorf("%s: just before %s: %v", c.what, c.lasts, before)
			continue
		}
		for i, rr := range before.Answer {
			if got, was := rr.Header().Ttl, c.answer.Answer[i].Header().Ttl; got != was-uint32(c.lasts/time.Second)+1 {
				t.Errorf("%s: TTL %d, was %d", c.what, got, was)
			}
		}
		if kept.get(q, noon.Add(c.lasts)) != nil {
			t.Errorf("%s: still remembered after %s", c.what, c.lasts)
		}
		if kept.size != 0 || len(kept.byKey) != 0 {
			t.Errorf("%s: an old answer takes %d bytes", c.what, kept.size)
		}
	}
}

// TestCacheKeys: what a client wants to know of DNSSEC changes the answer.
func TestCacheKeys(t *testing.T) {
	var kept cache
	q := question("a.example.", "A")
	m := &dns.Msg{Question: q.Question, Answer: []dns.RR{rr(t, "a.example. 300 A 1.2.3.4")}}
	kept.put(q, m, noon)
	for what, edit := range map[string]func(*dns.Msg){
		"type": func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAAAA },
		"name": func(q *dns.Msg) { q.Question[0].Name = "b.example." },
		"DO":   func(q *dns.Msg) { q.SetEdns0(1232, true) },
		"CD":   func(q *dns.Msg) { q.CheckingDisabled = true },
		"AD":   func(q *dns.Msg) { q.AuthenticatedData = true },
	} {
		other := question("a.example.", "A")
		edit(other)
		if kept.get(other, noon) != nil {
			t.Errorf("another %s has the same answer", what)
		}
	}
	if kept.clear(); kept.get(q, noon) != nil || kept.size != 0 {
		t.Error("something is left after clear")
	}
}

func TestCacheIsBounded(t *testing.T) {
	var kept cache
	answer := func(i int) (*dns.Msg, *dns.Msg) {
		q := question(fmt.Sprintf("n%d.example.", i), "A")
		return q, &dns.Msg{Question: q.Question, Answer: []dns.RR{rr(t, q.Question[0].Name+" 300 A 1.2.3.4")}}
	}
	first, m := answer(0)
	kept.put(first, m, noon)
	const n = 20_000
	for i := 1; i < n; i++ {
		q, m := answer(i)
		kept.put(q, m, noon)
		if kept.get(first, noon) == nil {
			t.Fatalf("what is used all the time was dropped after %d others", i)
		}
	}
	if kept.size > maxCache || kept.size < maxCache/2 || len(kept.byKey) != kept.used.Len() {
		t.Errorf("%d bytes, %d and %d entries", kept.size, len(kept.byKey), kept.used.Len())
	}
	if q, _ := answer(1); kept.get(q, noon) != nil {
		t.Error("the oldest is still there")
	}
	if q, _ := answer(n - 1); kept.get(q, noon) == nil {
		t.Error("the newest is gone")
	}
	sum := 0
	for at := kept.used.Front(); at != nil; at = at.Next() {
		sum += at.Value.(*entry).size()
	}
	if sum != kept.size {
		t.Errorf("size is %d, entries have %d", kept.size, sum)
	}
	big := question("big.example.", "TXT")
	m = &dns.Msg{Question: big.Question}
	for range 30 {
		m.Answer = append(m.Answer, rr(t, fmt.Sprintf("big.example. 300 TXT %0200d", 1)))
	}
	if kept.put(big, m, noon); kept.get(big, noon) != nil {
		t.Error("an answer of 6 KiB is remembered")
	}
}

// FuzzAnswer takes any packet from an upstream; if it passes for an answer,
// it can be remembered and handed on.
func FuzzAnswer(f *testing.F) {
	q := question("a.example.", "A")
	q.Id = 0x0102
	m := (&dns.Msg{}).SetReply(q)
	m.Answer = []dns.RR{rr(f, "a.example. 300 CNAME b.example."), rr(f, "b.example. 30 A 1.2.3.4")}
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m dns.Msg
		if m.Unpack(b) != nil || !answers(&m, q) {
			return
		}
		var kept cache
		kept.put(q, &m, noon)
		for _, a := range []*dns.Msg{kept.get(q, noon.Add(time.Second)), &m} {
			if a == nil {
				continue
			}
			wire := pack(q, a, udpSize(q))
			var back dns.Msg
			if err := back.Unpack(wire); err != nil || len(wire) > udpSize(q) || back.Id != q.Id {
				t.Fatalf("%d bytes, %v", len(wire), err)
			}
		}
	})
}
