package hosts

import (
	"errors"
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// updateStatus takes the report of a host and answers with its orders.
func (d *Dialect) updateStatus(w http.ResponseWriter, r *http.Request, c caller) error {
	var s hostapi.HostStatus
	if err := body(w, r, maxReport, &s); err != nil {
		return err
	}
	if s.HostID != "" && s.HostID != c.host.ID {
		return errs.E(errs.Invalid, "field \"hostID\" is %.60q; the report is that of host %s", s.HostID, c.host.ID)
	}
	report, err := reportIn(s, c.host.Addr)
	if err != nil {
		return err
	}
	orders, err := d.cfg.Engine.Report(r.Context(), c.host.ID, report)
	if errors.Is(err, errs.NotFound) { // forgotten since its token was looked up
		orders, err = app.Orders{Mode: app.Terminate}, nil
	}
	if err != nil {
		return err
	}
	// Hosts report for ever: one that says that it can do with less (RFC 7240)
	// gets no body and no headers that are for people.
	if nothing(orders) && r.Header.Get("Prefer") == "return=minimal" {
		h := w.Header()
		clear(h)
		h["Date"] = nil
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	action, err := actionOut(orders, c.host.ID, d.url(r))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, action)
	return nil
}

// nothing says that there are no orders, and that the host is to go on.
func nothing(o app.Orders) bool {
	return o.Mode == app.Continue && !o.Full && len(o.Launch)+len(o.Stop)+len(o.Start)+len(o.Pull) == 0
}

// status is the last report of a host.
func (d *Dialect) status(w http.ResponseWriter, r *http.Request, _ caller) error {
	h, err := d.cfg.Engine.Host(api.Param(r, "hostid"))
	if err != nil {
		return err
	}
	if h.Report.At.IsZero() {
		return errs.E(errs.NotFound, "host %s has not reported yet", h.ID)
	}
	api.JSON(w, http.StatusOK, statusOut(h.Host))
	return nil
}

// detail are the facts of a host.
func (d *Dialect) detail(w http.ResponseWriter, r *http.Request, _ caller) error {
	h, err := d.cfg.Engine.Host(api.Param(r, "hostid"))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, detailOut(h))
	return nil
}

// hostLaunch is the launch of a host itself, which here is its registration,
// and, ours, the orders that it has not carried out yet.
type hostLaunch struct {
	HostID             string             `json:"hostID"`
	LaunchID           string             `json:"launchID"`
	LaunchAction       string             `json:"launchAction"`
	LaunchStatus       launchStatus       `json:"launchStatus"`
	LaunchSuccessful   bool               `json:"launchSuccessful"`
	ServerTypeID       string             `json:"serverTypeID"`
	CreatedDateTime    string             `json:"createdDateTime"`
	ModifiedDateTime   string             `json:"modifiedDateTime"`
	CompletedTimestamp int64              `json:"completedTimestamp"`
	Orders             hostapi.HostAction `json:"orders"`
}

// outstanding are the orders that a host has not carried out yet.
func (d *Dialect) outstanding(w http.ResponseWriter, r *http.Request, _ caller) error {
	h, err := d.cfg.Engine.Host(api.Param(r, "hostid"))
	if err != nil {
		return err
	}
	orders, err := d.cfg.Engine.Orders(h.ID)
	if err != nil {
		return err
	}
	action, err := actionOut(orders, h.ID, d.url(r))
	if err != nil {
		return err
	}
	l := hostLaunch{
		HostID: h.ID, LaunchID: h.ID, LaunchAction: "launch", LaunchStatus: launchComplete, LaunchSuccessful: true,
		ServerTypeID: h.Facts.ServerTypeID, CreatedDateTime: stamp(h.Registered), ModifiedDateTime: stamp(h.Changed),
		CompletedTimestamp: unix(h.Registered), Orders: action,
	}
	if h.Mode == app.Terminate {
		l.LaunchStatus = launchGoing
	}
	api.JSON(w, http.StatusOK, result[hostLaunch]{Success: true, Result: l})
	return nil
}
