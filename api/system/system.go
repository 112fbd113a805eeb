// Package system answers what every buoyd has whichever dialects it speaks:
// its health, version, metrics and the description of its API.
package system

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/prometheus"
	"github.com/buoy-edge/buoy/node"
)

//go:embed openapi.yaml
var openapi []byte

// Config is what a Dialect is made of.
type Config struct {
	// Health says how the daemon is, cheaply. // required
	Health func() Health
	// Containers counts the node's containers by status, for /metrics. // required
	Containers func() map[string]int
	// Node is what /metrics measures; default: none.
	Node Node
	// GPUs are what /metrics tells of, too; default: none.
	GPUs GPUs
	// Controller gives an object of which /health has the fields, too; those of
	// the same name it gives instead. Default: none.
	Controller func(ctx context.Context) any
}

// Node is a node that can be measured.
type Node interface {
	Sample(fresh time.Duration) (*node.Sample, error)
	Figures(ctx context.Context) (node.Figures, error)
}

// Health is how the daemon is; it sees to Uptime itself.
type Health struct {
	Status  string  `json:"status"` // "ok": the daemon answers
	Ready   bool    `json:"ready"`  // what should run has been looked after since the daemon's start
	Node    string  `json:"node"`   // its id
	Message string  `json:"message,omitempty"`
	Version string  `json:"version"`
	Uptime  float64 `json:"uptime"` // of the daemon, in seconds
}

// Dialect answers the system routes.
type Dialect struct {
	cfg      Config
	start    time.Time
	requests *requests
	more     []func(*prometheus.Page)

	documents chan struct{} // has one for each that is made and read just now
}

// New makes a Dialect. Its Observe belongs into api.Config.
func New(cfg Config) (*Dialect, error) {
	if cfg.Health == nil || cfg.Containers == nil {
		return nil, errors.New("new system dialect: Health and Containers are required")
	}
	return &Dialect{cfg: cfg, start: time.Now(), requests: newRequests(), documents: make(chan struct{}, maxDocuments)}, nil
}

// Observe counts an answered request.
func (d *Dialect) Observe(o api.Observation) { d.requests.observe(o) }

// Tell has /metrics tell more, of which each adds metrics of its own to a page.
// It is called before requests come.
func (d *Dialect) Tell(more ...func(*prometheus.Page)) { d.more = append(d.more, more...) }
