package hosts

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
)

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

// do lets a handler answer those that may call it, and turns its error into an
// answer.
func (d *Dialect) do(may access, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := d.caller(r)
		if c.role != nobody {
			api.Known(r)
		}
		err := d.tooMany(w, c)
		if err == nil {
			err = may(c, r)
		}
		if err == nil {
			err = h(w, r, c)
		}
		if !api.Failed(r, err) {
			return
		}
		status, sentence := api.Explain(r, err, d.log)
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
