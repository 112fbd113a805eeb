// Package apps is the REST API of Orchestry, as its document describes it,
// with the paths of its code as aliases. What the document has not is ours and
// never needed.
package apps

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// Engine is what the dialect asks of the engine; *app.Engine does it. Errors
// have a kind of errs, and texts that the client may read unless they are Internal.
type Engine interface {
	Apps
	Runs
	Scalers
	Rollouts
	Measures
	Events
	Fleet
}

// Apps are the apps that are known.
type Apps interface {
	App(name string) (app.View, error)
	Apps() []app.View // by name
	Create(ctx context.Context, spec app.Spec, source json.RawMessage, origin string) (app.App, error)
	Update(ctx context.Context, spec app.Spec, source json.RawMessage) (app.View, error)
	Apply(ctx context.Context, spec app.Spec, source json.RawMessage, origin string) (app.View, error)
	Preview(spec app.Spec) (app.Diff, error)
	Remove(ctx context.Context, name string, keepData bool) (app.Removed, error) // kills what runs
}

// Runs start and stop apps.
type Runs interface {
	Start(ctx context.Context, name string, replicas int) (app.View, error) // below 0: as many as before
	Stop(ctx context.Context, name string, force bool) (app.View, error)
	Await(ctx context.Context, name string, done func(app.View) bool) (app.View, error)
}

// Scalers change the number of replicas and the policy.
type Scalers interface {
	Scale(ctx context.Context, name string, replicas int, reason string, person bool) (from int, err error)
	SetScaling(ctx context.Context, name string, s app.Scaling) (old app.Scaling, err error)
	Simulate(name string, s app.Sample) (app.Decision, error)
}

// Rollouts steer how replicas come to a revision, and where they are.
type Rollouts interface {
	Rollback(ctx context.Context, name string, revision int, may func(*app.Spec) error) (app.View, error) // 0: the last good one before
	PauseRollout(ctx context.Context, name string) (app.View, error)
	ResumeRollout(ctx context.Context, name string) (app.View, error)
	Promote(ctx context.Context, name string) (app.View, error)
	Explain(name string) (app.Explanation, error)
	Rebalance(ctx context.Context, name string, preview bool) ([]app.Move, error) // "": all apps
}

// Measures say how apps are doing.
type Measures interface {
	History(name string, points int, interval time.Duration) ([]app.Sample, error) // oldest first
	CheckHealth(ctx context.Context, name string) (app.View, error)                // after the hosts have run the checks
	Traffic() map[string]app.Traffic                                               // as the balancer has counted it
}

// Events are what happened and what happens.
type Events interface {
	Events(ctx context.Context, q app.EventQuery) ([]app.Event, int, error)
	Subscribe() (events <-chan *app.Event, stop func()) // closed when the reader is too slow
}

// Fleet is all hosts together, and what holds for all apps.
type Fleet interface {
	Hosts() []app.HostView
	Totals() app.Totals
	Config() app.Settings
	SetConfig(ctx context.Context, s app.Settings) error
}

// Config is what a Dialect is made of.
type Config struct {
	Engine Engine // required
	// Logs gives the lines of a replica, oldest first, until f fails; with
	// Follow until ctx is done or the replica will write no more. // required
	Logs func(ctx context.Context, r app.Replica, q LogQuery, f func(LogLine) error) error

	// Ready says that the engine knows its apps; until then only questions are
	// answered. Default: always.
	Ready func() bool
	// Balanced counts what the balancer has routes for. Default: there is none.
	Balanced func() int

	Node     string // id of the controller
	Hostname string
	Listen   Listen   // shown by /api/v1/config
	Database Database // shown by /api/v1/config
	Limits   Limits
	Events   http.Handler // answers GET /events to those who want more than Orchestry has; default: nobody gets it
	Log      *slog.Logger // gets what clients are not told; default: none
}

// Listen is where the API is. Its fields are only shown.
type Listen struct {
	Host    string `json:"host"`
	Port    int    `json:"port"`
	Workers int    `json:"workers"`
}

// Database is where the controller's state is. Its fields are only shown.
type Database struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Name     string `json:"name"`
	PoolSize int    `json:"pool_size"`
}

// Dialect answers the Orchestry API.
type Dialect struct {
	cfg      Config
	engine   Engine
	start    time.Time
	limit    *limiter
	patience time.Duration // with readers of WebSockets; tests have less
	logTime  time.Duration // with hosts that are asked for logs; tests have less
	sockets  chan struct{} // one for each WebSocket that is open
	merge    sync.Mutex    // held from reading a policy or the settings until they are written with changes
}

// maxSockets is how many WebSockets may be open: each may have a stream of logs
// from every host.
const maxSockets = 1000

// New makes a Dialect.
func New(cfg Config) (*Dialect, error) {
	if cfg.Engine == nil || cfg.Logs == nil {
		return nil, errors.New("new Orchestry dialect: Engine and Logs are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ready == nil {
		cfg.Ready = func() bool { return true }
	}
	return &Dialect{
		cfg: cfg, engine: cfg.Engine, start: time.Now(), limit: newLimiter(cfg.Limits), patience: messageTime, logTime: logTime,
		sockets: make(chan struct{}, maxSockets),
	}, nil
}
