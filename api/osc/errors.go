package osc

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// statuses is what a kind of error is here. Anything else is a 500, as all was
// in the original; its clients could tell 200 from the rest alone.
var statuses = map[errs.Kind]int{
	errs.NotFound:    http.StatusNotFound,
	errs.Exists:      http.StatusConflict,
	errs.Invalid:     http.StatusBadRequest,
	errs.Conflict:    http.StatusConflict,
	errs.Unavailable: http.StatusServiceUnavailable,
	errs.Forbidden:   http.StatusForbidden,
}

// refusal is an error with a status of its own.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// errorObject is the answer to what went wrong.
type errorObject struct {
	Error    string          `json:"error"`
	Problems []problemObject `json:"problems,omitempty"` // of a descriptor, all that is wrong
}

// problemObject is what is wrong with a field.
type problemObject struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// do turns a handler's error into an answer. Without one, and without an
// answer, it is 200 with nothing in it.
func (d *Dialect) do(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		// A client that is only slow looks gone to net/http once its time is up.
		if err == nil || api.Gone(r) && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		status, sentence := d.explain(r, err)
		o := errorObject{Error: sentence}
		if problems, ok := errors.AsType[app.Problems](err); ok {
			for _, p := range problems {
				o.Problems = append(o.Problems, problemObject{Path: p.Path, Message: p.Text})
			}
		}
		api.JSON(w, status, o)
	})
}

// explain is the status and the sentence for the client. What is internal it
// logs; so call it once for an error.
func (d *Dialect) explain(r *http.Request, err error) (status int, sentence string) {
	if own, ok := errors.AsType[*refusal](err); ok {
		return own.status, own.text
	}
	if _, ok := errors.AsType[*api.TooLargeError](err); ok {
		return http.StatusRequestEntityTooLarge, err.Error()
	}
	kind := errs.KindOf(err)
	switch status, ok := statuses[kind]; {
	case kind == errs.Invalid && errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, api.Sentence(err)
	case r.Context().Err() != nil && (!ok || kind == errs.Unavailable): // cut by the server's end
		return http.StatusServiceUnavailable, "buoyd is stopping"
	case ok:
		return status, api.Sentence(err)
	}
	d.log.ErrorContext(r.Context(), "request failed", "request_id", api.RequestID(r.Context()),
		"method", r.Method, "path", r.URL.Path, "error", err)
	return http.StatusInternalServerError, api.Internal(r, err)
}
