package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// again is how long, at least, until a renewal that was not answered is
	// tried once more (RFC 2131, 4.4.5); a short lease has less time.
	again       = time.Minute
	againOfTime = 16 // part of the lease

	// lateStart is how long a lease that ran out while nobody kept it is tried
	// to be had again before it counts as lost.
	lateStart = 5 * time.Second

	// asksMore is how often a renewal is sent in a row: a packet may get lost.
	asksMore = 2
)

// Keep has a lease extended until ctx ends; what was acquired, or stored by
// another process, goes on where it was. changed is told each time that it was
// extended or is another one, and with a zero Addr that it is lost; then Keep
// tries to get a new one for as long as it takes. An error means that nothing
// can be done any more, as when the namespace has gone.
func Keep(ctx context.Context, o Options, l Lease, changed func(Lease)) error {
	o, err := o.check()
	if err != nil {
		return err
	}
	k := keeper{Options: o, changed: changed}
	age := time.Since(l.Got)
	if age < 0 { // the clock was set back: find out
		age = l.Renew
	}
	since := uptime() - age
	if l.Addr.IsValid() && uptime() >= since+l.Expire {
		l, since = k.late(ctx, l)
	}
	for ctx.Err() == nil {
		if !l.Addr.IsValid() {
			if l, err = k.acquire(ctx); err != nil {
				if !k.goesOn(ctx, err) {
					return err
				}
				continue
			}
			since = uptime() - time.Since(l.Got)
			changed(l)
		}
		if l, since, err = k.hold(ctx, l, since); err != nil {
			return err
		}
	}
	return ctx.Err()
}

type keeper struct {
	Options
	changed func(Lease)
}

// acquire asks for an address at all; that of before is not ours any more.
func (k *keeper) acquire(ctx context.Context) (Lease, error) {
	o := k.Options
	o.Previous = nil
	return o.acquire(ctx)
}

// goesOn waits after what may pass, such as a link that is about to be made
// again.
func (k *keeper) goesOn(ctx context.Context, err error) bool {
	if errors.Is(err, errs.NotFound) || ctx.Err() != nil {
		return false
	}
	k.Log.Warn("no address by DHCP yet", "link", k.Link, "error", err)
	return sleep(ctx, jitter(mostWait/4)) == nil
}

// late asks for the address of a lease that has run out already.
func (k *keeper) late(ctx context.Context, l Lease) (Lease, time.Duration) {
	short, cancel := context.WithTimeout(ctx, lateStart)
	defer cancel()
	o := k.Options
	o.Previous = &l
	next, err := o.acquire(short)
	if err != nil {
		next = Lease{}
	}
	if ctx.Err() == nil {
		k.changed(next)
	}
	return next, uptime() - time.Since(next.Got)
}

// hold extends a lease, which is as old as since, until it cannot be extended
// any more: then the lease it returns has no Addr. It does nothing until it is
// time to.
func (k *keeper) hold(ctx context.Context, l Lease, since time.Duration) (Lease, time.Duration, error) {
	for {
		now := uptime()
		to, until := l.Server, since+l.Rebind
		switch {
		case now >= since+l.Expire:
			k.Log.Warn("DHCP lease has run out", "link", k.Link, "address", l.Addr)
			k.changed(Lease{})
			return Lease{}, 0, nil
		case now < since+l.Renew:
			if err := sleep(ctx, since+l.Renew-now); err != nil {
				return l, since, err
			}
			continue
		case now >= until:
			to, until = broadcast, since+l.Expire
		}
		next, err := k.extend(ctx, l, to, until-now)
		if err == nil {
			l, since = next, uptime()-time.Since(next.Got)
			k.changed(l)
			continue
		}
		if _, ok := errors.AsType[*refusal](err); ok {
			k.Log.Warn("DHCP lease is lost", "link", k.Link, "address", l.Addr, "error", err)
			k.changed(Lease{})
			return Lease{}, 0, nil
		}
		if errors.Is(err, errs.NotFound) {
			return l, since, err
		}
		k.Log.Debug("DHCP lease is not extended yet", "link", k.Link, "address", l.Addr, "error", err)
		if err := sleep(ctx, retry(until-uptime(), l.Expire)); err != nil {
			return l, since, err
		}
	}
}

// retry is when to ask once more: after half of the time that is left, but not
// all too soon, and not after it.
func retry(left, lease time.Duration) time.Duration {
	soon := min(again, lease/againOfTime)
	return min(left, jitter(max(left/2, soon)))
}

// extend asks for more time, from the address itself: its server (T1), or any
// (T2). There is so much time left for it.
func (k *keeper) extend(ctx context.Context, l Lease, to netip.Addr, left time.Duration) (Lease, error) {
	w, err := k.openUDPWire(ctx, netip.IPv4Unspecified())
	if err != nil {
		return Lease{}, err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	s, err := k.session(w)
	if err != nil {
		return Lease{}, err
	}
	m, err := s.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(l.Addr.Addr().AsSlice()))
	if err != nil {
		return Lease{}, err
	}
	return s.ask(m, to, l.Addr.Addr(), asksMore, time.Now().Add(left))
}

// session speaks by a link that has its address.
func (o Options) session(w wire) (*session, error) {
	mac := o.MAC
	if mac == nil {
		err := o.inside(func() error {
			link, err := net.InterfaceByName(o.Link)
			if err == nil {
				mac = link.HardwareAddr
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", o.Link, err)
		}
	}
	return &session{Options: o, wire: w, mac: mac, began: time.Now()}, nil
}

// Release gives a lease back, while the link still has its address. Nobody
// answers: that it was sent is all there is to know.
func Release(ctx context.Context, o Options, l Lease) error {
	o, err := o.check()
	if err != nil || !l.Addr.IsValid() {
		return err
	}
	fail := func(err error) error {
		return fmt.Errorf("give %s of %s back to DHCP server %s: %w", l.Addr.Addr(), o.Link, l.Server, err)
	}
	w, err := o.openUDPWire(ctx, l.Addr.Addr())
	if err != nil {
		return fail(err)
	}
	defer w.Close()
	s, err := o.session(w)
	if err != nil {
		return fail(err)
	}
	m, err := s.message(dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(l.Addr.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return fail(err)
	}
	if err := w.send(m, l.Server); err != nil {
		return fail(err)
	}
	// Who gives the address back takes the link away next. The kernel may still
	// be asking where the server is; what we ask after it is answered after it.
	if l.Addr.Contains(l.Server) {
		if _, err := o.owner(ctx, l.Server); err != nil {
			return fail(err)
		}
	}
	return nil
}
