package proxy

import (
	"cmp"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// table is Routes ready for use. It never changes.
type table struct {
	hosts   map[string]site // by the whole name
	below   map[string]site // by what follows "*."
	any     site
	streams map[door]*service
	apps    map[string]*service // by name, those with rules or without
	doors   map[string][]door   // of each app's streams, in their order
}

// site is what a host answers, the longest path first.
type site []place

type place struct {
	path string
	to   *service
}

// service is an app as one table has it: for its rules, or for one stream.
type service struct {
	*app
	balance   Balance
	h2c       bool
	sendProxy bool
	ends      []*end // who may be given something new
}

// find is the app of a request; path is without the query. nil: none.
func (t *table) find(host, path []byte) *service {
	var buf [256]byte
	name := hostname(buf[:0], host)
	p := path
	if crooked(p) {
		p = straight(p)
	}
	if s := t.hosts[string(name)].find(p); s != nil {
		return s
	}
	if len(t.below) > 0 {
		for rest := name; ; {
			i := slices.Index(rest, '.')
			if i < 0 {
				break
			}
			rest = rest[i+1:]
			if s := t.below[string(rest)].find(p); s != nil {
				return s
			}
		}
	}
	return t.any.find(p)
}

func (s site) find(path []byte) *service {
	for i := range s {
		n := len(s[i].path)
		if len(path) >= n && string(path[:n]) == s[i].path && (n == len(path) || n == 0 || path[n] == '/') {
			return s[i].to
		}
	}
	return nil
}

// hostname appends what a Host header names, without port and in lower case.
func hostname(to, host []byte) []byte {
	if i := slices.Index(host, ']'); i > 0 && host[0] == '[' {
		return appendLower(to, host[1:i])
	}
	if i := slices.Index(host, ':'); i >= 0 {
		host = host[:i]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	return appendLower(to, host)
}

func appendLower(to, b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		to = append(to, c)
	}
	return to
}

// crooked says whether a path may be spelled otherwise than rules are.
func crooked(p []byte) bool {
	for i, c := range p {
		if c == '%' || (c == '.' || c == '/') && i > 0 && p[i-1] == '/' {
			return true
		}
	}
	return false
}

// straight is the path as rules spell it: decoded, without dots. What cannot
// be decoded stays as it is.
func straight(p []byte) []byte {
	s, err := url.PathUnescape(string(p))
	if err != nil {
		return p
	}
	return []byte(clean(s))
}

func clean(p string) string { return path.Clean("/" + strings.TrimLeft(p, "/")) }

// owner says whose a rule or a door is, for the sentence about a clash.
type owners struct {
	rules map[Rule]string
	doors []owned
}

type owned struct {
	door
	app string
}

// checkRoutes says whether all apps can be served at once; own are the doors
// of the proxy itself.
func checkRoutes(r Routes, own []door) (map[string][]Rule, error) {
	o := owners{rules: map[Rule]string{}}
	rules := map[string][]Rule{}
	for _, a := range r.Apps {
		if err := a.check(); err != nil {
			return nil, err
		}
		if _, ok := rules[a.Name]; ok {
			return nil, errs.E(errs.Invalid, "app %q is there twice", a.Name)
		}
		rules[a.Name] = nil
		for _, r := range a.Rules {
			n, err := r.normal(a.Name)
			if err != nil {
				return nil, err
			}
			other, taken := o.rules[n]
			if taken && other != a.Name {
				return nil, errs.E(errs.Conflict, "apps %q and %q both want host %q with path %q", other, a.Name, cmp.Or(n.Host, "*"), cmp.Or(n.Path, "/"))
			}
			if !taken {
				o.rules[n] = a.Name
				rules[a.Name] = append(rules[a.Name], n)
			}
		}
		for _, s := range a.Streams {
			if err := o.take(s.door(a.Name), a.Name, own); err != nil {
				return nil, err
			}
		}
	}
	return rules, nil
}

// take gives a door to an app.
func (o *owners) take(d door, app string, own []door) error {
	if slices.ContainsFunc(own, d.meets) {
		return errs.E(errs.Conflict, "app %q wants %s port %d, where HTTP is answered for all apps", app, d.proto, d.at.Port())
	}
	for _, e := range o.doors {
		if !d.meets(e.door) {
			continue
		}
		if e.app == app {
			return errs.E(errs.Conflict, "app %q wants %s %s twice", app, d.proto, d.at)
		}
		return errs.E(errs.Conflict, "apps %q and %q both want %s port %d (%s and %s)", e.app, app, d.proto, d.at.Port(), e.at, d.at)
	}
	o.doors = append(o.doors, owned{d, app})
	return nil
}

// compile makes the table out of routes that have been checked. find has the
// lasting part of an app and of where its replicas are.
func compile(r Routes, rules map[string][]Rule, find func(name string) *app, at func(*app, Backend, netip.AddrPort) *end) *table {
	t := &table{hosts: map[string]site{}, below: map[string]site{}, streams: map[door]*service{}, apps: map[string]*service{}, doors: map[string][]door{}}
	for _, a := range r.Apps {
		lasting := find(a.Name)
		on := func(port uint16) []*end {
			var ends []*end
			for _, b := range a.Backends {
				if to, ok := b.Ports[port]; ok {
					if e := at(lasting, b, to); !b.Draining {
						ends = append(ends, e)
					}
				}
			}
			return ends
		}
		web := &service{app: lasting, balance: a.Balance, h2c: a.H2C, ends: on(a.Port)}
		t.apps[a.Name] = web
		for _, r := range rules[a.Name] {
			t.add(r, web)
		}
		for _, s := range a.Streams {
			t.doors[a.Name] = append(t.doors[a.Name], s.door(a.Name))
			t.streams[s.door(a.Name)] = &service{app: lasting, balance: a.Balance, sendProxy: s.SendProxy, ends: on(s.Port)}
		}
	}
	t.order()
	return t
}

func (t *table) add(r Rule, to *service) {
	p := place{path: r.Path, to: to}
	if name, ok := strings.CutPrefix(r.Host, "*."); ok {
		t.below[name] = append(t.below[name], p)
		return
	}
	if r.Host == "" {
		t.any = append(t.any, p)
		return
	}
	t.hosts[r.Host] = append(t.hosts[r.Host], p)
}

// order puts longer paths first.
func (t *table) order() {
	longer := func(a, b place) int { return cmp.Compare(len(b.path), len(a.path)) }
	for _, s := range t.hosts {
		slices.SortFunc(s, longer)
	}
	for _, s := range t.below {
		slices.SortFunc(s, longer)
	}
	slices.SortFunc(t.any, longer)
}
