package nodes

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// maxWait bounds ?wait=; proxies on the way seldom keep a silent request longer.
const maxWait = 300

// maxSignal is the kernel's last one, SIGRTMAX.
const maxSignal = 64

func (d *Dialect) listJobs(w http.ResponseWriter, r *http.Request) error {
	jobs, err := fact(r, d.node.Jobs)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(jobs, jobItemOut))
	return nil
}

// exec starts a command and does not wait for it.
func (d *Dialect) exec(w http.ResponseWriter, r *http.Request) error {
	d.node.Warm(r.Context())
	name, err := containerName(r)
	if err != nil {
		return err
	}
	req, err := api.Decode[coreSystem](w, r)
	if err != nil {
		return err
	}
	cmd, err := commandIn(req)
	if err != nil {
		return err
	}
	id, err := d.node.Exec(r.Context(), name, cmd)
	if err != nil {
		return err
	}
	w.Header().Set("Location", d.containerURL(name)+"/jobs/"+url.PathEscape(id))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (d *Dialect) killJobs(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err == nil {
		err = d.node.KillJobs(r.Context(), name)
	}
	if err := absentIsFine(err); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) getJob(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	return d.showJob(w, r, name)
}

// showJob answers with a job, on request not before it has ended.
func (d *Dialect) showJob(w http.ResponseWriter, r *http.Request, name string) error {
	wait, err := waitTime(r.URL.Query())
	if err != nil {
		return err
	}
	id := api.Param(r, "jobid")
	if wait > 0 {
		stream, cancel := api.StreamContext(r)
		defer cancel()
		ctx, cancelWait := context.WithTimeout(stream, wait)
		defer cancelWait()
		if _, err := d.node.WaitJob(ctx, name, id); err != nil {
			return err
		}
	}
	job, out, err := d.node.Job(r.Context(), name, id)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, jobOut(job, out))
	return nil
}

// waitTime reads ?wait=SECONDS.
func waitTime(q url.Values) (time.Duration, error) {
	text := q.Get("wait")
	if text == "" {
		return 0, nil
	}
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(s >= 0 && s <= maxWait) { // NaN is neither
		return 0, errs.E(errs.Invalid, "parameter wait is %q; it must be seconds, at most %d", text, maxWait)
	}
	return time.Duration(s * float64(time.Second)), nil
}

func (d *Dialect) signalJob(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	sig, err := signalIn(w, r)
	if err != nil {
		return err
	}
	if err := d.node.SignalJob(r.Context(), name, api.Param(r, "jobid"), sig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) killJob(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err := absentIsFine(err); err != nil {
		return err
	}
	if name == "" { // which means all containers below
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return d.endJob(w, r, name)
}

func (d *Dialect) endJob(w http.ResponseWriter, r *http.Request, name string) error {
	err := d.node.SignalJob(r.Context(), name, api.Param(r, "jobid"), syscall.SIGKILL)
	if err := absentIsFine(err); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// signalIn reads a signal. Zero-OS documents 15 as default and refuses none; so do we.
func signalIn(w http.ResponseWriter, r *http.Request) (syscall.Signal, error) {
	req, err := api.Decode[processSignal](w, r)
	if err != nil {
		return 0, err
	}
	return signalOf(req.Signal)
}

func signalOf(n int) (syscall.Signal, error) {
	if n < 1 || n > maxSignal {
		return 0, errs.E(errs.Invalid, "field \"signal\" must be 1 to %d, not %d", maxSignal, n)
	}
	return syscall.Signal(n), nil
}
