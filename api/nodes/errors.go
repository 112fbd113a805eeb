package nodes

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// do turns a handler's error into an answer.
func (d *Dialect) do(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if api.Failed(r, err) {
			status, sentence := api.Explain(r, err, d.log)
			api.Error(w, status, sentence)
		}
	})
}

// absentIsFine makes deleting what is not there a success.
func absentIsFine(err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	return err
}
