package nodes

import (
	"context"
	"fmt"

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
	if what := reach(s); what != "" && !caller.Limits.Node(d.id) {
		return errs.E(errs.Forbidden, "%s is limited to some containers, and %s reaches others", caller.Name, what)
	}
	return nil
}

// reach is what of a container gets at the machine or at other containers.
func reach(s node.Spec) string {
	switch {
	case s.Run.Privileged:
		return "a privileged container"
	case s.HostNetworking:
		return "the network of the host"
	case s.Run.Unconfined:
		return "a container without seccomp"
	case len(s.Run.CapAdd) > 0:
		return "a container with more capabilities"
	case len(s.Run.Devices) > 0:
		return "a device of the host"
	case len(s.Filesystems) > 0:
		return "a file system of the host"
	case auth.AtHost(s.Image):
		return "a path of the host as image"
	}
	for _, m := range s.Run.Mounts {
		if m.Type == container.Bind || m.Type == container.Volume && !auth.Owns(s.Name, m.Source) {
			return fmt.Sprintf("the %s %q", m.Type, m.Source)
		}
	}
	return reachOfNICs(s.NICs)
}

// reachOfNICs: the node's own bridge and its NAT are for all.
func reachOfNICs(nics []netcfg.NIC) string {
	for _, n := range nics {
		if n.Type != netcfg.NICDefault {
			return "a NIC of type " + string(n.Type)
		}
	}
	return ""
}
