package nodes

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/node"
)

// settleTime is how long is waited for a node that has just begun.
const settleTime = 2 * time.Second

// settle waits until a node that has just begun has seen which of its containers
// run: until then it has no other word for them than "halted".
func (d *Dialect) settle(ctx context.Context) {
	select {
	case <-d.node.Ready():
		return
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	select {
	case <-d.node.Ready():
	case <-ctx.Done():
	}
}

// listContainers leaves out what the caller is not to see.
func (d *Dialect) listContainers(w http.ResponseWriter, r *http.Request) error {
	d.settle(r.Context())
	limits := auth.Of(r.Context()).Limits
	seen := slices.DeleteFunc(d.node.Containers(), func(c node.Container) bool { return !limits.Container(d.id, c.Spec.Name) })
	api.JSON(w, http.StatusOK, each(seen, func(c node.Container) containerItem { return containerItemOut(c, d.publish) }))
	return nil
}

// createContainer answers 204 as the seed does; the later Zero-OS said 201 or 202.
func (d *Dialect) createContainer(w http.ResponseWriter, r *http.Request) error {
	d.node.Warm(r.Context())
	req, err := api.Decode[createContainer](w, r)
	if err != nil {
		return err
	}
	spec, err := specIn(req, d.publish)
	if err != nil {
		return err
	}
	if err := d.permit(r.Context(), spec); err != nil {
		return err
	}
	if err := d.node.Create(r.Context(), spec); err != nil {
		return err
	}
	w.Header().Set("Location", d.containerURL(spec.Name))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) containerURL(name string) string {
	return "/nodes/" + url.PathEscape(d.id) + "/containers/" + url.PathEscape(name)
}

// container is what the path names.
func (d *Dialect) container(r *http.Request) (node.Container, error) {
	name, err := containerName(r)
	if err != nil {
		return node.Container{}, err
	}
	d.settle(r.Context())
	return d.node.Container(name)
}

func (d *Dialect) getContainer(w http.ResponseWriter, r *http.Request) error {
	c, err := d.container(r)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, containerOut(c, d.publish))
	return nil
}

func (d *Dialect) deleteContainer(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err == nil {
		err = d.node.Delete(r.Context(), name)
	}
	if err := absentIsFine(err); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) startContainer(w http.ResponseWriter, r *http.Request) error {
	d.node.Warm(r.Context())
	return change(w, r, http.StatusCreated, d.node.Start)
}

func (d *Dialect) stopContainer(w http.ResponseWriter, r *http.Request) error {
	return change(w, r, http.StatusNoContent, d.node.Stop)
}

// killContainer sends SIGKILL where the body names no other signal.
func (d *Dialect) killContainer(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	req, err := api.DecodeOptional[containerKill](w, r)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if req.Signal != nil {
		if sig, err = signalOf(*req.Signal); err != nil {
			return err
		}
	}
	if err := d.node.Kill(r.Context(), name, sig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Dialect) restartContainer(w http.ResponseWriter, r *http.Request) error {
	d.node.Warm(r.Context())
	return change(w, r, http.StatusNoContent, d.node.Restart)
}

func change(w http.ResponseWriter, r *http.Request, status int, f func(context.Context, string) error) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	if err := f(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(status)
	return nil
}
