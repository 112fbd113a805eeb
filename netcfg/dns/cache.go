package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// A node's containers talk to some hundred names; a common answer has 100
	// to 300 bytes.
	maxCache = 1 << 20
	maxEntry = 4 << 10
	overhead = 200 // of an entry: map, list and itself

	// maxTTL is in seconds: nobody waits longer for a change that was announced
	// late.
	maxTTL = 3600
)

// key is what an answer depends on.
type key struct {
	name  string
	qtype uint16
	flags uint8
}

func keyOf(q *dns.Msg) key {
	k := key{name: dns.CanonicalName(q.Question[0].Name), qtype: q.Question[0].Qtype}
	if opt := q.IsEdns0(); opt != nil && opt.Do() {
		k.flags |= 1
	}
	if q.CheckingDisabled {
		k.flags |= 2
	}
	if q.AuthenticatedData {
		k.flags |= 4
	}
	return k
}

// cache remembers answers for as long as they say, the most recently used
// ones. The zero cache is empty.
type cache struct {
	mu    sync.Mutex // guards the fields below
	size  int
	byKey map[key]*list.Element // of *entry
	used  list.List             // most recently first
}

type entry struct {
	key   key
	wire  []byte // small and without pointers
	since time.Time
	until time.Time
}

func (e *entry) size() int { return len(e.wire) + len(e.key.name) + overhead }

// get is a remembered answer to q, with what is left of its TTLs.
func (c *cache) get(q *dns.Msg, now time.Time) *dns.Msg {
	c.mu.Lock()
	at := c.byKey[keyOf(q)]
	if at == nil {
		c.mu.Unlock()
		return nil
	}
	e := at.Value.(*entry)
	if !now.Before(e.until) {
		c.drop(at)
		c.mu.Unlock()
		return nil
	}
	c.used.MoveToFront(at)
	c.mu.Unlock()

	var m dns.Msg
	if m.Unpack(e.wire) != nil {
		return nil
	}
	age := uint32(now.Sub(e.since) / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			rr.Header().Ttl -= min(rr.Header().Ttl, age)
		}
	}
	m.Id, m.Question, m.RecursionDesired = q.Id, q.Question, q.RecursionDesired // its own spelling
	return &m
}

// put remembers an answer, unless it is one that does not last.
func (c *cache) put(q, answer *dns.Msg, now time.Time) {
	lasts := lifetime(answer)
	if lasts == 0 {
		return
	}
	m := *answer
	m.Extra = withoutOptions(m.Extra)
	m.Compress = true
	wire, err := m.Pack()
	if err != nil || len(wire) > maxEntry {
		return
	}
	e := &entry{key: keyOf(q), wire: wire, since: now, until: now.Add(lasts)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = map[key]*list.Element{}
	}
	if old := c.byKey[e.key]; old != nil {
		c.drop(old)
	}
	c.byKey[e.key] = c.used.PushFront(e)
	c.size += e.size()
	for c.size > maxCache {
		c.drop(c.used.Back())
	}
}

// drop forgets an entry; c.mu is held.
func (c *cache) drop(at *list.Element) {
	e := c.used.Remove(at).(*entry)
	delete(c.byKey, e.key)
	c.size -= e.size()
}

// clear forgets everything: other upstreams may know other names.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size, c.byKey = 0, nil
	c.used.Init()
}

// lifetime is how long an answer may be remembered: as long as the shortest of
// its records. That there is nothing lasts as RFC 2308 says, by the SOA record.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	nothing := m.Rcode == dns.RcodeNameError || len(m.Answer) == 0
	least := uint32(maxTTL)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			if h.Rrtype == dns.TypeOPT {
				continue
			}
			last := h.Ttl
			if soa, ok := rr.(*dns.SOA); ok {
				last = min(last, soa.Minttl)
				nothing = false
			}
			if last > 1<<31-1 { // RFC 2181, 8
				last = 0
			}
			least = min(least, last)
		}
	}
	if nothing {
		return 0
	}
	return time.Duration(least) * time.Second
}
