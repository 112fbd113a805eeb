package apps

import (
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// permit says whether a caller who is limited to some names may have such an app:
// it has to be one of them, and its replicas must not be a way to others.
func permit(caller auth.Caller, s app.Spec) error {
	if !caller.Limits.Any() {
		return nil
	}
	if !caller.Limits.App(s.Name) {
		return errs.E(errs.Forbidden, "%s is limited to some names, and app %q is none of them", caller.Name, s.Name)
	}
	if what := reach(s).Beyond(); what != "" {
		return errs.E(errs.Forbidden, "%s is limited to some apps, and %s reaches others", caller.Name, what)
	}
	return nil
}

// reach is what of an app gets at the hosts or at what else runs there.
func reach(s app.Spec) auth.Reach {
	c := s.Container
	r := auth.Reach{
		Name: s.Name, Privileged: c.Privileged, Unconfined: c.Unconfined, HostNetworking: c.HostNetworking,
		Capabilities: c.CapAdd, Filesystems: c.Filesystems, Image: c.Flist, Storage: c.Storage, Labels: c.Labels,
	}
	for _, d := range c.Devices {
		r.Devices = append(r.Devices, d.Path)
	}
	for _, n := range c.NICs {
		r.NICs = append(r.NICs, n.Type)
	}
	for _, e := range s.Env {
		if e.Secret != "" {
			r.Secrets = append(r.Secrets, e.Secret)
		}
	}
	for _, f := range s.Secrets {
		r.Secrets = append(r.Secrets, f.Secret)
	}
	for _, m := range c.Mounts {
		switch m.Type {
		case "bind":
			r.Binds = append(r.Binds, m.Source)
		case "volume":
			r.Volumes = append(r.Volumes, m.Source)
		}
	}
	return r
}
