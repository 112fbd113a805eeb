package app

import (
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *checker) ports(s *Spec) {
	inside, outside, listen := map[uint32]int{}, map[uint32]int{}, map[uint32]int{}
	names := map[string]bool{}
	for i, p := range s.Ports {
		where := func(field string) string { return at("spec.ports", i, field) }
		c.word(where("protocol"), p.Proto, "http", "h2c", "tcp", "udp")
		if p.Name != "" && (len(p.Name) > 63 || !namePattern.MatchString(p.Name)) {
			c.add(where("name"), "is %q; it must be of at most 63 letters, digits, '-' and '_', and begin and end with a letter or digit", p.Name)
		}
		if p.Name != "" && names[p.Name] {
			c.add(where("name"), "is %q a second time", p.Name)
		}
		names[p.Name] = true
		if p.Container == 0 {
			c.add(where("containerPort"), "is 0; it must be 1 to 65535")
		}
		c.twice(i, "containerPort", inside, p.Proto, p.Container)
		c.twice(i, "hostPort", outside, p.Proto, p.Host)
		c.twice(i, "listen", listen, p.Proto, p.Listen)
		if s.Container.HostNetworking && p.Host != 0 && p.Host != p.Container {
			c.add(where("hostPort"), "is %d; in the host's network it is the container port, %d", p.Host, p.Container).With = []string{"spec.hostNetwork", where("containerPort")}
		}
		if p.Listen != 0 && p.Proto != "tcp" && p.Proto != "udp" {
			c.add(where("listen"), "is for tcp and udp; requests are told apart by host name and path").With = []string{"spec.type", where("protocol")}
		}
		if p.SendProxy && p.Proto != "tcp" {
			c.add(where("sendProxy"), "is for tcp").With = []string{"spec.type", where("protocol")}
		}
	}
}

// twice complains about a port of spec.ports[i] that another one has.
func (c *checker) twice(i int, field string, seen map[uint32]int, proto string, port uint16) {
	if port == 0 {
		return
	}
	key := HostPort(proto, port)
	if other, ok := seen[key]; ok {
		c.add(at("spec.ports", i, field), "is %d a second time", port).With = []string{"spec.type", at("spec.ports", i, "protocol"), at("spec.ports", other, "protocol")}
		return
	}
	seen[key] = i
}

// labelOfHost is a part of a host name between dots.
var labelOfHost = regexp.MustCompile(`^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?$`)

func (c *checker) exposed(s *Spec) {
	e := &s.Expose
	c.word("expose.balance", e.Balance, "", "roundrobin", "leastconn", "sticky")
	if len(e.Rules) > 0 && !slices.ContainsFunc(s.Ports, func(p Port) bool { return p.Proto == "http" || p.Proto == "h2c" }) {
		c.add("expose", "has host names or paths, and no port of spec.ports is of http").With = append(each("spec.ports", len(s.Ports), "protocol"), "spec.type")
	}
	seen := map[Rule]bool{}
	for i, r := range e.Rules {
		host := strings.ToLower(strings.TrimSuffix(r.Host, "."))
		if host != "" && !validHost(host) {
			c.add(at("expose.rules", i, "host"), "is %q; it must be a host name, *.NAME or an IP address", r.Host)
		}
		clean := strings.TrimRight(r.Path, "/")
		switch {
		case r.Path == "":
		case r.Path[0] != '/', clean != "" && path.Clean(clean) != clean, strings.ContainsAny(r.Path, "?#% \x00"):
			c.add(at("expose.rules", i, "path"), "is %q; it must begin with / and have neither . nor .. nor // nor blanks, and no query", r.Path)
		}
		if one := (Rule{Host: host, Path: clean}); seen[one] {
			c.add(at("expose.rules", i, ""), "says %q a second time", r.Host+r.Path)
		} else {
			seen[one] = true
		}
	}
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	name := strings.TrimPrefix(host, "*.")
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > 63 || !labelOfHost.MatchString(label) {
			return false
		}
	}
	return len(name) <= 253
}

// Bounds of checks, which hosts have, too.
const (
	minPeriod  = 100 * time.Millisecond
	minTimeout = 10 * time.Millisecond
	maxTimeout = 10 * time.Minute
	maxPeriod  = 24 * time.Hour
	maxBody    = 64 << 10
)

func (c *checker) health(h *buoy.HealthCheck) {
	if h == nil {
		return
	}
	switch h.Type {
	case "http", "tcp":
		if h.Port == 0 {
			c.add("healthCheck.port", "is missing: it says which port is asked").With = []string{"healthCheck.protocol", "spec.ports"}
		}
	case "exec":
		if len(h.Command) == 0 || h.Command[0] == "" {
			c.add("healthCheck.command", "is missing: it says what is run").With = []string{"healthCheck.protocol"}
		}
	default:
		c.word("healthCheck.protocol", h.Type, "http", "tcp", "exec")
	}
	for _, f := range []struct {
		name  string
		said  bool
		types string
	}{
		{"port", h.Port != 0, "http tcp"},
		{"command", len(h.Command) > 0, "exec"},
		{"protocol", h.Scheme != "", "http"}, // https
		{"path", h.Path != "", "http"},
		{"method", h.Method != "", "http"},
		{"headers", len(h.Headers) > 0, "http"},
		{"body", h.Body != "", "http"},
		{"expectedStatusCodes", len(h.Statuses) > 0, "http"},
	} {
		if f.said && h.Type != "" && !strings.Contains(f.types, h.Type) {
			c.add("healthCheck."+f.name, "has no meaning for a check by %s", h.Type).With = []string{"healthCheck.protocol", "healthCheck.command"}
		}
	}
	c.request(h)
	for _, t := range []struct {
		name        string
		seconds     float64
		least, most time.Duration
	}{
		{"initialDelaySeconds", h.InitialDelay, 0, maxPeriod},
		{"periodSeconds", h.Period, minPeriod, maxPeriod},
		{"timeoutSeconds", h.Timeout, minTimeout, maxTimeout},
		{"drainSeconds", h.Drain, 0, maxPeriod},
	} {
		if t.seconds != 0 && !(t.seconds >= t.least.Seconds() && t.seconds <= t.most.Seconds()) {
			c.add("healthCheck."+t.name, "is %g; it must be %g to %g seconds", t.seconds, t.least.Seconds(), t.most.Seconds())
		}
	}
	c.number("healthCheck.failureThreshold", int64(h.FailureThreshold), 0, maxThreshold)
	c.number("healthCheck.successThreshold", int64(h.SuccessThreshold), 0, maxThreshold)
}

// request checks what a check by http asks.
func (c *checker) request(h *buoy.HealthCheck) {
	if h.Scheme != "" && h.Scheme != "http" && h.Scheme != "https" {
		c.add("healthCheck.protocol", "is %q; it must be http or https", h.Scheme)
	}
	if h.Path != "" {
		u, err := url.ParseRequestURI(h.Path)
		if err != nil || u.Scheme != "" || h.Path[0] != '/' || strings.HasPrefix(h.Path, "//") || strings.ContainsAny(h.Path, " #") {
			c.add("healthCheck.path", "is %q; it must be the path of a URL, like /health", h.Path)
		}
	}
	if h.Method != "" && (!token(h.Method) || h.Method == "CONNECT") {
		c.add("healthCheck.method", "is %q; it must be a method that asks for something, like GET", h.Method)
	}
	for i, one := range h.Headers {
		if !token(one.Name) {
			c.add(at("healthCheck.headers", i, "name"), "is %q, which is no name of a header", one.Name)
		}
		if strings.ContainsFunc(one.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			c.add(at("healthCheck.headers", i, "value"), "has control characters")
		}
	}
	if len(h.Body) > maxBody {
		c.add("healthCheck.body", "has %d bytes; at most %d are possible", len(h.Body), maxBody)
	}
	for i, status := range h.Statuses {
		if status < 200 || status > 599 {
			c.add(at("healthCheck.expectedStatusCodes", i, ""), "is %d; it must be 200 to 599", status)
		}
	}
}

// token says whether s is a token as HTTP has them (RFC 9110, 5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
