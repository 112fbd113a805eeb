// Package events answers what happens on a node: its events, as they come or as
// they were, and the webhooks that are told of them.
package events

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/node/events"
)

// Config is what a Dialect is made of.
type Config struct {
	Log      *events.Log  // required
	Webhooks Webhooks     // required
	Logger   *slog.Logger // gets what clients are not told; default: none
	// Shared says that somebody else answers GET /events and hands on to Stream
	// what is ours.
	Shared bool
}

// Dialect answers the routes of events.
type Dialect struct {
	cfg      Config
	readers  followers
	patience time.Duration // a test has less
}

// New makes a Dialect.
func New(cfg Config) (*Dialect, error) {
	if cfg.Log == nil || cfg.Webhooks == nil {
		return nil, errors.New("new events dialect: Log and Webhooks are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Dialect{cfg: cfg, patience: patience}, nil
}

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	if !d.cfg.Shared {
		r.Method(http.MethodGet, "/events", d.Stream())
	}
	d.webhookRoutes(r)
}

// Stream answers with all events of this daemon: a controller's have those of
// its apps and hosts among them.
func (d *Dialect) Stream() http.Handler { return d.do(d.stream(false)) }

// NodeStream answers with the events of the node alone.
func (d *Dialect) NodeStream() http.Handler { return d.do(d.stream(true)) }
