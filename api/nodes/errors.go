package nodes

import (
	"errors"
	"net/http"
	"os"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// statuses is how Zero-OS says what went wrong. Anything else is a 500.
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
	if status, ok := statuses[errs.KindOf(err)]; ok {
		return status, api.Sentence(err)
	}
	if r.Context().Err() != nil { // cut by the server's end
		return http.StatusServiceUnavailable, "buoyd is stopping"
	}
	d.log.ErrorContext(r.Context(), "request failed", "request_id", api.RequestID(r.Context()),
		"method", r.Method, "path", r.URL.Path, "error", err)
	return http.StatusInternalServerError, api.Internal(r, err)
}

// absentIsFine makes deleting what is not there a success.
func absentIsFine(err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	return err
}
