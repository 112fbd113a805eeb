package events

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// do turns a handler's error into an answer.
func (d *Dialect) do(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if api.Failed(r, err) {
			status, sentence := api.Explain(r, err, d.cfg.Logger)
			api.Error(w, status, sentence)
		}
	})
}
