package nodes

import (
	"context"
	"slices"

	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
)

// permit says whether a caller who is limited to some names may make a container:
// it has to be one of them, and must not be a way to the others.
func (d *Dialect) permit(ctx context.Context, s node.Spec) error {
	caller := auth.Of(ctx)
	if !caller.Limits.Any() {
		return nil
	}
	if !caller.Limits.Container(d.id, s.Name) {
		return errs.E(errs.Forbidden, "%s is limited to some names, and %q is none of them", caller.Name, s.Name)
	}
	if what := reach(s).Beyond(); what != "" && !caller.Limits.Node(d.id) {
		return errs.E(errs.Forbidden, "%s is limited to some containers, and %s reaches others", caller.Name, what)
	}
	return nil
}

// reach is what of a container gets at the machine or at other containers.
func reach(s node.Spec) auth.Reach {
	r := auth.Reach{
		Name: s.Name, Privileged: s.Run.Privileged, Unconfined: s.Run.Unconfined, HostNetworking: s.HostNetworking,
		Capabilities: s.Run.CapAdd, Devices: slices.Clone(s.CDI), Filesystems: s.Filesystems, Image: s.Image, Storage: s.Storage,
		NICs: nicTypes(s.NICs), Labels: s.Labels,
	}
	for _, d := range s.Run.Devices {
		r.Devices = append(r.Devices, d.Path)
	}
	for _, m := range s.Run.Mounts {
		switch m.Type {
		case container.Bind:
			r.Binds = append(r.Binds, m.Source)
		case container.Volume:
			r.Volumes = append(r.Volumes, m.Source)
		case container.Tmpfs:
		}
	}
	return r
}

func nicTypes(nics []netcfg.NIC) []string {
	types := make([]string, len(nics))
	for i, n := range nics {
		types[i] = string(n.Type)
	}
	return types
}
