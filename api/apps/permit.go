package apps

import (
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// beside are the apps that what a caller makes is held against.
func (d *Dialect) beside(caller auth.Caller) []app.View {
	if !caller.Limits.Any() {
		return nil
	}
	return d.engine.Apps()
}

// permit says whether a caller who is limited to some names may have such an app:
// it has to be one of them, and its replicas must not be a way to others; nor must
// requests come to it that are for others of all apps there are.
func permit(caller auth.Caller, s app.Spec, all []app.View) error {
	if !caller.Limits.Any() {
		return nil
	}
	if !caller.Limits.App(s.Name) {
		return errs.E(errs.Forbidden, "%s is limited to some names, and app %q is none of them", caller.Name, s.Name)
	}
	if what := reach(s).Beyond(); what != "" {
		return errs.E(errs.Forbidden, "%s is limited to some apps, and %s reaches others", caller.Name, what)
	}
	for i := range all {
		other := all[i].App.Spec()
		if caller.Limits.App(other.Name) {
			continue
		}
		for _, r := range s.Rules() {
			if slices.ContainsFunc(other.Rules(), func(theirs app.Rule) bool { return covers(theirs.Host, r.Host) }) {
				return errs.E(errs.Forbidden, "%s is limited to some apps, and at host %q another one answers", caller.Name, r.Host)
			}
		}
	}
	return nil
}

// covers says whether requests for a host come to who has another, if no more
// specific rule says otherwise. That of all hosts is anybody's to take from.
func covers(theirs, host string) bool {
	theirs, host = strings.ToLower(theirs), strings.ToLower(host)
	suffix, wild := strings.CutPrefix(theirs, "*")
	return theirs != "" && (theirs == host || wild && strings.HasSuffix(host, suffix))
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
