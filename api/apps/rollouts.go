package apps

import (
	"context"
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
)

// rollout is how far the newest revision has come.
type rollout struct {
	Revision int    `json:"revision"` // that replicas are brought to
	Previous int    `json:"previous"` // 0: none
	Since    string `json:"since"`
	Done     bool   `json:"done"`
	Paused   bool   `json:"paused"`
	Canary   bool   `json:"canary"` // waits to be promoted
	Ready    int    `json:"ready"`  // replicas at the revision
	Wanted   int    `json:"wanted"` // there: of canaries, only them
	Message  string `json:"message"`
}

func rolloutOf(v *app.View) rollout {
	p := v.App.Rollout
	ready, wanted := v.Rolled()
	return rollout{
		Revision: p.Target, Previous: p.Previous, Since: stamp(p.Since), Done: p.Done, Paused: p.Paused, Canary: p.Canary,
		Ready: ready, Wanted: wanted, Message: p.Message,
	}
}

// steered is the answer to what steers a rollout.
type steered struct {
	Message string  `json:"message"`
	AppName string  `json:"app_name"`
	Status  string  `json:"status"`
	Rollout rollout `json:"rollout"`
}

func steeredOf(message string, v app.View) steered {
	return steered{Message: message, AppName: v.App.Name, Status: string(v.Status), Rollout: rolloutOf(&v)}
}

// steer is a handler without a body.
func (d *Dialect) steer(message string, do func(ctx context.Context, name string) (app.View, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := do(r.Context(), api.Param(r, "app"))
		if err != nil {
			return err
		}
		api.JSON(w, http.StatusOK, steeredOf(message, v))
		return nil
	}
}

// rollbackBody is what a rollback may say.
type rollbackBody struct {
	Revision int `json:"revision"` // 0: the last good one before
}

func (d *Dialect) rollback(w http.ResponseWriter, r *http.Request) error {
	b, err := api.DecodeOptional[rollbackBody](w, r)
	if err != nil {
		return err
	}
	if b.Revision < 0 {
		return invalidf("field \"revision\" is %d; it must be the number of a revision, or 0 for the last good one", b.Revision)
	}
	caller := auth.Of(r.Context())
	all := d.beside(caller)
	may := func(s *app.Spec) error { return permit(caller, *s, all) }
	v, err := d.engine.Rollback(r.Context(), api.Param(r, "app"), b.Revision, may)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, steeredOf("Rollback started", v))
	return nil
}

// explanation is where the next replica would go.
type explanation struct {
	AppName string        `json:"app_name"`
	Missing int           `json:"missing"` // replicas that no host takes now
	Hosts   []hostVerdict `json:"hosts"`   // those that fit first, best first
}

// hostVerdict is what one host says to a replica.
type hostVerdict struct {
	Host   string  `json:"host"`
	Name   string  `json:"name"`
	Fits   bool    `json:"fits"`
	Reason string  `json:"reason"` // why not
	Score  float64 `json:"score"`
}

func (d *Dialect) explainApp(w http.ResponseWriter, r *http.Request) error {
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	x, err := d.engine.Explain(name)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, explanation{name, v.Missing, each(x.Hosts, func(h app.WhyNot) hostVerdict {
		return hostVerdict{Host: h.Host, Name: h.Name, Fits: h.Reason == "", Reason: h.Reason, Score: round(h.Score)}
	})})
	return nil
}

// move is a replica that goes to another host.
type move struct {
	AppName string `json:"app_name"`
	Replica string `json:"replica"`
	From    string `json:"from"`
	To      string `json:"to"`
	Reason  string `json:"reason"`
}

// rebalanceBody is what rebalancing may be told.
type rebalanceBody struct {
	Preview bool `json:"preview"`
}

// moveList is the answer to rebalancing.
type moveList struct {
	Message string `json:"message"`
	Preview bool   `json:"preview"`
	Moves   []move `json:"moves"`
}

// rebalance moves replicas of one app, or of all, to where they would be placed
// now; with preview it only says which.
func (d *Dialect) rebalance(w http.ResponseWriter, r *http.Request) error {
	b, err := api.DecodeOptional[rebalanceBody](w, r)
	if err != nil {
		return err
	}
	moves, err := d.engine.Rebalance(r.Context(), api.Param(r, "app"), b.Preview)
	if err != nil {
		return err
	}
	message := "Rebalancing started"
	if b.Preview {
		message = "This is what rebalancing would do"
	}
	api.JSON(w, http.StatusOK, moveList{message, b.Preview, each(moves, func(m app.Move) move {
		return move{AppName: m.App, Replica: m.Replica, From: m.From, To: m.To, Reason: m.Reason}
	})})
	return nil
}
