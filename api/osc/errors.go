package osc

import (
	"errors"
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
)

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
		if !api.Failed(r, err) {
			return
		}
		status, sentence := api.Explain(r, err, d.log)
		o := errorObject{Error: sentence}
		if problems, ok := errors.AsType[app.Problems](err); ok {
			for _, p := range problems {
				o.Problems = append(o.Problems, problemObject{Path: p.Path, Message: p.Text})
			}
		}
		api.JSON(w, status, o)
	})
}
