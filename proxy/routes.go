package proxy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// App is what is asked for by host name, path or port, and who answers.
type App struct {
	Name     string
	Rules    []Rule
	Streams  []Stream
	Port     uint16  // in the containers, where requests of Rules go
	Balance  Balance // RoundRobin
	H2C      bool    // the backends speak HTTP/2 without TLS: gRPC
	Backends []Backend
}

// Rule says which requests are an app's.
type Rule struct {
	Host string // "shop.example.org", "*.example.org" for all below it, "" for any
	Path string // "/api" is itself and all below "/api/"; "" is every path
}

// Stream is a port of the machine whose connections, or datagrams, are an app's.
type Stream struct {
	Proto     string // tcp or udp
	Listen    netip.AddrPort
	Port      uint16 // in the containers
	SendProxy bool   // tell the backend the client's address by PROXY protocol 2; tcp
}

// Backend is one replica.
type Backend struct {
	ID       string
	Ports    map[uint16]netip.AddrPort // where its ports are published
	Draining bool                      // what is under way ends, nothing new begins
}

// Balance is how a backend is chosen.
type Balance int

// The ways to choose. Sticky is by cookie for requests, by the client's
// address for connections and datagrams.
const (
	RoundRobin Balance = iota
	LeastConnections
	Sticky
)

func (b Balance) String() string {
	switch b {
	case RoundRobin:
		return "round robin"
	case LeastConnections:
		return "least connections"
	case Sticky:
		return "sticky"
	}
	return "unknown"
}

// door is where a stream is listened for. app is named only where the kernel
// chooses the port, so that such doors do not collide.
type door struct {
	proto string
	at    netip.AddrPort
	app   string
}

func (s Stream) door(app string) door {
	d := door{proto: s.Proto, at: netip.AddrPortFrom(s.Listen.Addr().Unmap(), s.Listen.Port())}
	if s.Listen.Port() == 0 {
		d.app = app
	}
	return d
}

// knock appends what doors have in common that can meet.
func (d door) knock(to []byte) []byte {
	to = append(append(to, d.proto...), ':')
	return append(strconv.AppendUint(to, uint64(d.at.Port()), 10), d.app...)
}

// meets says whether the kernel could not tell the two apart.
func (d door) meets(e door) bool {
	if d.proto != e.proto || d.at.Port() != e.at.Port() {
		return false
	}
	if d.at.Port() == 0 {
		return d == e
	}
	a, b := d.at.Addr(), e.at.Addr()
	return a == b || covers(a, b) || covers(b, a)
}

// covers says whether listening at a is listening at b too.
func covers(a, b netip.Addr) bool {
	return a == netip.IPv6Unspecified() || a == netip.IPv4Unspecified() && b.Is4()
}

// claim is an app with what no other may have, spelled as it is compared.
type claim struct {
	App
	rules []Rule
	doors []door // of its streams, in their order
}

// claim is what an app wants, or what is wrong with that whatever others want.
func (a App) claim() (claim, error) {
	c := claim{App: a}
	if err := a.check(); err != nil {
		return c, err
	}
	for _, r := range a.Rules {
		n, err := r.normal(a.Name)
		if err != nil {
			return c, err
		}
		if !slices.Contains(c.rules, n) {
			c.rules = append(c.rules, n)
		}
	}
	for _, s := range a.Streams {
		d := s.door(a.Name)
		if slices.ContainsFunc(c.doors, d.meets) {
			return c, errs.E(errs.Conflict, "app %q wants %s %s twice", a.Name, d.proto, d.at)
		}
		c.doors = append(c.doors, d)
	}
	return c, nil
}

// check is what can be said about an app without the others.
func (a App) check() error {
	if a.Name == "" {
		return errs.E(errs.Invalid, "an app has no name")
	}
	if len(a.Rules) > 0 && a.Port == 0 {
		return errs.E(errs.Invalid, "app %q: its rules lead to no container port", a.Name)
	}
	if a.Balance < RoundRobin || a.Balance > Sticky {
		return errs.E(errs.Invalid, "app %q: balance %d does not exist", a.Name, a.Balance)
	}
	for _, s := range a.Streams {
		if s.Proto != "tcp" && s.Proto != "udp" {
			return errs.E(errs.Invalid, "app %q: protocol %q is neither tcp nor udp", a.Name, s.Proto)
		}
		if !s.Listen.IsValid() || s.Port == 0 {
			return errs.E(errs.Invalid, "app %q: a stream needs an address to listen at and a container port", a.Name)
		}
		if s.SendProxy && s.Proto == "udp" {
			return errs.E(errs.Invalid, "app %q: the PROXY protocol is for tcp, not for udp", a.Name)
		}
	}
	ids := map[string]bool{}
	for _, b := range a.Backends {
		if b.ID == "" || ids[b.ID] {
			return errs.E(errs.Invalid, "app %q: backend %q has no id or that of another", a.Name, b.ID)
		}
		ids[b.ID] = true
	}
	return nil
}

// normal is a rule as it is compared, or what is wrong with it.
func (r Rule) normal(app string) (Rule, error) {
	host := strings.TrimSuffix(strings.ToLower(r.Host), ".")
	name := strings.TrimPrefix(host, "*.")
	if name == "" && host != "" || strings.ContainsAny(name, "*/ ") || strings.HasPrefix(name, ".") {
		return r, errs.E(errs.Invalid, "app %q: host %q must be a name, *.NAME or empty", app, r.Host)
	}
	if strings.ContainsRune(name, ':') {
		if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err != nil {
			return r, errs.E(errs.Invalid, "app %q: host %q must be without a port", app, r.Host)
		}
		host = strings.Trim(name, "[]")
	}
	path := strings.TrimRight(r.Path, "/")
	if path != "" && (path[0] != '/' || path != clean(path)) || path == "" && r.Path != "" && r.Path[0] != '/' {
		return r, errs.E(errs.Invalid, "app %q: path %q must begin with / and have neither . nor .. nor //", app, r.Path)
	}
	return Rule{Host: host, Path: path}, nil
}
