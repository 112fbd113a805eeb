package probe

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// What a check may ask for. The least period and timeout keep one container
// from keeping its node busy.
const (
	minPeriod    = 100 * time.Millisecond
	minTimeout   = 10 * time.Millisecond
	maxTimeout   = 10 * time.Minute
	maxTime      = 24 * time.Hour
	maxThreshold = 1000
	maxBody      = 64 << 10
)

// Validate says what is wrong with c, by the names that fields have in the API.
func (c Check) Validate() error {
	switch c.Type {
	case HTTP, TCP:
		if c.Port == 0 {
			return errs.E(errs.Invalid, "health.port is missing: it says which port of the container is asked")
		}
	case Exec:
		if len(c.Args) == 0 || c.Args[0] == "" {
			return errs.E(errs.Invalid, "health.command is missing: it says what runs in the container")
		}
	default:
		return errs.E(errs.Invalid, "health.type %q is not http, tcp or exec", c.Type)
	}
	for _, f := range []struct {
		name  string
		given bool
		of    []Type
	}{
		{"port", c.Port != 0, []Type{HTTP, TCP}},
		{"command", len(c.Args) > 0, []Type{Exec}},
		{"scheme", c.Scheme != "", []Type{HTTP}},
		{"path", c.Path != "", []Type{HTTP}},
		{"method", c.Method != "", []Type{HTTP}},
		{"headers", len(c.Headers) > 0, []Type{HTTP}},
		{"body", c.Body != "", []Type{HTTP}},
		{"statuses", len(c.Statuses) > 0, []Type{HTTP}},
	} {
		if f.given && !slices.Contains(f.of, c.Type) {
			return errs.E(errs.Invalid, "health.%s has no meaning for a check of type %s: leave it out", f.name, c.Type)
		}
	}
	if err := c.validateRequest(); err != nil {
		return err
	}
	return c.validateNumbers()
}

// validateRequest checks what goes into the request of an http check.
func (c Check) validateRequest() error {
	if c.Scheme != "" && c.Scheme != "http" && c.Scheme != "https" {
		return errs.E(errs.Invalid, "health.scheme %q is not http or https", c.Scheme)
	}
	if c.Path != "" {
		u, err := url.ParseRequestURI(c.Path)
		if err != nil || u.Scheme != "" || c.Path[0] != '/' || strings.HasPrefix(c.Path, "//") || strings.ContainsAny(c.Path, " #") {
			return errs.E(errs.Invalid, "health.path %q is not the path of a URL, like /health", c.Path)
		}
	}
	if c.Method != "" && (!token(c.Method) || c.Method == "CONNECT") {
		return errs.E(errs.Invalid, "health.method %q is not a method that asks for something, like GET", c.Method)
	}
	for _, h := range c.Headers {
		if !token(h.Name) {
			return errs.E(errs.Invalid, "health.headers: %q is not the name of a header", h.Name)
		}
		if strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return errs.E(errs.Invalid, "health.headers: the value of %q has control characters", h.Name)
		}
	}
	if len(c.Body) > maxBody {
		return errs.E(errs.Invalid, "health.body has %d bytes; %d are the most", len(c.Body), maxBody)
	}
	for _, s := range c.Statuses {
		if s < 200 || s > 599 {
			return errs.E(errs.Invalid, "health.statuses: %d is not from 200 to 599", s)
		}
	}
	return nil
}

func (c Check) validateNumbers() error {
	for _, t := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		{"initialDelay", c.InitialDelay, 0, maxTime},
		{"period", c.Period, minPeriod, maxTime},
		{"timeout", c.Timeout, minTimeout, maxTimeout},
		{"drain", c.Drain, 0, maxTime},
	} {
		if t.value != 0 && (t.value < t.least || t.value > t.most) {
			return errs.E(errs.Invalid, "health.%s is %s; it must be from %s to %s", t.name, t.value, t.least, t.most)
		}
	}
	for name, n := range map[string]int{"failureThreshold": c.FailureThreshold, "successThreshold": c.SuccessThreshold} {
		if n < 0 || n > maxThreshold {
			return errs.E(errs.Invalid, "health.%s is %d; it must be from 1 to %d, or 0 for the default", name, n, maxThreshold)
		}
	}
	return nil
}

// token says whether s is a token as HTTP has them (RFC 9110, 5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
