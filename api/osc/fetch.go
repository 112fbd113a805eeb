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
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/egress"
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
	dialer := &net.Dialer{Control: egress.Rules{Allow: allow, Flag: "--osc-fetch"}.Control}
	return &http.Client{
		Timeout: fetchTime,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return api.Refuse(http.StatusBadGateway, "it redirects more than %d times", maxRedirects)
			}
			if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return api.Refuse(http.StatusBadGateway, "it redirects from https to %s", r.URL.Scheme)
			}
			return egress.CheckURL(r.URL)
		},
	}
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
	if err := egress.CheckURL(u); err != nil {
		return nil, err
	}
	body, err := d.download(r.Context(), u)
	if err == nil {
		return body, nil
	}
	if own, ok := errors.AsType[*api.Refusal](err); ok {
		return nil, api.Refuse(own.Status, "fetch %s: %s", u.Redacted(), own.Text)
	}
	if own, ok := errors.AsType[*egress.Refusal](err); ok {
		return nil, api.Refuse(http.StatusBadRequest, "fetch %s: %s", u.Redacted(), own)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // it names the address again
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return nil, api.Refuse(http.StatusGatewayTimeout, "fetch %s: nothing has come within %s", u.Redacted(), fetchTime)
	}
	return nil, api.Refuse(http.StatusBadGateway, "fetch %s: %s", u.Redacted(), api.Sentence(err))
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
		return nil, api.Refuse(http.StatusRequestEntityTooLarge, "the descriptor is larger than %d bytes, the most that is read", api.MaxBody)
	}
	return body, nil
}
