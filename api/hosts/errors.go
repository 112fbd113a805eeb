package hosts

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// statuses is how aiWARE says what went wrong. Anything else is a 500.
var statuses = map[errs.Kind]int{
	errs.NotFound:    http.StatusNotFound,
	errs.Exists:      http.StatusConflict,
	errs.Invalid:     http.StatusBadRequest,
	errs.Conflict:    http.StatusConflict,
	errs.Unavailable: http.StatusServiceUnavailable,
	errs.Forbidden:   http.StatusForbidden,
}

// kinds are the id and the description of each status in an error's body.
var kinds = map[int]struct{ id, description string }{
	http.StatusBadRequest:            {"bad_request", "The request is not in the right format, or lacks something."},
	http.StatusUnauthorized:          {"not_authorized", "The request has no valid token."},
	http.StatusForbidden:             {"forbidden", "The token does not allow this."},
	http.StatusNotFound:              {"not_found", "There is no such thing."},
	http.StatusRequestTimeout:        {"client_timeout", "The request did not come in time; it can be repeated."},
	http.StatusConflict:              {"conflict", "The state of things does not allow this, or it is registered already."},
	http.StatusRequestEntityTooLarge: {"too_large", "The body is too large."},
	http.StatusUnsupportedMediaType:  {"unsupported_media_type", "The body is not JSON."},
	http.StatusTooManyRequests:       {"too_many_requests", "The server has too many requests; see Retry-After."},
	http.StatusInternalServerError:   {"internal", "Something is wrong with the controller."},
	http.StatusServiceUnavailable:    {"unavailable", "Something that this needs is not there now."},
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

// do lets a handler answer those that may call it, and turns its error into an
// answer.
func (d *Dialect) do(may access, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := d.caller(r)
		err := d.tooMany(w, c)
		if err == nil {
			err = may(c, r)
		}
		if err == nil {
			err = h(w, r, c)
		}
		// A client that is only slow looks gone to net/http once its time is up.
		if err == nil || api.Gone(r) && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		status, sentence := d.explain(r, err)
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="buoy"`)
		}
		api.JSON(w, status, errorBody(status, sentence))
	})
}

func errorBody(status int, sentence string) hostapi.ErrorBody {
	k := kinds[status]
	return hostapi.ErrorBody{
		ErrorID: k.id, ErrorDescription: k.description, ErrorDetail: sentence,
		ID: k.id, Description: k.description, Detail: sentence,
	}
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
	if errors.Is(err, os.ErrDeadlineExceeded) && errs.KindOf(err) == errs.Invalid {
		return http.StatusRequestTimeout, api.Sentence(err)
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
