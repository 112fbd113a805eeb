// Package osc is the REST API of OSC Runtime, as its document describes it:
// services are registered by OCL descriptors, or from where these are, and
// started and stopped by name. What OCL has not, containers, is an extension;
// docs/osc.md describes it for people.
package osc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// Engine is what the dialect asks of the engine; *app.Engine does it. Errors
// have a kind of errs, and texts that the client may read unless they are Internal.
type Engine interface {
	Apps
	Revisions
	Runs
}

// Apps are the apps that are known.
type Apps interface {
	App(name string) (app.View, error)
	Apps() []app.View // by name
	Create(ctx context.Context, spec app.Spec, source json.RawMessage, origin string) (app.App, error)
	Remove(ctx context.Context, name string, keepData bool) (app.Removed, error) // kills what runs
}

// Revisions change what an app is, and take that back.
type Revisions interface {
	Preview(spec app.Spec) (app.Diff, error)
	Update(ctx context.Context, spec app.Spec, source json.RawMessage) (app.View, error)
	Rollback(ctx context.Context, name string, revision int, may func(*app.Spec) error) (app.View, error)
	Scale(ctx context.Context, name string, replicas int, reason string, person bool) (from int, err error)
}

// Runs start and stop apps, and say when that is done.
type Runs interface {
	Start(ctx context.Context, name string, replicas int) (app.View, error) // below 0: as many as before
	Stop(ctx context.Context, name string, force bool) (app.View, error)
	Await(ctx context.Context, name string, done func(app.View) bool) (app.View, error)
}

// Config is what a Dialect is made of.
type Config struct {
	Engine Engine         // required
	Path   string         // all routes are below; default "/osc"
	Allow  []netip.Prefix // loopback and link-local addresses from where descriptors may be fetched all the same
	Log    *slog.Logger   // gets what clients are not told; default: none
}

// Dialect answers the OSC Runtime API.
type Dialect struct {
	engine   Engine
	path     string
	log      *slog.Logger
	fetcher  *http.Client
	patience time.Duration // with services that are to run, or to end
	edit     sync.Mutex    // held from reading what a service is until it is written with changes
}

// New makes a Dialect.
func New(cfg Config) (*Dialect, error) {
	if cfg.Engine == nil {
		return nil, errors.New("new OSC dialect: Engine is required")
	}
	if cfg.Path == "" {
		cfg.Path = "/osc"
	}
	if cfg.Path[0] != '/' || strings.HasSuffix(cfg.Path, "/") || strings.ContainsAny(cfg.Path, "{}* ") {
		return nil, fmt.Errorf("new OSC dialect: Path is %q; it must be a path like /osc", cfg.Path)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dialect{engine: cfg.Engine, path: cfg.Path, log: cfg.Log, fetcher: newFetcher(cfg.Allow), patience: time.Minute}, nil
}
