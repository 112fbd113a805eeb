package api

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api/audit"
	"github.com/buoy-edge/buoy/api/auth"
)

// authorize lets through those whom the rule of the route does, and notes who
// they are. What leads nowhere needs no rule.
func (s *Server) authorize(next http.Handler) http.Handler {
	if s.cfg.Gate == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pattern, named := s.target(r)
		caller, wrong := s.cfg.Gate.Identify(r, peerOf(r))
		r = r.WithContext(auth.With(r.Context(), caller))
		if caller.Role > auth.Nobody {
			Known(r)
		}
		rule := auth.RuleOf(r.Method, pattern)
		if pattern != "" && !rule.Open {
			if status, sentence := refusal(rule, caller, wrong, named); status != 0 {
				if status == http.StatusUnauthorized {
					w.Header().Set("WWW-Authenticate", `Bearer realm="buoy"`)
				}
				Error(w, status, sentence)
				s.refuse(r, caller, status)
				return
			}
		}
		if pattern == "" || !audited(r, rule, caller, pattern) {
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		if Upgrades(r) { // its end may be days away, and what it is for is known
			s.record(r, caller, http.StatusSwitchingProtocols, start)
			next.ServeHTTP(w, r)
			return
		}
		defer func() { s.record(r, caller, statusOf(w, r), start) }()
		next.ServeHTTP(w, r)
	})
}

// audited says whether a request goes on record: what changes something, and
// what lets its caller see secrets. Hosts report all the time; of what they say
// only that they come is of interest.
func audited(r *http.Request, rule auth.Rule, c auth.Caller, pattern string) bool {
	if rule.Open && c.Role == auth.Nobody {
		return strings.HasSuffix(pattern, "/register")
	}
	return auth.ByMethod(r.Method) > auth.Viewer || rule.Role > auth.Viewer
}

func (s *Server) record(r *http.Request, c auth.Caller, status int, start time.Time) {
	s.cfg.Audit(audit.Entry{
		Caller: c.Name, Role: c.Role.String(), Peer: Peer(r), Request: RequestID(r.Context()),
		Method: r.Method, Path: r.URL.Path, Status: status, Millis: time.Since(start).Milliseconds(),
	})
}

// refuse records a refusal. Somebody who tries on and on must not push the rest
// out of the record.
func (s *Server) refuse(r *http.Request, c auth.Caller, status int) {
	left, ok := s.refused.note(time.Now())
	if !ok {
		return
	}
	e := audit.Entry{
		Caller: c.Name, Role: c.Role.String(), Peer: Peer(r), Request: RequestID(r.Context()),
		Method: r.Method, Path: r.URL.Path, Status: status,
	}
	if left > 0 {
		e.Note = fmt.Sprintf("%d more were refused before it and are not recorded", left)
	}
	s.cfg.Audit(e)
}

// refusals counts them, so that few are recorded in each second.
type refusals struct {
	mu    sync.Mutex // guards what follows
	since time.Time
	n     int // in the second from since
	left  int // not recorded since the last one that was
}

const refusalsASecond = 10

func (f *refusals) note(now time.Time) (left int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.since) >= time.Second {
		f.since, f.n = now, 0
	}
	if f.n >= refusalsASecond {
		f.left++
		return 0, false
	}
	f.n++
	left, f.left = f.left, 0
	return left, true
}

// target is the route that a request will take, "" if there is none, and what
// the path names.
func (s *Server) target(r *http.Request) (pattern string, named func(key string) string) {
	method, path := r.Method, r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath // as chi routes
	}
	c := chi.NewRouteContext()
	pattern = s.router.Find(c, method, path)
	if pattern == "" && method == http.MethodHead {
		c.Reset()
		pattern = s.router.Find(c, http.MethodGet, path)
	}
	return pattern, func(key string) string {
		return unescaped(r, c.URLParam(key))
	}
}

// refusal is the answer to whom the rule does not let through, 0 for others.
func refusal(rule auth.Rule, c auth.Caller, wrong error, named func(string) string) (status int, sentence string) {
	switch {
	case wrong != nil:
		return http.StatusUnauthorized, wrong.Error()
	case c.Role == auth.Nobody:
		return http.StatusUnauthorized, fmt.Sprintf("this takes the role %s: send a bearer token in the Authorization header (buoy reads it from BUOY_TOKEN)", rule.Role)
	case c.Role < rule.Role:
		return http.StatusForbidden, fmt.Sprintf("this takes the role %s, and %s has %s", rule.Role, c.Name, c.Role)
	case !within(c.Limits, rule, named):
		return http.StatusForbidden, fmt.Sprintf("%s is limited to some names, and this is about others", c.Name)
	}
	return 0, ""
}

// within says whether what a path names is within limits.
func within(l auth.Limits, rule auth.Rule, named func(string) string) bool {
	if !l.Any() || rule.Names {
		return true
	}
	node, container, app := named("nodeid"), named("container"), named("app")
	switch {
	case container != "":
		return l.Container(node, container)
	case node != "":
		return l.Node(node)
	case app != "":
		return l.App(app)
	}
	return false
}
