package events

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// statuses say what went wrong. Anything else is a 500.
var statuses = map[errs.Kind]int{
	errs.NotFound:    http.StatusNotFound,
	errs.Exists:      http.StatusConflict,
	errs.Invalid:     http.StatusBadRequest,
	errs.Conflict:    http.StatusConflict,
	errs.Unavailable: http.StatusServiceUnavailable,
	errs.Forbidden:   http.StatusForbidden,
}

// do turns a handler's error into an answer.
func (d *Dialect) do(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil || api.Gone(r) {
			return
		}
		if status, ok := statuses[errs.KindOf(err)]; ok {
			api.Error(w, status, api.Sentence(err))
			return
		}
		d.cfg.Logger.ErrorContext(r.Context(), "request failed", "request_id", api.RequestID(r.Context()),
			"method", r.Method, "path", r.URL.Path, "error", err)
		api.Error(w, http.StatusInternalServerError, api.Internal(r, err))
	})
}
