package osc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/version"
)

// Bounds of fetching a descriptor.
const (
	fetchTime    = 10 * time.Second
	maxRedirects = 3
	maxURL       = 4096
)

// newFetcher fetches what strangers name: over no proxy, and from no address
// that is this machine's or its link's alone, whatever name leads there and
// whoever redirects there. allow are such addresses that are fine.
func newFetcher(allow []netip.Prefix) *http.Client {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return mayDial(at.Addr(), allow)
	}}
	return &http.Client{
		Timeout: fetchTime,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return refuse(http.StatusBadGateway, "it redirects more than %d times", maxRedirects)
			}
			if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return refuse(http.StatusBadGateway, "it redirects from https to %s", r.URL.Scheme)
			}
			return checkURL(r.URL)
		},
	}
}

// mayDial is asked about the address itself, after its name was resolved.
func mayDial(a netip.Addr, allow []netip.Prefix) error {
	a = a.WithZone("").Unmap()
	if slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	for _, b := range []netip.Addr{a, embedded(a)} {
		switch {
		case !b.IsValid():
		case b.IsLoopback():
			return refuse(http.StatusBadRequest, "%s is a loopback address, from where no descriptor is fetched; --osc-fetch allows it", a)
		case b.IsLinkLocalUnicast():
			return refuse(http.StatusBadRequest, "%s is a link-local address, from where no descriptor is fetched; --osc-fetch allows it", a)
		case a == cloudMetadata:
			return refuse(http.StatusBadRequest, "%s is where clouds tell machines their secrets; --osc-fetch allows it", a)
		case b.IsUnspecified(), b.IsMulticast(), b.Is4() && (b.As4()[0] == 0 || b == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
			return refuse(http.StatusBadRequest, "%s is not the address of a server", a)
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

// checkURL refuses what cannot be fetched, or had better not.
func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse(http.StatusBadRequest, "%q is no address to fetch from; it must begin with http:// or https://", u.Redacted())
	case u.Hostname() == "":
		return refuse(http.StatusBadRequest, "%q names no host", u.Redacted())
	case u.User != nil:
		return refuse(http.StatusBadRequest, "%q has credentials, which do not belong into an address", u.Redacted())
	}
	return nil
}

// fetch gets the descriptor that a header says where to find.
func (d *Dialect) fetch(r *http.Request) ([]byte, error) {
	text := strings.TrimSpace(r.Header.Get(headerOCL))
	switch {
	case text == "":
		return nil, errs.E(errs.Invalid, "header %s is missing: it says where the descriptor is", headerOCL)
	case len(text) > maxURL:
		return nil, errs.E(errs.Invalid, "header %s has %d bytes; at most %d are possible", headerOCL, len(text), maxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errs.E(errs.Invalid, "header %s is no URL", headerOCL) // err has what may be a password
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	body, err := d.download(r.Context(), u)
	if err == nil {
		return body, nil
	}
	if own, ok := errors.AsType[*refusal](err); ok {
		return nil, refuse(own.status, "fetch %s: %s", u.Redacted(), own.text)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // it names the address again
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return nil, refuse(http.StatusGatewayTimeout, "fetch %s: nothing has come within %s", u.Redacted(), fetchTime)
	}
	return nil, refuse(http.StatusBadGateway, "fetch %s: %s", u.Redacted(), api.Sentence(err))
}

func (d *Dialect) download(ctx context.Context, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "buoyd/"+version.Version)
	resp, err := d.fetcher.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, api.MaxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > api.MaxBody {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the descriptor is larger than %d bytes, the most that is read", api.MaxBody)
	}
	return body, nil
}
