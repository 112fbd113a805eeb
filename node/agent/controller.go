package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	maxAnswer   = 16 << 20
	maxSentence = 1 << 10          // of an error's body in a log
	answerTime  = 30 * time.Second // for one exchange
	maxPatience = 10 * time.Minute // of Retry-After
)

// controller carries messages to the controller and answers back.
type controller struct {
	base string
	http *http.Client
}

func newController(addr string, trust *tls.Config) (*controller, error) {
	base, socket, err := parseController(addr)
	if err != nil {
		return nil, err
	}
	// No keep-alive: each exchange has its deadline, and probes would cost as much as the reports of an idle host.
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // its header costs more than short answers gain
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     10 * time.Minute, // longer than what is between two reports
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     trust,
	}
	if socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return &controller{base: base, http: &http.Client{
		Transport: t,
		// A token is for one address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func parseController(addr string) (base, socket string, err error) {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return "", "", errs.E(errs.Invalid, "controller %q: want unix:///PATH with an absolute path", addr)
		}
		return "http://c", path, nil
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", "", errs.E(errs.Invalid, "controller %q: want http://HOST:PORT, https://HOST:PORT or unix:///PATH", addr)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", "", errs.E(errs.Invalid, "the controller's address at %s has a user, query or fragment; leave it out", u.Host)
	}
	return u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), "", nil
}

func (c *controller) close() { c.http.CloseIdleConnections() }

// trouble is what kind of thing is wrong between us and the controller.
type trouble string

// The kinds of trouble.
const (
	unreachable trouble = "unreachable" // nobody answers
	refused     trouble = "refused"     // it does not take the token
	unknown     trouble = "unknown"     // it does not know the host
	busy        trouble = "busy"        // it cannot answer now
	senseless   trouble = "senseless"   // its answer is of no use
	homemade    trouble = "homemade"    // it is with this node
)

// failure is an exchange that did not work.
type failure struct {
	kind  trouble
	after time.Duration // the controller wants to be left alone for so long
	err   error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(kind trouble, format string, args ...any) *failure {
	return &failure{kind: kind, err: fmt.Errorf(format, args...)}
}

// register makes the controller know this host.
func (c *controller) register(ctx context.Context, token string, r hostapi.RegisterRequest) (hostapi.RegisterResponse, *failure) {
	var answer hostapi.RegisterResponse
	if f := c.post(ctx, "/host/register", token, r, &answer); f != nil {
		return answer, f
	}
	if !validToken(answer.HostID) || !validToken(answer.HostToken) {
		return answer, fail(senseless, "the controller's answer has no host id or no token of printable characters")
	}
	return answer, badMode(answer.Status)
}

// report tells the controller how this host is and returns its orders.
func (c *controller) report(ctx context.Context, s Session, r hostapi.HostStatus) (hostapi.HostAction, *failure) {
	var answer hostapi.HostAction
	if f := c.post(ctx, "/host/"+url.PathEscape(s.HostID)+"/updatestatus", s.Token, message(r), &answer); f != nil {
		return answer, f
	}
	return answer, badMode(answer)
}

// badMode finds out what is no answer of a controller: each one has a mode.
func badMode(a hostapi.HostAction) *failure {
	switch a.Mode {
	case hostapi.Continue, hostapi.Drain, hostapi.Pause, hostapi.Terminate:
		return nil
	}
	return fail(senseless, "the controller's answer has the mode %.40q", a.Mode)
}

// validToken says whether s may stand in a header and a path.
func validToken(s string) bool {
	return s != "" && len(s) <= 4096 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// post sends body and reads the answer, a success, into out.
func (c *controller) post(ctx context.Context, path, token string, body, out any) *failure {
	text, err := json.Marshal(body)
	if err != nil {
		return fail(homemade, "encode a message to the controller: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(text))
	if err != nil {
		return fail(homemade, "make a message to the controller: %w", err)
	}
	req.Header.Set("User-Agent", "") // none: an idle host sends little else than headers
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if _, ok := out.(*hostapi.HostAction); ok {
		req.Header.Set("Prefer", "return=minimal") // 204 instead of an answer without orders
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return fail(unreachable, "talk to the controller at %s: %w", c.base, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return failed(resp)
	}
	if action, ok := out.(*hostapi.HostAction); ok && resp.StatusCode == http.StatusNoContent {
		action.Mode = hostapi.Continue
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fail(unreachable, "read the controller's answer: %w", err)
	case len(raw) > maxAnswer:
		return fail(senseless, "the controller's answer is longer than %d MiB", maxAnswer>>20)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fail(senseless, "read the controller's answer: %w", err)
	}
	return nil
}

// failed is what an answer means that is no success.
func failed(resp *http.Response) *failure {
	f := fail(busy, "the controller answers %s%s", resp.Status, detail(resp.Body))
	f.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		f.kind = refused
	case code == http.StatusNotFound || code == http.StatusGone:
		f.kind = unknown
	case code < 400:
		f.kind = senseless
	}
	return f
}

// detail is what the body of an error says, ": " before it.
func detail(r io.Reader) string {
	raw, err := io.ReadAll(io.LimitReader(r, 64<<10))
	var e hostapi.ErrorBody
	if err != nil || json.Unmarshal(raw, &e) != nil || e.ErrorDetail == "" {
		return ""
	}
	return ": " + strings.ToValidUTF8(e.ErrorDetail[:min(len(e.ErrorDetail), maxSentence)], "\uFFFD")
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, maxPatience)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), maxPatience)
	}
	return 0
}
