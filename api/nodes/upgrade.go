package nodes

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/upgrade"
)

// Upgrades replace the node's programs; *upgrade.Manager does it.
type Upgrades interface {
	Status() (upgrade.Status, error)
	Receive(ctx context.Context, r io.Reader, window time.Duration) error
	Restart() // after a Receive, when that has been answered
	Begin(ctx context.Context, url string, window time.Duration) error
	Cancel() error
}

// noUpgrades is a node that takes none.
type noUpgrades struct{}

var errNoUpgrades = errs.E(errs.NotFound, "this node takes no upgrades")

func (noUpgrades) Status() (upgrade.Status, error)                         { return upgrade.Status{}, errNoUpgrades }
func (noUpgrades) Receive(context.Context, io.Reader, time.Duration) error { return errNoUpgrades }
func (noUpgrades) Begin(context.Context, string, time.Duration) error      { return errNoUpgrades }
func (noUpgrades) Restart()                                                {}
func (noUpgrades) Cancel() error                                           { return errNoUpgrades }

// upgradeFrom is an upgrade that the node gets by itself.
type upgradeFrom struct {
	URL    string `json:"url"`
	Window string `json:"window"`
}

func (d *Dialect) upgrading(w http.ResponseWriter, _ *http.Request) error {
	return d.upgradeState(w, http.StatusOK)
}

func (d *Dialect) upgradeState(w http.ResponseWriter, status int) error {
	s, err := d.upgrades.Status()
	if err != nil {
		return err
	}
	api.JSON(w, status, s)
	return nil
}

// upgrade takes a bundle, or in JSON where to get it.
func (d *Dialect) upgrade(w http.ResponseWriter, r *http.Request) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && typ == "application/json" {
		req, err := api.Decode[upgradeFrom](w, r)
		if err != nil {
			return err
		}
		window, err := readWindow(req.Window)
		if err != nil {
			return err
		}
		if err := d.upgrades.Begin(r.Context(), req.URL, window); err != nil {
			return err
		}
		return d.upgradeState(w, http.StatusAccepted)
	}
	window, err := readWindow(r.URL.Query().Get("window"))
	if err != nil {
		return err
	}
	if err := d.upgrades.Receive(r.Context(), http.MaxBytesReader(w, r.Body, upgrade.MaxBundle), window); err != nil {
		return err
	}
	defer d.upgrades.Restart()
	s, err := d.upgrades.Status()
	if err != nil {
		return err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// Whole and on its way before the daemon ends, and with it the tunnel.
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusAccepted)
	if _, err := w.Write(text); err == nil {
		_ = http.NewResponseController(w).Flush() // who has gone needs no answer
	}
	return nil
}

func readWindow(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	window, err := time.ParseDuration(s)
	if err != nil || window == 0 {
		return 0, errs.E(errs.Invalid, "window %q is no time like 5m", s)
	}
	return window, nil
}

func (d *Dialect) cancelUpgrade(w http.ResponseWriter, _ *http.Request) error {
	if err := d.upgrades.Cancel(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
