package hosts

import (
	"context"
	"crypto/rand"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
)

// register takes a host in and gives it a token. A known host keeps its id;
// its former token is good for nothing then.
func (d *Dialect) register(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := d.admit(w, r, c); err != nil {
		return err
	}
	var req hostapi.RegisterRequest
	if err := body(w, r, maxReport, &req); err != nil {
		return err
	}
	h, err := hostIn(req.Info, remote(r))
	if err != nil {
		return err
	}
	if c.role == aHost {
		if req.Info.HostID != "" && req.Info.HostID != c.host.ID {
			return api.Refuse(http.StatusForbidden, "the token is of host %s, which cannot register host %.60q", c.host.ID, req.Info.HostID)
		}
		if c.host.Mode == app.Terminate { // else it would undo what a person has decided
			return api.Refuse(http.StatusForbidden, "host %s is terminated; it takes the join token to come back", c.host.ID)
		}
		h.ID = c.host.ID
	} else if d.answers(r.Context(), h.ID) {
		return api.Refuse(http.StatusConflict, "host %s is in touch, and the join token does not take its place: stop its buoyd first, or give this one another id (--node-id)", h.ID)
	}
	var report app.Report
	if req.Status != nil {
		if report, err = reportIn(*req.Status, h.Addr); err != nil {
			return err
		}
		h.Report.Boot = report.Boot
	}
	token := rand.Text()
	h, err = d.cfg.Engine.RegisterHost(r.Context(), h, token)
	if err != nil {
		return err
	}
	d.log.InfoContext(r.Context(), "host registered", "host", h.ID, "name", h.Name, "addr", h.Addr,
		"again", c.role == aHost, "request_id", api.RequestID(r.Context()))
	orders := app.Orders{Mode: h.Mode}
	if req.Status != nil {
		if orders, err = d.cfg.Engine.Report(r.Context(), h.ID, report); err != nil {
			return err
		}
	}
	action, err := actionOut(orders, h.ID, d.url(r))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusCreated, hostapi.RegisterResponse{
		HostID: h.ID, HostToken: token, Status: action, Mount: []hostapi.HostMount{},
		ConfigProperties: hostapi.ConfigProperties{
			VeritoneDockerRegistries: []hostapi.Registry{}, ReportIntervalSeconds: d.cfg.ReportEvery.Seconds(),
		},
	})
	return nil
}

// answerTime is how long a host that is there may take to say so.
const answerTime = 3 * time.Second

func (d *Dialect) answers(ctx context.Context, host string) bool {
	if host == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return d.cfg.Answers(ctx, host)
}

// url is where containers find this controller.
func (d *Dialect) url(r *http.Request) string {
	if !remote(r).IsValid() {
		return d.cfg.URL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// tunnel keeps the connection for as long as the host has it.
func (d *Dialect) tunnel(w http.ResponseWriter, r *http.Request, c caller) error {
	d.cfg.Tunnels.Serve(w, r, c.host.ID)
	return nil
}
