package nodes

import (
	"net/http"
	"slices"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/node/doctor"
)

// listNodes leaves out those of which the caller is to see nothing.
func (d *Dialect) listNodes(w http.ResponseWriter, r *http.Request) error {
	list := []nodeObject{d.self()}
	if d.fleet != nil {
		list = append(list, each(d.fleet.Nodes(), remoteOut)...)
	}
	limits := auth.Of(r.Context()).Limits
	api.JSON(w, http.StatusOK, slices.DeleteFunc(list, func(n nodeObject) bool { return !limits.PartOf(n.ID) }))
	return nil
}

func (d *Dialect) getNode(w http.ResponseWriter, _ *http.Request) error {
	api.JSON(w, http.StatusOK, d.self())
	return nil
}

func (d *Dialect) self() nodeObject {
	o := nodeOut(d.node.Info())
	o.Controller = d.controller
	return o
}

func (d *Dialect) nodeMemory(w http.ResponseWriter, _ *http.Request) error {
	m, err := d.node.Inventory().Memory()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, []memInfo{memoryOut(m)})
	return nil
}

func (d *Dialect) cpus(w http.ResponseWriter, _ *http.Request) error {
	cpus, err := d.node.Inventory().CPUs()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(cpus, cpuOut))
	return nil
}

func (d *Dialect) disks(w http.ResponseWriter, _ *http.Request) error {
	disks, err := d.node.Inventory().Disks()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(disks, diskOut))
	return nil
}

func (d *Dialect) nodeNICs(w http.ResponseWriter, _ *http.Request) error {
	nics, err := d.node.Inventory().NICs()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(nics, nicInfoOut))
	return nil
}

func (d *Dialect) mounts(w http.ResponseWriter, _ *http.Request) error {
	mounts, err := d.node.Inventory().Mounts()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(mounts, mountOut))
	return nil
}

func (d *Dialect) nodeOS(w http.ResponseWriter, _ *http.Request) error {
	os, err := d.node.Inventory().OS()
	if err != nil {
		return err
	}
	gpus, _ := d.node.GPUs()
	api.JSON(w, http.StatusOK, nodeInfo{osOut(os), len(gpus.Whole()), gpus.Driver})
	return nil
}

func (d *Dialect) nodeState(w http.ResponseWriter, _ *http.Request) error {
	s, err := d.node.Inventory().NodeState()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, stateOut(s))
	return nil
}

func (d *Dialect) pingNode(w http.ResponseWriter, _ *http.Request) error {
	api.JSON(w, http.StatusOK, true)
	return nil
}

// reboot takes no body (April 2017) or one (later).
func (d *Dialect) reboot(w http.ResponseWriter, r *http.Request) error {
	req, err := api.DecodeOptional[nodeReboot](w, r)
	if err != nil {
		return err
	}
	if err := d.node.Reboot(r.Context(), req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) nodeProcesses(w http.ResponseWriter, _ *http.Request) error {
	ps, err := d.node.Inventory().Processes()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(ps, processOut))
	return nil
}

func (d *Dialect) nodeProcess(w http.ResponseWriter, r *http.Request) error {
	id, err := pid(r)
	if err != nil {
		return err
	}
	p, err := d.node.Inventory().Process(id)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, processOut(p))
	return nil
}

func (d *Dialect) killNodeProcess(w http.ResponseWriter, r *http.Request) error {
	id, err := pid(r)
	if err != nil {
		return err
	}
	if err := absentIsFine(d.node.KillHostProcess(r.Context(), id)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// nodeJobs are those of all containers: buoy starts none outside of one.
func (d *Dialect) nodeJobs(w http.ResponseWriter, r *http.Request) error {
	jobs, err := d.node.Jobs(r.Context(), "")
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(jobs, jobItemOut))
	return nil
}

func (d *Dialect) killNodeJobs(w http.ResponseWriter, r *http.Request) error {
	if err := d.node.KillJobs(r.Context(), ""); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) nodeJob(w http.ResponseWriter, r *http.Request) error { return d.showJob(w, r, "") }

func (d *Dialect) killNodeJob(w http.ResponseWriter, r *http.Request) error {
	return d.endJob(w, r, "")
}

// examine looks at the machine. A finding is as package doctor has it.
func (d *Dialect) examine(w http.ResponseWriter, r *http.Request) error {
	api.JSON(w, http.StatusOK, each(d.doctor(r.Context()), func(f doctor.Finding) doctor.Finding { return f }))
	return nil
}
