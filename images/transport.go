package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/version"
)

// newTransport is for one pull; the caller closes its idle connections, so that no goroutine outlives the pull.
func (s *Store) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: s.tune.dial, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   s.tune.dial,
		ResponseHeaderTimeout: s.tune.stall,
		DisableCompression:    true, // layers are compressed, and Range counts the bytes as they are stored
	}
}

// retrier repeats requests without a body that fail before an answer, with 429, or with 5xx.
type retrier struct {
	inner    http.RoundTripper
	tune     tuning
	attempts int
	plain    func(host string) bool // hosts that may be talked to without TLS
	log      *slog.Logger
	answered atomic.Bool // somebody listens there
}

// errPlain is why plain HTTP was not tried.
var errPlain = errors.New("it is not allowed to talk to this registry without TLS; start buoyd with --plain-http HOST if that is wanted")

func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !t.plain(req.URL.Host) {
		return nil, errPlain
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", "buoy/"+version.Version)
	for n := 1; ; n++ {
		resp, err := t.inner.RoundTrip(req)
		if err == nil {
			t.answered.Store(true)
		}
		wait, again := t.again(req, resp, err, n)
		if !again {
			return resp, err
		}
		t.log.Debug("registry request is repeated", "host", req.URL.Host, "wait", wait, "status", statusOf(resp), "error", err)
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // only to keep the connection
			_ = resp.Body.Close()
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

func statusOf(resp *http.Response) int {
	if resp == nil {
		return 0
	}
	return resp.StatusCode
}

// again decides whether the n-th try is followed by another, and when.
func (t *retrier) again(req *http.Request, resp *http.Response, err error, n int) (time.Duration, bool) {
	if n >= t.attempts || req.Context().Err() != nil || req.Body != nil && req.Body != http.NoBody {
		return 0, false
	}
	if err != nil {
		// Where nobody listens at all, a person is waiting for an answer; where
		// somebody did a moment ago, a pull is worth more patience.
		nobody := errors.Is(err, syscall.ECONNREFUSED) && !t.answered.Load()
		return t.tune.pause(n), !nobody && temporary(err)
	}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 || resp.StatusCode == http.StatusNotImplemented {
		return 0, false
	}
	if wait, ok := retryAfter(resp, time.Now()); ok {
		return wait, wait <= t.tune.maxWait
	}
	return t.tune.pause(n), true
}

// pause before the try after the n-th: doubling, with a quarter of jitter so that a fleet does not come back as one.
func (t tuning) pause(n int) time.Duration {
	d := min(t.backoff<<min(n-1, 20), t.maxWait)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// retryAfter reads the header, in seconds or as a date.
func retryAfter(resp *http.Response, now time.Time) (time.Duration, bool) {
	h := resp.Header.Get("Retry-After")
	if sec, err := strconv.Atoi(h); err == nil && sec >= 0 {
		return time.Duration(sec) * time.Second, true
	}
	if at, err := http.ParseTime(h); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// temporary says whether a request that got no answer may get one later.
func temporary(err error) bool {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	var host x509.HostnameError
	switch {
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.As(err, &record), errors.As(err, &cert), errors.As(err, &host), errors.Is(err, errPlain):
		return false
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"): // net/http has no value for it
		return false
	case errors.Is(err, context.Canceled):
		return false
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// mayBePlain says whether host, "name" or "name:port", may be talked to without TLS.
func (s *Store) mayBePlain(host string) bool {
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	if slices.Contains(s.cfg.PlainHTTP, host) || slices.Contains(s.cfg.PlainHTTP, bare) {
		return true
	}
	return isLoopback(bare)
}

func isLoopback(bare string) bool {
	if bare == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(bare, "[]"))
	return err == nil && ip.IsLoopback()
}

// noMetadata keeps a registry from pointing us at a cloud's metadata service.
func noMetadata(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil && ip.Unmap().IsLinkLocalUnicast() {
		return fmt.Errorf("redirect to %s refused: link-local address", req.URL.Host)
	}
	return nil
}
