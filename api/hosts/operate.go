package hosts

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// drain: nothing new comes to the host, and what runs there is moved elsewhere.
func (d *Dialect) drain(w http.ResponseWriter, r *http.Request, c caller) error {
	return d.setMode(w, r, c, app.Drain)
}

// pause: nothing new comes to the host, and what runs stays.
func (d *Dialect) pause(w http.ResponseWriter, r *http.Request, c caller) error {
	return d.setMode(w, r, c, app.Pause)
}

// resume undoes drain and pause.
func (d *Dialect) resume(w http.ResponseWriter, r *http.Request, c caller) error {
	return d.setMode(w, r, c, app.Continue)
}

// terminate marks the host; it is told when it reports next.
func (d *Dialect) terminate(w http.ResponseWriter, r *http.Request, c caller) error {
	return d.setMode(w, r, c, app.Terminate)
}

func (d *Dialect) setMode(w http.ResponseWriter, r *http.Request, c caller, m app.HostMode) error {
	var why hostapi.Reason
	if _, err := bodyIfAny(w, r, maxWords, &why); err != nil {
		return err
	}
	why, err := checkReason(why, m)
	if err != nil {
		return err
	}
	id := api.Param(r, "hostid")
	err = d.cfg.Engine.SetHostMode(r.Context(), id, m, why.Reason, why.Detail)
	if h, again := d.cfg.Engine.Host(id); m == app.Terminate && errors.Is(err, errs.Conflict) && again == nil && h.Mode == m {
		err = nil // for another reason; the first one stays
	}
	if err != nil {
		return err
	}
	d.log.InfoContext(r.Context(), "host mode set", "host", id, "mode", m, "reason", why.Reason, "by", c.String(),
		"request_id", api.RequestID(r.Context()))
	api.JSON(w, http.StatusOK, hostapi.OperationResponse{Success: true, Count: 1})
	return nil
}

// checkReason refuses a reason that aiWARE has not for that mode; without one
// it is the user.
func checkReason(why hostapi.Reason, m app.HostMode) (hostapi.Reason, error) {
	reasons := []string{"none", "controller", "expiration", "spot", "user", "hardware", "other"}
	if m != app.Terminate {
		reasons = append(reasons, "scaling")
	}
	why.Reason = cmp.Or(why.Reason, "user")
	if !slices.Contains(reasons, why.Reason) {
		return why, errs.E(errs.Invalid, "field \"reason\" is %.60q; it must be one of %v", why.Reason, reasons)
	}
	if len(why.Detail) > maxMessage || strings.ContainsFunc(why.Detail, unicode.IsControl) {
		return why, errs.E(errs.Invalid, "field \"detail\" has control characters or more than %d bytes", maxMessage)
	}
	return why, nil
}

// alertRequest is what a host has noticed.
type alertRequest struct {
	AlertType  string  `json:"alertType"`
	AlertValue float64 `json:"alertValue"`
	HostID     string  `json:"hostID"` // ours: whose, if a person says it
}

func (d *Dialect) alert(w http.ResponseWriter, r *http.Request, c caller) error {
	var a alertRequest
	if err := body(w, r, maxWords, &a); err != nil {
		return err
	}
	switch {
	case a.AlertType == "" || !plain(a.AlertType):
		return errs.E(errs.Invalid, "field \"alertType\" is %.60q; it must be a word of at most %d bytes", a.AlertType, maxWord)
	case c.role == aHost && a.HostID != "" && a.HostID != c.host.ID:
		return api.Refuse(http.StatusForbidden, "the token is of host %s, not of host %.60q", c.host.ID, a.HostID)
	case c.role == aHost:
		a.HostID = c.host.ID
	case a.HostID != "":
		if _, err := d.cfg.Engine.Host(a.HostID); err != nil {
			return err
		}
	}
	if err := d.cfg.Engine.Alert(r.Context(), a.HostID, a.AlertType, a.AlertValue); err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, hostapi.OperationResponse{Success: true, Count: 1})
	return nil
}
