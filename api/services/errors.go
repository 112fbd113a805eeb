package services

import (
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// statuses is what a kind of error is here. Anything else is a 500. The
// original said 501 of a service that is not known; callers look for 200 alone.
var statuses = map[errs.Kind]int{
	errs.NotFound:    http.StatusNotFound,
	errs.Exists:      http.StatusConflict,
	errs.Invalid:     http.StatusBadRequest,
	errs.Conflict:    http.StatusConflict,
	errs.Unavailable: http.StatusServiceUnavailable,
	errs.Forbidden:   http.StatusForbidden,
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
		api.Error(w, status, sentence)
	})
}

// explain is the status and the sentence for the client. What is internal it
// logs; so call it once for an error.
func (d *Dialect) explain(r *http.Request, err error) (status int, sentence string) {
	if _, ok := errors.AsType[*api.TooLargeError](err); ok {
		return http.StatusRequestEntityTooLarge, err.Error()
	}
	if problems, ok := errors.AsType[app.Problems](err); ok {
		return http.StatusBadRequest, ours(problems).Error()
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

// fields are the names that definitions have for what a spec calls otherwise.
var fields = strings.NewReplacer(
	"metadata.name", "name", "spec.image", "image", "spec.args", "command", "spec.command", "command", "spec.env", "environment",
	".containerPort", "", ".hostPort", "", ".protocol", "", "spec.ports", "ports",
)

// variable is one of several, which have no order here.
var variable = regexp.MustCompile(`^spec\.env\[[0-9]+\]`)

// ours are the problems with the paths of definitions.
func ours(problems app.Problems) app.Problems {
	out := make(app.Problems, len(problems))
	for i, p := range problems {
		out[i] = app.Problem{Path: fields.Replace(variable.ReplaceAllString(p.Path, "spec.env")), Text: p.Text}
	}
	return out
}
