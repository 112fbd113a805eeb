package dhcp

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// offered is how long an address waits for the client that it was offered.
	offered = time.Minute
	// declined is how long an address rests that somebody else was found to
	// have.
	declined = time.Hour
	// maxHeld and maxOffers bound what somebody can have us remember who comes
	// with ever new names. A node has some hundred containers.
	maxHeld   = 4096
	maxOffers = 1024
	// fullEvery is how often we say that all addresses are given.
	fullEvery = time.Minute
)

// pool decides who gets which address. It is all values: what it does depends
// on messages, Taken and the time it is given.
type pool struct {
	cfg Config

	mu     sync.Mutex           // guards the fields below
	held   map[netip.Addr]*Held // also those that have run out
	of     map[string]*Held     // the same by client
	offers map[netip.Addr]offer
	rests  map[netip.Addr]time.Time // until
	last   netip.Addr               // that was found for somebody new
	full   time.Time                // when we said so
}

type offer struct {
	client string
	until  time.Time
}

// outcome is what a message leads to: first drop, then put, then reply.
type outcome struct {
	drop  []netip.Addr
	put   *Held
	reply *dhcpv4.DHCPv4 // nil: silence
}

func newPool(cfg Config, held []Held) *pool {
	p := &pool{
		cfg: cfg, held: map[netip.Addr]*Held{}, of: map[string]*Held{},
		offers: map[netip.Addr]offer{}, rests: map[netip.Addr]time.Time{},
	}
	slices.SortFunc(held, func(a, b Held) int { return a.Until.Compare(b.Until) })
	for _, h := range held {
		if p.inRange(h.Addr) {
			p.keep(h)
		}
	}
	return p
}

// keep takes over a lease, in place of what its client and its address had.
func (p *pool) keep(h Held) (gone []netip.Addr) {
	if old := p.of[h.Client]; old != nil && old.Addr != h.Addr {
		delete(p.held, old.Addr)
		gone = append(gone, old.Addr)
	}
	if old := p.held[h.Addr]; old != nil && old.Client != h.Client {
		delete(p.of, old.Client)
	}
	p.held[h.Addr], p.of[h.Client] = &h, &h
	return gone
}

func (p *pool) leases(now time.Time) (all []Held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.held {
		if now.Before(h.Until) {
			all = append(all, *h)
		}
	}
	slices.SortFunc(all, func(a, b Held) int { return a.Addr.Compare(b.Addr) })
	return all
}

// handle is what the server does about a message.
func (p *pool) handle(m *dhcpv4.DHCPv4, now time.Time) (outcome, error) {
	if m.OpCode != dhcpv4.OpcodeBootRequest || len(m.ClientHWAddr) == 0 || !addrOf(m.GatewayIPAddr).IsUnspecified() {
		return outcome{}, nil // not for us, who serve one link
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	client := clientOf(m)
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return p.discover(m, client, now)
	case dhcpv4.MessageTypeRequest:
		return p.request(m, client, now), nil
	case dhcpv4.MessageTypeDecline:
		return p.decline(m, client, now)
	case dhcpv4.MessageTypeRelease:
		return p.release(m, client, now), nil
	case dhcpv4.MessageTypeInform:
		if !usable(addrOf(m.ClientIPAddr)) {
			return outcome{}, nil
		}
		return outcome{reply: p.reply(m, dhcpv4.MessageTypeAck)}, nil
	default:
		return outcome{}, nil
	}
}

// clientOf names who asks: by the identifier it gives, else by its MAC.
func clientOf(m *dhcpv4.DHCPv4) string {
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) > 1 {
		return hex.EncodeToString(id)
	}
	return "mac " + hex.EncodeToString(m.ClientHWAddr)
}

// discover offers an address.
func (p *pool) discover(m *dhcpv4.DHCPv4, client string, now time.Time) (outcome, error) {
	for o, was := range p.offers {
		if !now.Before(was.until) {
			delete(p.offers, o)
		}
	}
	a, ok := p.choose(client, addrOf(m.RequestedIPAddress()), now)
	if !ok {
		if now.Sub(p.full) < fullEvery {
			return outcome{}, nil
		}
		p.full = now
		return outcome{}, fmt.Errorf("all addresses from %s to %s are given", p.cfg.Start, p.cfg.End)
	}
	p.offers[a] = offer{client, now.Add(offered)}
	r := p.reply(m, dhcpv4.MessageTypeOffer)
	p.grant(r, a)
	return outcome{reply: r}, nil
}

// choose is the address for a client: that of before, the one it wants, the
// next that was nobody's, or the one that has been nobody's for longest.
func (p *pool) choose(client string, wants netip.Addr, now time.Time) (netip.Addr, bool) {
	if h := p.of[client]; h != nil && p.free(h.Addr, client, now) {
		return h.Addr, true
	}
	for a, o := range p.offers {
		if o.client == client && p.free(a, client, now) {
			return a, true
		}
	}
	if a, ok := p.unknown(client, wants, now); ok {
		return a, true
	}
	var oldest *Held
	for _, h := range p.held {
		if !now.Before(h.Until) && (oldest == nil || cmp.Or(h.Until.Compare(oldest.Until), h.Addr.Compare(oldest.Addr)) < 0) && p.free(h.Addr, client, now) {
			oldest = h
		}
	}
	if oldest == nil {
		return netip.Addr{}, false
	}
	return oldest.Addr, true
}

// unknown is an address that is nobody's, and never was as far as we remember:
// the one that is wanted, or the next after that which was found last.
func (p *pool) unknown(client string, wants netip.Addr, now time.Time) (netip.Addr, bool) {
	if len(p.held) >= maxHeld || len(p.offers) >= maxOffers {
		return netip.Addr{}, false
	}
	if p.held[wants] == nil && p.free(wants, client, now) {
		return wants, true
	}
	a := p.last
	for range p.size() {
		if a = a.Next(); !p.inRange(a) {
			a = p.cfg.Start
		}
		if p.held[a] == nil && p.free(a, client, now) {
			p.last = a
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (p *pool) inRange(a netip.Addr) bool {
	return a.Is4() && !a.Less(p.cfg.Start) && !p.cfg.End.Less(a)
}

// size is how many addresses the range has.
func (p *pool) size() uint32 {
	n := func(a netip.Addr) uint32 {
		b := a.As4()
		return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	return n(p.cfg.End) - n(p.cfg.Start) + 1
}

// free says whether a client may have an address: nobody else has it.
func (p *pool) free(a netip.Addr, client string, now time.Time) bool {
	if !p.inRange(a) || a == p.cfg.Addr.Addr() || a == p.cfg.Router || now.Before(p.rests[a]) {
		return false
	}
	if h := p.held[a]; h != nil && h.Client != client && now.Before(h.Until) {
		return false
	}
	if o, ok := p.offers[a]; ok && o.client != client && now.Before(o.until) {
		return false
	}
	return !p.cfg.Taken(a)
}

// request gives an address or refuses it (RFC 2131, 4.3.2).
func (p *pool) request(m *dhcpv4.DHCPv4, client string, now time.Time) outcome {
	server, wants, has := m.ServerIdentifier(), addrOf(m.RequestedIPAddress()), addrOf(m.ClientIPAddr)
	switch {
	case server != nil && addrOf(server) != p.cfg.Addr.Addr(): // it has taken another server's offer
		for a, o := range p.offers {
			if o.client == client {
				delete(p.offers, a)
			}
		}
		return outcome{}
	case server != nil: // it takes ours
		if o, ok := p.offers[wants]; ok && o.client == client && p.free(wants, client, now) {
			return p.give(m, wants, client, now)
		}
	case usable(has): // it extends what it has
		wants = has
	}
	h := p.of[client]
	switch {
	case !usable(wants):
		return outcome{}
	case h != nil && h.Addr == wants && p.free(wants, client, now):
		return p.give(m, wants, client, now)
	case server == nil && h == nil && p.cfg.Addr.Contains(wants) && p.free(wants, client, now):
		return outcome{} // we do not know it: another server may
	}
	r := p.reply(m, dhcpv4.MessageTypeNak)
	r.UpdateOption(dhcpv4.OptMessage(fmt.Sprintf("%s is not yours here", wants)))
	return outcome{reply: r}
}

// give leases an address.
func (p *pool) give(m *dhcpv4.DHCPv4, a netip.Addr, client string, now time.Time) outcome {
	h := Held{
		Addr: a, Client: client, MAC: m.ClientHWAddr.String(), Hostname: hostname(m.HostName()),
		Until: now.Add(p.cfg.LeaseTime).Round(0).UTC(),
	}
	delete(p.offers, a)
	did := outcome{put: &h, drop: p.keep(h), reply: p.reply(m, dhcpv4.MessageTypeAck)}
	p.grant(did.reply, a)
	return did
}

// decline lets an address rest that its client has found another to have.
func (p *pool) decline(m *dhcpv4.DHCPv4, client string, now time.Time) (outcome, error) {
	a := addrOf(m.RequestedIPAddress())
	h := p.held[a]
	if h == nil || h.Client != client {
		return outcome{}, nil
	}
	delete(p.held, a)
	delete(p.of, client)
	for r, until := range p.rests {
		if !now.Before(until) {
			delete(p.rests, r)
		}
	}
	p.rests[a] = now.Add(declined)
	p.cfg.Log.Warn("DHCP client finds its address in use by another", "link", p.cfg.Link, "client", h.MAC, "address", a)
	return outcome{drop: []netip.Addr{a}}, nil
}

// release ends a lease. The client still gets the same when it comes again.
func (p *pool) release(m *dhcpv4.DHCPv4, client string, now time.Time) outcome {
	h := p.of[client]
	if h == nil || h.Addr != addrOf(m.ClientIPAddr) || !now.Before(h.Until) {
		return outcome{}
	}
	h.Until = now.Round(0).UTC()
	ended := *h
	return outcome{put: &ended}
}

// reply is an answer with what we say to all.
func (p *pool) reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{Options: dhcpv4.Options{}}
	dhcpv4.WithReply(m)(r)
	self := p.cfg.Addr.Addr().AsSlice()
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(self))
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		r.UpdateOption(dhcpv4.OptClientIdentifier(bytes.Clone(id))) // RFC 6842
	}
	if kind == dhcpv4.MessageTypeNak {
		r.SetBroadcast()
		return r
	}
	network := p.cfg.Addr.Masked()
	r.ServerIPAddr = self
	r.ClientIPAddr = m.ClientIPAddr
	r.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(network.Bits(), 32)))
	r.UpdateOption(dhcpv4.OptBroadcastAddress(broadcastOf(network).AsSlice()))
	if p.cfg.Router.IsValid() {
		r.UpdateOption(dhcpv4.OptRouter(p.cfg.Router.AsSlice()))
	}
	var servers []net.IP
	for _, s := range p.cfg.DNS {
		servers = append(servers, s.AsSlice())
	}
	if len(servers) > 0 {
		r.UpdateOption(dhcpv4.OptDNS(servers...))
	}
	if p.cfg.More != nil {
		p.cfg.More(m, r)
	}
	return r
}

// grant adds an address and how long it is given for.
func (p *pool) grant(r *dhcpv4.DHCPv4, a netip.Addr) {
	r.YourIPAddr = a.AsSlice()
	t := p.cfg.LeaseTime
	r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(t))
	r.UpdateOption(dhcpv4.OptRenewTimeValue(t / 2))
	r.UpdateOption(dhcpv4.OptRebindingTimeValue(t * 7 / 8))
}

// hostname is what a client says it is called, if that can be one.
func hostname(s string) string {
	s, _, _ = strings.Cut(strings.ToLower(strings.TrimRight(s, "\x00")), ".")
	if !domain(s) || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return ""
	}
	return s
}
