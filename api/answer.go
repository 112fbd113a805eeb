package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
)

// JSON answers with v. An encoding failure is a bug of ours or a client that
// has gone; neither can be told to it any more.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// Error answers {"error": sentence}.
func Error(w http.ResponseWriter, status int, sentence string) {
	JSON(w, status, struct {
		Error string `json:"error"`
	}{sentence})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	Error(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %s", r.URL.Path))
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allowed := allowedMethods(r)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	Error(w, http.StatusMethodNotAllowed,
		fmt.Sprintf("%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " and "), r.Method))
}

func allowedMethods(r *http.Request) (allowed []string) {
	routes := chi.RouteContext(r.Context()).Routes
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath // as chi routes
	}
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), m, path) {
			allowed = append(allowed, m)
		}
	}
	return allowed
}
