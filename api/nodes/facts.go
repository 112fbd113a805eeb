package nodes

import (
	"context"
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/node"
)

// pingContainer says whether the container runs.
func (d *Dialect) pingContainer(w http.ResponseWriter, r *http.Request) error {
	c, err := d.container(r)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, c.Status == node.Running)
	return nil
}

// containerCPUs are the node's: a container sees them all, whatever share it has.
func (d *Dialect) containerCPUs(w http.ResponseWriter, r *http.Request) error {
	if _, err := d.container(r); err != nil {
		return err
	}
	return d.cpus(w, r)
}

func (d *Dialect) memory(w http.ResponseWriter, r *http.Request) error {
	m, err := fact(r, d.node.Memory)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, []memInfo{memoryOut(m)})
	return nil
}

func (d *Dialect) nics(w http.ResponseWriter, r *http.Request) error {
	nics, err := fact(r, d.node.NICs)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(nics, nicInfoOut))
	return nil
}

func (d *Dialect) state(w http.ResponseWriter, r *http.Request) error {
	s, err := fact(r, d.node.State)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, stateOut(s))
	return nil
}

func (d *Dialect) os(w http.ResponseWriter, r *http.Request) error {
	os, err := fact(r, d.node.OS)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, osOut(os))
	return nil
}

func fact[T any](r *http.Request, f func(context.Context, string) (T, error)) (T, error) {
	name, err := containerName(r)
	if err != nil {
		var none T
		return none, err
	}
	return f(r.Context(), name)
}
