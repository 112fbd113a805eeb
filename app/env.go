package app

import (
	"fmt"
	"strconv"
)

// AddressVar stands, in the value of an environment variable of a launch order,
// for the address that the host gives the container.
const AddressVar = "$(buoy.address)"

// env are the variables of a replica that are known only now.
func (e *Engine) env(r *Replica, a *App, spec *Spec) ([]string, error) {
	var out []string
	for _, v := range spec.Env {
		value := v.Value
		switch {
		case v.Secret != "":
			secret, err := e.cfg.Secret(v.Secret, v.Key)
			if err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", v.Name, err)
			}
			value = secret
		case v.Field != "":
			value = e.field(v.Field, r, a, spec)
		}
		out = append(out, v.Name+"="+value)
	}
	return out, nil
}

func (e *Engine) field(name string, r *Replica, a *App, spec *Spec) string {
	switch name {
	case "instance.id":
		return r.ID
	case "instance.name":
		return r.Name()
	case "instance.index":
		return strconv.Itoa(r.Index)
	case "instance.ip":
		if spec.Container.HostNetworking && e.hosts[r.Host] != nil {
			return e.hosts[r.Host].Addr
		}
		return AddressVar
	case "instance.port":
		if len(spec.Ports) > 0 {
			return strconv.Itoa(int(spec.Ports[0].Container))
		}
	case "app.name":
		return a.Name
	case "app.replicas":
		return strconv.Itoa(a.Replicas)
	case "app.revision":
		return strconv.Itoa(r.Revision)
	case "host.id":
		return r.Host
	case "host.name":
		if h := e.hosts[r.Host]; h != nil {
			return h.Name
		}
	}
	return ""
}
