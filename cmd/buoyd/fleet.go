package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/apps"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/api/hosts"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/api/nodes"
	"github.com/buoy-edge/buoy/api/osc"
	"github.com/buoy-edge/buoy/api/services"
	"github.com/buoy-edge/buoy/api/tunnel"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/tlspin"
	"github.com/buoy-edge/buoy/node/agent"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/proxy"
	buoy "github.com/buoy-edge/buoy/sdk/go"
	"github.com/buoy-edge/buoy/store/sqlite"
)

// controller is the part of a daemon that runs apps on hosts.
type controller struct {
	id     string // of this node
	data   string
	keys   *seal.Keys
	store  *sqlite.Store
	engine *app.Engine
	proxy  *proxy.Proxy
	lb     *balancer
	hub    *tunnel.Hub
	nudges *nudges
	log    *slog.Logger

	dialects []api.Dialect
	apps     *apps.Dialect
}

// controllerDB is the file of what a controller must not forget.
const controllerDB = "controller.db"

// newController makes one, or nil if this daemon is none. Nothing has been
// started when it returns.
// pin is that of its certificate authority, if it has one of its own.
func newController(ctx context.Context, cfg config, told *told, pin string, keys *seal.Keys, log *slog.Logger) (c *controller, err error) {
	if cfg.fleet.controller != self {
		return nil, nil
	}
	c = &controller{id: told.id, data: cfg.data, keys: keys, log: log}
	if err := c.makeJoinToken(pin); err != nil {
		return nil, err
	}
	if c.store, err = sqlite.Open(ctx, filepath.Join(cfg.data, controllerDB)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.store.Close())
		}
	}()
	pcfg := proxy.Config{HTTP: cfg.fleet.http, HTTPS: cfg.fleet.https, CertFiles: cfg.fleet.certs, ProxyProtocolFrom: cfg.fleet.trusted, Log: log}
	if c.proxy, err = proxy.New(pcfg); err != nil {
		return nil, err
	}
	c.hub = tunnel.NewHub(tunnel.HubConfig{Changed: func(host string, up bool) { c.engine.Linked(host, up) }, Log: log})
	c.nudges = &nudges{poke: c.poke, pending: map[string]bool{}}
	c.lb = &balancer{proxy: c.proxy, listen: cfg.publish}
	for _, addr := range cfg.listen {
		if at, err := netip.ParseAddrPort(addr); err == nil {
			c.lb.own = append(c.lb.own, at)
		}
	}
	c.engine, err = app.New(app.Config{
		Store: c.store, Balancer: c.lb, Log: log,
		Nudge: c.nudges.nudge, Secret: c.secret, CheckHealth: c.checkHealth, DropVolumes: c.dropVolumes, Interval: cfg.fleet.interval,
	})
	if err != nil {
		return nil, err
	}
	if err := c.engine.Load(ctx); err != nil {
		return nil, err
	}
	return c, c.speak(cfg, told.api.Stream())
}

// speak makes the dialects. events are those of the node, and of apps and hosts.
func (c *controller) speak(cfg config, events http.Handler) error {
	url := ""
	if len(cfg.listen) > 1 { // the first is the socket
		url = scheme(cfg) + "://" + cfg.listen[1]
	}
	h, err := hosts.New(hosts.Config{
		Engine: c.engine, Tunnels: c.hub, Join: c.join, Logs: c.containerLog, ReportEvery: cfg.fleet.interval,
		Answers: c.answers, Person: person, URL: url, RateLimit: cfg.fleet.hostRate, Log: c.log,
	})
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	acfg := apps.Config{
		Engine: c.engine, Logs: c.replicaLog, Balanced: c.proxy.Len, Node: c.id, Hostname: host,
		Database: apps.Database{Name: filepath.Join(cfg.data, controllerDB), PoolSize: 1},
		Limits:   cfg.fleet.limits(), Events: events, Log: c.log,
	}
	if len(cfg.listen) > 1 {
		at, err := netip.ParseAddrPort(cfg.listen[1])
		if err == nil {
			acfg.Listen = apps.Listen{Host: at.Addr().String(), Port: int(at.Port()), Workers: goruntime.GOMAXPROCS(0)}
		}
	}
	if c.apps, err = apps.New(acfg); err != nil {
		return err
	}
	svc, err := services.New(services.Config{Engine: c.engine, Log: c.log})
	if err != nil {
		return err
	}
	ocl, err := osc.New(osc.Config{Engine: c.engine, Path: cfg.fleet.oscPath, Allow: cfg.fleet.oscAllow, Log: c.log})
	if err != nil {
		return err
	}
	c.dialects = []api.Dialect{h, c.apps, svc, ocl}
	return nil
}

func (c *controller) close() error {
	if c == nil {
		return nil
	}
	return c.store.Close()
}

// run keeps apps running until ctx ends.
func (c *controller) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.engine.Run(ctx) })
	g.Go(func() error { return c.proxy.Run(ctx) })
	g.Go(func() error { return c.nudges.run(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		c.hub.Close()
		return nil
	})
	return g.Wait()
}

// tokenFile has the token that lets hosts in.
func (c *controller) tokenFile() string { return filepath.Join(c.data, "join-token") }

// makeJoinToken makes it, or has it carry another pin.
func (c *controller) makeJoinToken(pin string) error {
	text, err := os.ReadFile(c.tokenFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the join token: %w", err)
	}
	secret, had := tlspin.Cut(strings.TrimSpace(string(text)))
	if err == nil && (had == pin || secret == "") {
		return nil // an empty one lets nobody in
	}
	if err != nil {
		secret = "buoy-join-" + strings.ToLower(rand.Text())
	}
	if pin != "" {
		secret = tlspin.Join(secret, pin)
	}
	return atomicfile.Write(c.tokenFile(), []byte(secret+"\n"), 0o600)
}

func (c *controller) joinToken() (string, error) {
	text, err := os.ReadFile(c.tokenFile())
	if err != nil {
		return "", fmt.Errorf("read the join token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// join says whether a token lets hosts in. What pin it carries is for the host.
func (c *controller) join(token string) bool {
	want, err := c.joinToken()
	if err != nil {
		c.log.Error("hosts cannot join", "error", err)
		return false
	}
	want, _ = tlspin.Cut(want)
	token, _ = tlspin.Cut(token)
	return want != "" && subtle.ConstantTimeCompare([]byte(want), []byte(token)) == 1
}

// Nodes implements nodes.Fleet.
func (c *controller) Nodes() (all []nodes.RemoteNode) {
	for _, h := range c.engine.Hosts() {
		if h.ID == c.id || !h.Terminated.IsZero() {
			continue
		}
		addr, _ := netip.ParseAddr(h.Addr)
		all = append(all, nodes.RemoteNode{ID: h.ID, Hostname: h.Name, Addr: addr, Version: h.Facts.Version, Alive: h.Liveness == app.Alive})
	}
	return all
}

// Transport implements nodes.Fleet.
func (c *controller) Transport(id string) (http.RoundTripper, error) {
	if t, ok := c.hub.Transport(id); ok {
		return t, nil
	}
	if _, err := c.engine.Host(id); err != nil {
		return nil, errs.E(errs.NotFound, "node %q is not known here: this is node %q, and no host of its is called so", id, c.id)
	}
	return nil, errs.E(errs.Unavailable, "node %q is not connected", id)
}

// on is a client of the API of a host.
func (c *controller) on(host string) (*buoy.Client, error) {
	t, err := c.Transport(host)
	if err != nil {
		return nil, err
	}
	return buoy.New("http://localhost", buoy.WithNode(host), buoy.WithHTTPClient(&http.Client{Transport: t}))
}

// Bounds of what a host answers the controller itself, which reads it whole.
const (
	maxHostAnswer  = 16 << 20
	hostAnswerTime = 30 * time.Second
)

// briefly is on for answers that have an end.
func (c *controller) briefly(host string) (*buoy.Client, error) {
	t, err := c.Transport(host)
	if err != nil {
		return nil, err
	}
	return buoy.New("http://localhost", buoy.WithNode(host),
		buoy.WithHTTPClient(&http.Client{Transport: bounded{t, maxHostAnswer}, Timeout: hostAnswerTime}))
}

// bounded cuts answers that are too long.
type bounded struct {
	http.RoundTripper
	most int64
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, b.most)
	}
	return resp, err
}

func (c *controller) checkHealth(ctx context.Context, r app.Replica) error {
	b, err := c.briefly(r.Host)
	if err != nil {
		return err
	}
	_, err = b.CheckHealth(ctx, r.Seen.Name)
	return err
}

// dropVolumes removes volumes that nobody names from a host.
func (c *controller) dropVolumes(ctx context.Context, host string, names []string) (n int, err error) {
	b, err := c.briefly(host)
	if err != nil {
		return 0, err
	}
	have, err := b.Volumes(ctx)
	if err != nil {
		return 0, err
	}
	for _, v := range have {
		if !slices.Contains(names, v.Name) {
			continue
		}
		if err := b.DeleteVolume(ctx, v.Name); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// containerLog writes the log of a container.
func (c *controller) containerLog(ctx context.Context, host, name string, w io.Writer) error {
	b, err := c.on(host)
	if err != nil {
		return err
	}
	r, err := b.Logs(ctx, name, buoy.LogOptions{})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, r.Close())
}

// maxLine is the longest line of a log: what is longer than 1 MiB is a line of its own.
const maxLine = 1<<20 + 1<<10

// replicaLog gives the lines of a replica.
func (c *controller) replicaLog(ctx context.Context, r app.Replica, q apps.LogQuery, f func(apps.LogLine) error) error {
	b, err := c.on(r.Host)
	if err != nil {
		return err
	}
	o := buoy.LogOptions{Tail: q.Tail, Since: q.Since, Follow: q.Follow, CRI: true}
	if q.Tail < 0 {
		o.Tail, o.Since = 0, time.Now()
	}
	body, err := b.Logs(ctx, r.Seen.Name, o)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		l, ok := readLine(lines.Text())
		if !ok {
			continue
		}
		if err := f(l); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return lines.Err()
}

// readLine reads a line as LogOptions.CRI has it.
func readLine(s string) (apps.LogLine, bool) {
	part := strings.SplitN(s, " ", 4)
	if len(part) != 4 {
		return apps.LogLine{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, part[0])
	return apps.LogLine{Time: at, Stream: part[1], Text: part[3]}, err == nil
}

// member is the part of a daemon that reports to a controller.
type member struct {
	agent  *agent.Agent
	tunnel *tunnel.Client
}

// newMember makes one, or nil if this node has no controller. zero is the API
// of the node.
func newMember(cfg config, p *parts, zero *nodes.Dialect, log *slog.Logger) (*member, error) {
	if cfg.fleet.controller == "" {
		return nil, nil
	}
	inner, err := api.New(api.Config{Dialects: []api.Dialect{zero}, Log: log})
	if err != nil {
		return nil, err
	}
	id := p.node.Info().ID
	url, token := cfg.fleet.controller, cfg.fleet.token
	if url == self {
		url, token = "unix://"+filepath.Join(cfg.run, "buoy.sock"), p.controller.joinToken
	}
	local, err := agent.Local(by(events.Actor{Kind: events.ByController, Name: url}, inner), id)
	if err != nil {
		return nil, err
	}
	address := cfg.fleet.address
	if address == "" && !cfg.publish.IsUnspecified() {
		address = cfg.publish.String()
	}
	m := &member{}
	m.agent, err = agent.New(agent.Config{
		Controller: url, JoinToken: token, Data: cfg.data, Keys: p.keys, Local: local, Node: p.node, Machine: machine{p.node},
		NodeID: id, Name: p.node.Info().Hostname, Labels: cfg.fleet.labels, Address: address,
		FirstPort: cfg.fleet.ports[0], LastPort: cfg.fleet.ports[1], Log: log,
		Reached: func(ctx context.Context, err error) {
			p.told.controllerSeen(ctx, url, err)
			if err == nil {
				m.tunnel.Retry() // what cut the one had cut the other
			}
		},
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+hostapi.Poke, m.agent.Handler())
	mux.Handle("/nodes/", by(events.Actor{Kind: events.ByAPI, Peer: "by way of " + url}, handedOn(inner)))
	m.tunnel, err = tunnel.NewClient(tunnel.ClientConfig{
		Controller: url, Handler: mux, TLS: m.agent.TLS(), Log: log, Refused: func(int) { m.agent.Poke() },
		Session: func() (string, string, <-chan struct{}) {
			s, changed := m.agent.Session()
			return s.HostID, s.Token, changed
		},
	})
	return m, err
}

func (m *member) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.agent.Run(ctx) })
	g.Go(func() error { return m.tunnel.Run(ctx) })
	return g.Wait()
}

// handedOn takes the controller's word for whose a request is.
func handedOn(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(auth.Forwarded) != "" {
			caller, err := auth.OfHeader(r.Header)
			if err != nil {
				api.Error(w, http.StatusBadRequest, fmt.Sprintf("header %s: %v", auth.Forwarded, err))
				return
			}
			r = r.WithContext(auth.With(r.Context(), caller))
		}
		h.ServeHTTP(w, r)
	})
}

func scheme(cfg config) string {
	if cfg.dev {
		return "http"
	}
	return "https"
}

// person says whether somebody who is no host may ask the hosts' dialect.
func person(r *http.Request) bool {
	c := auth.Of(r.Context())
	return c.Role >= auth.ByMethod(r.Method) && !c.Limits.Any()
}
