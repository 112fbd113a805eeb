// Package egress keeps requests that the daemon sends for others from going to
// where only this machine can go.
package egress

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"syscall"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Rules say where requests may go.
type Rules struct {
	Allow []netip.Prefix // of loopback, link-local and metadata addresses that are fine all the same
	Flag  string         // of the daemon, that sets Allow
}

// Refusal says why something is not asked. Its kind is Invalid.
type Refusal struct{ text string }

func (r *Refusal) Error() string { return r.text }

// Unwrap gives the kind.
func (r *Refusal) Unwrap() error { return errs.Invalid }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// Control is for a net.Dialer: it is asked about the address itself, whatever
// name led there.
func (r Rules) Control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return r.May(at.Addr())
}

// May says why an address is not asked; nil: it may be.
func (r Rules) May(a netip.Addr) error {
	a = a.WithZone("").Unmap()
	if slices.ContainsFunc(r.Allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	for _, b := range []netip.Addr{a, embedded(a)} {
		switch {
		case !b.IsValid():
		case b.IsLoopback():
			return refuse("%s is a loopback address, which is not asked; %s allows it", a, r.Flag)
		case b.IsLinkLocalUnicast():
			return refuse("%s is a link-local address, which is not asked; %s allows it", a, r.Flag)
		case a == cloudMetadata:
			return refuse("%s is where clouds tell machines their secrets; %s allows it", a, r.Flag)
		case b.IsUnspecified(), b.IsMulticast(), b.Is4() && (b.As4()[0] == 0 || b == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
			return refuse("%s is not the address of a server", a)
		}
	}
	return nil
}

// cloudMetadata is 169.254.169.254's IPv6 address at AWS; it is not link-local.
var cloudMetadata = netip.MustParseAddr("fd00:ec2::254")

// Networks of IPv6 whose addresses lead to one of IPv4 (RFC 4291, 6052, 8215, 3056).
var (
	localUse   = netip.MustParsePrefix("64:ff9b:1::/96")
	compatible = netip.MustParsePrefix("::/96")
	translated = netip.MustParsePrefix("64:ff9b::/96")
	tunnelled  = netip.MustParsePrefix("2002::/16")
)

// embedded is the IPv4 address that an IPv6 one leads to, if it is one of those.
func embedded(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case a.Is4():
		return netip.Addr{}
	case translated.Contains(a), localUse.Contains(a), compatible.Contains(a) && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:16]))
	case tunnelled.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return netip.Addr{}
}

// CheckURL refuses what cannot be asked, or had better not.
func CheckURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse("%q is no address to ask; it must begin with http:// or https://", u.Redacted())
	case u.Hostname() == "":
		return refuse("%q names no host", u.Redacted())
	case u.User != nil:
		return refuse("%q has credentials, which do not belong into an address", u.Redacted())
	}
	return nil
}
