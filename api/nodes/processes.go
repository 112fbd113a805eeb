package nodes

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
)

func (d *Dialect) listProcesses(w http.ResponseWriter, r *http.Request) error {
	ps, err := fact(r, d.node.Processes)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(ps, processOut))
	return nil
}

func (d *Dialect) getProcess(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	id, err := pid(r)
	if err != nil {
		return err
	}
	p, err := d.node.Process(r.Context(), name, id)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, processOut(p))
	return nil
}

func (d *Dialect) signalProcess(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	id, err := pid(r)
	if err != nil {
		return err
	}
	sig, err := signalIn(w, r)
	if err != nil {
		return err
	}
	if err := d.node.SignalProcess(r.Context(), name, id, sig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) killProcess(w http.ResponseWriter, r *http.Request) error {
	id, err := pid(r)
	if err != nil {
		return err
	}
	name, err := containerName(r)
	if err == nil {
		err = d.node.KillProcess(r.Context(), name, id)
	}
	if err := absentIsFine(err); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
