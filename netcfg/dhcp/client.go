package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// RFC 2131, 4.1, starts with 4 s and takes what is known of the network
	// into account: a container is waited for, and its link has just been made.
	firstWait = time.Second
	mostWait  = 64 * time.Second

	// asks is how often an offer is asked for until we start from the
	// beginning; the address of before less often, since a server that does not
	// know us says nothing.
	asks      = 3
	asksAgain = 2
)

// wanted is what we ask servers to say, routes before routers (RFC 3442).
func wanted() dhcpv4.Option {
	return dhcpv4.OptParameterRequestList(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
		dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionIPAddressLeaseTime,
		dhcpv4.OptionServerIdentifier, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue)
}

// Acquire gets a lease before ctx ends. The link has to be up. errs.Unavailable:
// no server gave one.
func Acquire(ctx context.Context, o Options) (Lease, error) {
	o, err := o.check()
	if err != nil {
		return Lease{}, err
	}
	began := time.Now()
	l, err := o.acquire(ctx)
	waited := fmt.Sprintf("%g s", time.Since(began).Round(100*time.Millisecond).Seconds())
	switch {
	case err == nil:
		return l, nil
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Lease{}, fmt.Errorf("get an address for %s by DHCP: %w", o.Link, err)
	case errors.Is(err, errSilence):
		return Lease{}, errs.E(errs.Unavailable, "no DHCP server answered on %s within %s", o.Link, waited)
	}
	return Lease{}, errs.E(errs.Unavailable, "no DHCP server gave %s an address within %s: %w", o.Link, waited, err)
}

// refusal is why what a server said did not become a lease.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

func refused(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// errSilence: nobody has answered in time.
var errSilence = errors.New("no answer")

// acquire tries until ctx ends, and then has the last thing that went wrong;
// errSilence if nothing else did.
func (o Options) acquire(ctx context.Context) (Lease, error) {
	w, err := o.openRawWire()
	if err != nil {
		return Lease{}, err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	s := session{Options: o, wire: w, mac: w.mac, began: time.Now()}
	last := errSilence
	note := func(err error) {
		if ctx.Err() == nil && !errors.Is(err, errSilence) {
			last = err
		}
	}
	if p := o.Previous; p != nil && p.Addr.IsValid() && time.Now().Before(p.Got.Add(p.Expire)) {
		l, err := s.request(ctx, p.Addr.Addr(), netip.Addr{}, asksAgain)
		if err == nil {
			return l, nil
		}
		note(err)
	}
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, mostWait) {
		turn := time.Now().Add(jitter(wait))
		l, err := s.attempt(ctx, turn)
		if err == nil {
			return l, nil
		}
		note(err)
		if err := sleep(ctx, time.Until(turn)); err != nil && ctx.Err() == nil {
			return Lease{}, err
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return Lease{}, ctx.Err()
	}
	return Lease{}, last
}

// jitter keeps many clients from asking at one time: ±1 s as in RFC 2131, less
// for short times.
func jitter(d time.Duration) time.Duration {
	spread := min(time.Second, d/4)
	return d - spread + rand.N(2*spread)
}

// session is what goes on between a client and those who answer it.
type session struct {
	Options
	wire  wire
	mac   net.HardwareAddr
	began time.Time
	id    dhcpv4.TransactionID // of the present round, zero before the first
}

// message is one of ours, from the beginning of a conversation.
func (s *session) message(kind dhcpv4.MessageType, more ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(s.mac), dhcpv4.WithMessageType(kind))
	if err != nil {
		return nil, err
	}
	if kind == dhcpv4.MessageTypeDiscover {
		s.id = m.TransactionID
	} else if s.id != (dhcpv4.TransactionID{}) {
		m.TransactionID = s.id
	}
	m.NumSeconds = uint16(min(time.Since(s.began)/time.Second, 1<<16-1))
	if s.ClientID != nil {
		m.UpdateOption(dhcpv4.OptClientIdentifier(s.ClientID))
	}
	if kind != dhcpv4.MessageTypeRelease && kind != dhcpv4.MessageTypeDecline {
		m.UpdateOption(wanted())
		m.UpdateOption(dhcpv4.OptMaxMessageSize(maxMessage))
		if s.Hostname != "" {
			m.UpdateOption(dhcpv4.OptHostName(s.Hostname))
		}
	}
	for _, f := range more {
		f(m)
	}
	return m, nil
}

// attempt goes once through the whole of it. It may wait for an offer until
// turn.
func (s *session) attempt(ctx context.Context, turn time.Time) (Lease, error) {
	// Servers answer to all: not every link passes on what is for an address
	// that it does not have yet.
	m, err := s.message(dhcpv4.MessageTypeDiscover, dhcpv4.WithBroadcast(true))
	if err != nil {
		return Lease{}, err
	}
	if p := s.Previous; p != nil && p.Addr.IsValid() {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(p.Addr.Addr().AsSlice()))
	}
	if err := s.wire.send(m, broadcast); err != nil {
		return Lease{}, err
	}
	var offer Lease
	err = s.await(m, turn, func(r *dhcpv4.DHCPv4) (err error) {
		if r.MessageType() != dhcpv4.MessageTypeOffer {
			return errSilence
		}
		offer, err = leaseOf(r, time.Now())
		return err
	})
	if err != nil {
		return Lease{}, err
	}
	return s.request(ctx, offer.Addr.Addr(), offer.Server, asks)
}

// request asks for an address that a server has offered, or, without a server,
// for the one of before. It is ours once nobody else on the link has it.
func (s *session) request(ctx context.Context, a, server netip.Addr, times int) (Lease, error) {
	m, err := s.message(dhcpv4.MessageTypeRequest, dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())))
	if err != nil {
		return Lease{}, err
	}
	if server.IsValid() {
		m.UpdateOption(dhcpv4.OptServerIdentifier(server.AsSlice()))
	}
	l, err := s.ask(m, broadcast, a, times, time.Now().Add(mostWait))
	if err != nil {
		return Lease{}, err
	}
	who, err := s.owner(ctx, a)
	if err != nil {
		return Lease{}, fmt.Errorf("look whether %s is free: %w", a, err)
	}
	if who == nil {
		return l, nil
	}
	decline, err := s.message(dhcpv4.MessageTypeDecline,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err == nil {
		err = s.wire.send(decline, broadcast)
	}
	return Lease{}, errors.Join(refused("server %s gave %s, which %s has already", l.Server, a, who), err)
}

// ask sends a request so many times, or until then, until a server acknowledges
// or refuses it.
func (s *session) ask(m *dhcpv4.DHCPv4, to, a netip.Addr, times int, until time.Time) (l Lease, err error) {
	for wait := firstWait; times > 0; times, wait = times-1, 2*wait {
		sent := time.Now()
		turn := sent.Add(jitter(wait))
		if turn.After(until) {
			turn, times = until, 1
		}
		if err := s.wire.send(m, to); err != nil {
			return Lease{}, err
		}
		err = s.await(m, turn, func(r *dhcpv4.DHCPv4) (err error) {
			switch r.MessageType() {
			case dhcpv4.MessageTypeNak:
				if asked := m.ServerIdentifier(); asked != nil && !asked.Equal(r.ServerIdentifier()) {
					return errSilence
				}
				return refused("server %s does not give %s: %s", addrOf(r.ServerIdentifier()), a, nakReason(r))
			case dhcpv4.MessageTypeAck:
				if l, err = leaseOf(r, sent); err == nil && l.Addr.Addr() != a {
					err = refused("server %s gives %s instead of %s", l.Server, l.Addr.Addr(), a)
				}
				return err
			default:
				return errSilence
			}
		})
		if !errors.Is(err, errSilence) {
			return l, err
		}
	}
	return Lease{}, err
}

func nakReason(m *dhcpv4.DHCPv4) string {
	why := bytes.ToValidUTF8(m.Options.Get(dhcpv4.OptionMessage), nil)
	if len(why) == 0 {
		return "it does not say why"
	}
	return fmt.Sprintf("%.100q", why)
}

// await has accept look at the answers to m, until it takes or refuses one.
// What it finds to be nothing is passed over.
func (s *session) await(m *dhcpv4.DHCPv4, until time.Time, accept func(*dhcpv4.DHCPv4) error) error {
	for {
		r, err := s.wire.receive(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errSilence
		}
		if err != nil {
			return err
		}
		if r.OpCode != dhcpv4.OpcodeBootReply || r.TransactionID != m.TransactionID || !bytes.Equal(r.ClientHWAddr, m.ClientHWAddr) {
			continue
		}
		err = accept(r)
		if _, ok := errors.AsType[*refusal](err); ok || err == nil {
			return err
		}
		if !errors.Is(err, errSilence) {
			s.Log.Debug("passed over what a DHCP server says", "link", s.Link, "error", err)
		}
	}
}
