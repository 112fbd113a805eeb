package nodes

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// events answers with what happens on the node.
func (d *Dialect) events(w http.ResponseWriter, r *http.Request) error {
	if d.told == nil {
		return errs.E(errs.NotFound, "this node keeps no events")
	}
	d.told.ServeHTTP(w, r)
	return nil
}

// asked says in events whose request it is that something was done for.
func asked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(events.Asked(r.Context(), api.RequestID(r.Context()), api.Peer(r))))
	})
}
