// Package proxy is the balancer before apps: HTTP by host name and path, TCP
// and UDP by port.
package proxy

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config says where HTTP is answered. Streams are those of apps.
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
	certs     Certificates
	h1, h2c   *http.Transport
	own       []door // of HTTP and HTTPS
	stir      chan struct{}
	asks      chan ask

	table   atomic.Pointer[table]
	opened  atomic.Pointer[opened] // nil: Run has opened nothing yet
	blocked atomic.Bool            // a port could not be opened

	updating sync.Mutex    // one Update at a time
	mu       sync.Mutex    // guards serving, and the order of it and table
	serving  chan struct{} // closed when Run takes no more asks; nil: it does not run
}

// Addrs is where a proxy listens.
type Addrs struct {
	HTTP, HTTPS []netip.AddrPort
	Streams     map[string][]netip.AddrPort // by app, in the order of its streams; invalid: not open
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
		cfg: cfg, limits: standard(), epoch: time.Now(),
		stir: make(chan struct{}, 1), asks: make(chan ask),
		certs: Certificates{files: cfg.CertFiles, log: cfg.Log},
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

// ask has Run open and close ports as the table has them.
type ask struct {
	doors []door // that may have changed
	done  chan error
}

// Update gives apps these routes and backends in place of what they had, and
// takes away those that are gone; all others stay as they are. If two apps clash
// nothing has changed and the error, a Conflict, names both. A port that cannot
// be opened is Unavailable; everything else is done then, and the next Update
// tries again. The same again changes nothing. It works before Run, which opens
// the ports.
func (p *Proxy) Update(apps []App, gone ...string) error {
	p.updating.Lock()
	defer p.updating.Unlock()
	d := draft{table: *p.table.Load()}
	changes, err := d.update(apps, gone, p.own)
	if err != nil {
		return err
	}
	for i := range changes {
		changes[i].begin()
	}
	serving := p.replace(&d)
	for i := range changes {
		changes[i].finish()
	}
	if serving == nil || len(d.touched) == 0 && !p.blocked.Load() {
		return nil
	}
	done := make(chan error, 1)
	select {
	case p.asks <- ask{d.touched, done}:
		return <-done
	case <-serving:
		return nil
	}
}

// replace puts a table in the place of the present one, if it is another one.
func (p *Proxy) replace(d *draft) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.changed {
		p.table.Store(&d.table)
	}
	return p.serving
}
