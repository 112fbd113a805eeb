// Package services is the HTTP API of the Genisys connector, as its document
// describes it: services by name, each an image scaled to a number of
// containers. docs/services.md describes it for people.
package services

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// Engine is what the dialect asks of the engine; *app.Engine does it. Errors
// have a kind of errs, and texts that the client may read unless they are Internal.
type Engine interface {
	Apps
	Runs
}

// Apps are the apps that are known.
type Apps interface {
	App(name string) (app.View, error)
	Apps() []app.View // by name
	Create(ctx context.Context, spec app.Spec, source json.RawMessage, origin string) (app.App, error)
	Update(ctx context.Context, spec app.Spec, source json.RawMessage) (app.View, error)
}

// Runs have apps run, and say when they do.
type Runs interface {
	Start(ctx context.Context, name string, replicas int) (app.View, error)
	Stop(ctx context.Context, name string, force bool) (app.View, error)
	Scale(ctx context.Context, name string, replicas int, reason string, person bool) (from int, err error)
	Await(ctx context.Context, name string, done func(app.View) bool) (app.View, error)
}

// Config is what a Dialect is made of.
type Config struct {
	Engine Engine       // required
	Log    *slog.Logger // gets what clients are not told; default: none
}

// Dialect answers the Genisys connector API.
type Dialect struct {
	engine   Engine
	log      *slog.Logger
	patience time.Duration // with containers that are to run, or to end
	edit     sync.Mutex    // held from reading a definition until it is written with changes
}

// New makes a Dialect.
func New(cfg Config) (*Dialect, error) {
	if cfg.Engine == nil {
		return nil, errors.New("new Genisys dialect: Engine is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dialect{engine: cfg.Engine, log: cfg.Log, patience: time.Minute}, nil
}
