// Package hosts is the REST API of Veritone's aiWARE Edge, as a controller
// answers it: hosts register, report what they have and run, and are told what
// to do; containers on them may register too. It is also how our own nodes
// speak with their controller. docs/hosts.md describes it for people.
package hosts

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// Engine is what the dialect asks of the orchestrator. Errors have a kind of
// errs, and texts that the client may read unless they are Internal. What is
// handed out is not changed any more by either side.
type Engine interface {
	Registry
	Operations
	Replicas
}

// Registry knows the hosts and what they are to do.
type Registry interface {
	// RegisterHost takes a host in, or gives a known one (h.ID) a new token.
	// Without an id it gets one.
	RegisterHost(ctx context.Context, h app.Host, token string) (app.Host, error)
	// HostByToken is asked at each request. Terminated hosts are found, too.
	HostByToken(token string) (app.Host, bool)
	Report(ctx context.Context, id string, r app.Report) (app.Orders, error)
	Orders(id string) (app.Orders, error) // what Report would answer now
	Host(id string) (app.HostView, error)
	Hosts() []app.HostView // by id
}

// Operations are what people do with hosts.
type Operations interface {
	SetHostMode(ctx context.Context, id string, m app.HostMode, reason, detail string) error
	// Alert makes an event of what a host has noticed, or somebody on no host
	// in particular.
	Alert(ctx context.Context, hostID, kind string, value float64) error
}

// Replicas are what the containers of hosts are known by.
type Replicas interface {
	ReplicaByLaunch(id string) (app.Replica, app.Spec, error)
	App(name string) (app.View, error)
}

// Tunnels takes over the connection of a host's tunnel. It answers what is wrong
// with the request itself.
type Tunnels interface {
	Serve(w http.ResponseWriter, r *http.Request, hostID string)
}

// Config is what a Dialect is made of.
type Config struct {
	Engine  Engine                  // required
	Tunnels Tunnels                 // required
	Join    func(token string) bool // whether that token lets new hosts in. // required
	// Logs writes the whole log of a container to w, oldest line first. // required
	Logs func(ctx context.Context, hostID, container string, w io.Writer) error
	// Answers says whether a host answers by its tunnel now: then nobody else may
	// take its place with the join token. Default: none does.
	Answers func(ctx context.Context, hostID string) bool
	// Person says that a request is from somebody who may operate all hosts.
	// Default: one without a token at the unix socket or at loopback.
	Person func(r *http.Request) bool
	// URL is where containers on a host that has come by the unix socket find
	// this controller; those on others are told where the host has found it.
	// Default: they are not told.
	URL         string
	ReportEvery time.Duration // how often hosts are to report; default 10 s
	// RateLimit is how many requests a second one host, or one engine instance,
	// may make, on average over ten; 0: any number.
	RateLimit int
	Log       *slog.Logger // gets what clients are not told; default: none
}

// Dialect answers the aiWARE Edge API.
type Dialect struct {
	cfg       Config
	log       *slog.Logger
	requests  counts // by who makes them
	guesses   counts // wrong tokens, by where they come from
	instances instances
}

// New makes a Dialect.
func New(cfg Config) (*Dialect, error) {
	if cfg.Engine == nil || cfg.Tunnels == nil || cfg.Join == nil || cfg.Logs == nil {
		return nil, errors.New("new aiWARE dialect: Engine, Tunnels, Join and Logs are required")
	}
	if cfg.Person == nil {
		cfg.Person = atLocalDoor
	}
	if cfg.Answers == nil {
		cfg.Answers = func(context.Context, string) bool { return false }
	}
	if cfg.ReportEvery == 0 {
		cfg.ReportEvery = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dialect{
		cfg: cfg, log: cfg.Log, instances: newInstances(),
		requests: counts{most: cfg.RateLimit * int(rateWindow/time.Second)}, guesses: counts{most: maxGuesses},
	}, nil
}
