// Package api is the HTTP server that every REST dialect shares: its doors,
// its limits and how it reads JSON. What a request means is up to a Dialect.
package api

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api/audit"
	"github.com/buoy-edge/buoy/api/auth"
)

// Dialect is one REST API: it adds its routes, with full paths, to r.
type Dialect interface {
	Routes(r chi.Router)
}

// Config is what a Server is made of.
type Config struct {
	Dialects []Dialect          // required
	Log      *slog.Logger       // default: none
	TLS      *tls.Config        // what doors on TCP speak; default: nothing, plain text
	Gate     *auth.Gate         // who may do what; default: everybody may do all
	Audit    func(audit.Entry)  // is told what callers change, or may not; default: nothing
	Hosts    []string           // names a Host header may have on TCP, besides those of loopback
	Observe  func(Observation)  // called once after each request; default: nothing
	Grace    time.Duration      // for running requests when the server stops; default 10 s
	Opened   func(a []net.Addr) // called when Listen has opened all its doors; default: nothing
}

// Server answers the requests of all dialects.
type Server struct {
	cfg    Config
	router *chi.Mux

	inFlight  atomic.Int64 // requests
	refused   refusals
	strangers strangers
}

// New makes a Server. It listens nowhere until Listen.
func New(cfg Config) (*Server, error) {
	if len(cfg.Dialects) == 0 {
		return nil, errors.New("new API server: Dialects is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Observation) {}
	}
	if cfg.Audit == nil {
		cfg.Audit = func(audit.Entry) {}
	}
	if cfg.Opened == nil {
		cfg.Opened = func([]net.Addr) {}
	}
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	s := &Server{cfg: cfg, router: chi.NewRouter(), strangers: strangers{most: maxStrangers}}
	s.router.Use(drain, requestID, s.observe, s.recover, s.guardHost, guardOrigin(), s.authorize, headAsGet)
	s.router.NotFound(notFound)
	s.router.MethodNotAllowed(methodNotAllowed)
	for _, d := range cfg.Dialects {
		s.router.Group(d.Routes)
	}
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// InFlight is how many requests are being answered.
func (s *Server) InFlight() int64 { return s.inFlight.Load() }

// Routes lists what the dialects have registered, for chi.Walk.
func (s *Server) Routes() chi.Routes { return s.router }
