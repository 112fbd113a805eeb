package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// Observation is one answered request.
type Observation struct {
	Method string
	Route  string // the pattern that matched, "/nodes/{nodeid}/mem"; "" for none
	Status int    // 499: the client went away before there was one
	Took   time.Duration
}

type requestIDKey struct{}

// goodID is what we take over from a client as its request id.
var goodID = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// requestID gives each request an id, the client's own if it has sent one, and
// tells it in the answer.
func requestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if len(id) > 64 || !goodID.MatchString(id) {
			id = rand.Text()
		}
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
	})
}

// RequestID is the id under which the log knows this request.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// observe counts and logs each request when it has been answered.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s.inFlight.Add(1)
		defer s.inFlight.Add(-1)
		a := &answer{ResponseWriter: w}
		defer func() { // also when the handler aborts the connection
			o := Observation{Method: r.Method, Route: route(r), Status: status(a, r), Took: time.Since(start)}
			s.cfg.Observe(o)
			s.cfg.Log.DebugContext(r.Context(), "request", "request_id", RequestID(r.Context()),
				"method", o.Method, "path", r.URL.Path, "route", o.Route, "status", o.Status,
				"bytes", a.bytes, "took", o.Took, "remote", r.RemoteAddr)
		}()
		next.ServeHTTP(a, r)
	})
}

func route(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil {
		return c.RoutePattern()
	}
	return ""
}

// answer notes what is answered.
type answer struct {
	http.ResponseWriter
	status int // 0: nothing yet
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.begun()
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom: files go from disk to socket in the kernel.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	a.begun()
	n, err := io.Copy(a.ResponseWriter, r)
	a.bytes += n
	return n, err
}

func (a *answer) begun() {
	if a.status == 0 {
		a.status = http.StatusOK
	}
}

// headAsGet has routes of GET answer HEAD, too, unless there is one of HEAD.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := chi.RouteContext(r.Context()); r.Method == http.MethodHead && !c.Routes.Match(chi.NewRouteContext(), r.Method, cmp.Or(r.URL.RawPath, r.URL.Path)) {
			c.RouteMethod = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

// statusOf is that of an answer that goes through observe.
func statusOf(w http.ResponseWriter, r *http.Request) int {
	if a, ok := w.(*answer); ok {
		return status(a, r)
	}
	return 0
}

func status(a *answer, r *http.Request) int {
	if a.status != 0 {
		return a.status
	}
	if r.Context().Err() != nil {
		return 499 // nginx's word for it
	}
	return http.StatusOK
}

// recover turns a panic into a 500, or into a cut connection where the answer
// has begun, and logs it.
func (s *Server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it like this too
				panic(p)
			}
			s.cfg.Log.ErrorContext(r.Context(), "request panicked", "request_id", RequestID(r.Context()),
				"method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if a, ok := w.(*answer); ok && a.status != 0 {
				panic(http.ErrAbortHandler)
			}
			Error(w, http.StatusInternalServerError, hidden(r.Context()))
		}()
		next.ServeHTTP(w, r)
	})
}

// Internal is what a client reads of an internal error. Who may use the unix
// socket is root on this machine and may know what went wrong; who came by TCP
// is told where it stands.
func Internal(r *http.Request, err error) string {
	door, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || door.Network() != "unix" {
		return hidden(r.Context())
	}
	return fmt.Sprintf("%s (internal error; request id %s in the log of buoyd)", Sentence(err), RequestID(r.Context()))
}

func hidden(ctx context.Context) string {
	return fmt.Sprintf("internal error; see the log of buoyd, request id %s", RequestID(ctx))
}

// Sentence is an error's text in one line.
func Sentence(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
