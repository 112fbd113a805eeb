package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/buoy-edge/buoy/internal/errs"
)

// statuses is how dialects say what went wrong, unless theirs has words of its
// own for it. Anything else is a 500.
var statuses = map[errs.Kind]int{
	errs.NotFound:    http.StatusNotFound,
	errs.Exists:      http.StatusConflict,
	errs.Invalid:     http.StatusBadRequest,
	errs.Conflict:    http.StatusConflict,
	errs.Unavailable: http.StatusServiceUnavailable,
	errs.Forbidden:   http.StatusForbidden,
}

// Refusal is an error with a status of its own.
type Refusal struct {
	Status int
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// Refuse makes a Refusal.
func Refuse(status int, format string, args ...any) error {
	return &Refusal{status, fmt.Sprintf(format, args...)}
}

// Failed says whether a handler's error is to be answered: there is one, and a
// client who waits. One that is only slow looks gone to net/http once its time is up.
func Failed(r *http.Request, err error) bool {
	return err != nil && (!Gone(r) || errors.Is(err, os.ErrDeadlineExceeded))
}

// Explain is the status and the sentence for the client. What is internal it
// logs, so it is called once for an error.
func Explain(r *http.Request, err error, log *slog.Logger) (status int, sentence string) {
	if own, ok := errors.AsType[*Refusal](err); ok {
		return own.Status, own.Text
	}
	if _, ok := errors.AsType[*TooLargeError](err); ok {
		return http.StatusRequestEntityTooLarge, err.Error()
	}
	kind := errs.KindOf(err)
	switch status, ok := statuses[kind]; {
	case kind == errs.Invalid && errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, Sentence(err)
	case r.Context().Err() != nil && (!ok || kind == errs.Unavailable): // cut by the server's end
		return http.StatusServiceUnavailable, "buoyd is stopping"
	case ok:
		return status, Sentence(err)
	}
	log.ErrorContext(r.Context(), "request failed", "request_id", RequestID(r.Context()),
		"method", r.Method, "path", r.URL.Path, "error", err)
	return http.StatusInternalServerError, Internal(r, err)
}
