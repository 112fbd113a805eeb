// Package proxy is the balancer before apps: HTTP by host name and path, TCP
// and UDP by port.
package proxy

import (
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config says where HTTP is answered. Streams are in the Routes.
type Config struct {
	HTTP      []string   // HOST:PORT to answer at
	HTTPS     []string   // the same with TLS
	CertFiles []CertFile // for HTTPS; a client gets the first that has its name, or the first

	// ProxyProtocolFrom are the peers that are believed when they say who the
	// client is, by PROXY protocol or X-Forwarded-For.
	ProxyProtocolFrom []netip.Prefix

	Log *slog.Logger // nil: silent
}

// limits are times; tests have shorter ones.
type limits struct {
	head    time.Duration // for a request's head, from its first byte
	body    time.Duration // for a body that is read before a backend is asked
	idle    time.Duration // of a connection between requests; of a client that does not read
	connect time.Duration // to a backend
	answer  time.Duration // until a backend answers
	silence time.Duration // of a backend in the midst of a body
	silent  time.Duration // for a PROXY header at a stream: its client may wait for the other side to begin
	linger  time.Duration // for a client to read why it is refused
	drain   time.Duration // for requests to end when Run does
	look    time.Duration // between looks at what is idle or gone
}

func standard() limits {
	return limits{
		head: 10 * time.Second, body: 30 * time.Second, idle: time.Minute,
		connect: 2 * time.Second, answer: time.Minute, silence: time.Hour, silent: 500 * time.Millisecond,
		linger: 500 * time.Millisecond, drain: 10 * time.Second, look: time.Second,
	}
}

// Proxy is the balancer.
type Proxy struct {
	cfg       Config
	limits    limits
	epoch     time.Time
	buffers   bigBuffers
	datagrams datagramBuffers
	guests    guests
	sessions  atomic.Int64 // of all UDP streams
	lobby     *lobby
	certs     certificates
	h1, h2c   *http.Transport
	own       []door // of HTTP and HTTPS
	stir      chan struct{}
	asks      chan chan error

	table atomic.Pointer[table]
	ends  atomic.Pointer[[]*end]
	addrs atomic.Pointer[Addrs]

	setting sync.Mutex // one Set at a time
	mu      sync.Mutex // guards the fields below
	apps    map[string]*app
	serving chan struct{} // closed when Run takes no more asks; nil: it does not run
}

// Addrs is where a proxy listens.
type Addrs struct {
	HTTP, HTTPS []netip.AddrPort
	Streams     map[string][]netip.AddrPort // by app, in the order of its streams; invalid: cannot be opened
}

// New is a proxy that listens nowhere yet.
func New(cfg Config) (*Proxy, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.HTTPS) > 0 && len(cfg.CertFiles) == 0 {
		return nil, errs.E(errs.Invalid, "answer HTTPS at %s: there is no certificate", strings.Join(cfg.HTTPS, ", "))
	}
	p := &Proxy{
		cfg: cfg, limits: standard(), epoch: time.Now(), apps: map[string]*app{},
		stir: make(chan struct{}, 1), asks: make(chan chan error),
		certs: certificates{files: cfg.CertFiles, log: cfg.Log},
	}
	p.guests.all = map[*guest]struct{}{}
	for _, at := range slices.Concat(cfg.HTTP, cfg.HTTPS) {
		d, err := doorAt(at)
		if err != nil {
			return nil, err
		}
		if d.at.Port() != 0 {
			p.own = append(p.own, d)
		}
	}
	p.table.Store(&table{})
	p.ends.Store(&[]*end{})
	p.addrs.Store(&Addrs{})
	return p, nil
}

// doorAt reads HOST:PORT.
func doorAt(text string) (door, error) {
	wrong := errs.E(errs.Invalid, "answer HTTP at %q: it must be ADDRESS:PORT, such as 0.0.0.0:80 or [::]:80", text)
	at, err := netip.ParseAddrPort(text)
	if strings.HasPrefix(text, ":") {
		at, err = netip.ParseAddrPort("[::]" + text)
	}
	if rest, ok := strings.CutPrefix(text, "localhost:"); ok {
		at, err = netip.ParseAddrPort("127.0.0.1:" + rest)
	}
	if err != nil {
		return door{}, wrong
	}
	return Stream{Proto: "tcp", Listen: at}.door(""), nil
}

// now is the time since New, and never 0.
func (p *Proxy) now() int64 { return int64(time.Since(p.epoch)) + 1 }

// Set makes the routes what they are to be. If two apps clash nothing has
// changed and the error, a Conflict, names both. A port that cannot be opened
// is Unavailable; everything else is set then, and the next Set tries again.
// The same again changes nothing. It works before Run, which opens the ports.
func (p *Proxy) Set(r Routes) error {
	p.setting.Lock()
	defer p.setting.Unlock()
	rules, err := checkRoutes(r, p.own)
	if err != nil {
		return err
	}
	serving := p.replace(r, rules)
	if serving == nil {
		return nil
	}
	done := make(chan error, 1)
	select {
	case p.asks <- done:
		return <-done
	case <-serving:
		return nil
	}
}

// replace puts a new table in the place of the present one.
func (p *Proxy) replace(r Routes, rules map[string][]Rule) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := maker{old: p.apps, apps: map[string]*app{}, lists: map[string][]*replica{}, ends: map[*end]bool{}}
	t := compile(r, rules, m.app, m.end)
	p.apps = m.apps
	for name, list := range m.lists {
		m.apps[name].replicas.Store(&list)
	}
	before := *p.ends.Load()
	after := slices.Collect(maps.Keys(m.ends))
	p.ends.Store(&after)
	for _, e := range after {
		if !e.draining.Load() {
			e.reopen()
		}
	}
	p.table.Store(t)
	for _, e := range before {
		if !m.ends[e] {
			e.gone.Store(true)
			e.close()
			delete(e.replica.ends, e.addr)
		}
	}
	for _, e := range after {
		if e.draining.Load() {
			e.close()
		}
	}
	return p.serving
}

// maker finds what lasts of apps and backends, or makes it.
type maker struct {
	old, apps map[string]*app
	lists     map[string][]*replica
	ends      map[*end]bool
}

func (m *maker) app(name string) *app {
	a := m.old[name]
	if a == nil {
		a = &app{name: name, cookie: cookieOf(name)}
		a.replicas.Store(&[]*replica{})
	}
	m.apps[name], m.lists[name] = a, []*replica{}
	return a
}

func (m *maker) end(a *app, b Backend, at netip.AddrPort) *end {
	same := func(r *replica) bool { return r.id == b.ID }
	var r *replica
	if i := slices.IndexFunc(m.lists[a.name], same); i >= 0 {
		r = m.lists[a.name][i]
	} else {
		if i := slices.IndexFunc(*a.replicas.Load(), same); i >= 0 {
			r = (*a.replicas.Load())[i]
		} else {
			r = newReplica(a, b.ID)
		}
		m.lists[a.name] = append(m.lists[a.name], r)
		r.draining.Store(b.Draining)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	e := r.ends[at]
	if e == nil {
		e = &end{replica: r, addr: at, text: at.String()}
		r.ends[at] = e
	}
	m.ends[e] = true
	return e
}
