package app

import (
	"fmt"
	"strconv"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// AddressVar stands, in the value of an environment variable of a launch order,
// for the address that the host gives the container.
const AddressVar = "$(buoy.address)"

// env are the variables of a replica that are known only now, and its secrets,
// variables or files.
func (e *Engine) env(r *Replica, a *App, spec *Spec) (env []string, secrets []buoy.Secret, err error) {
	for _, v := range spec.Env {
		value := v.Value
		switch {
		case v.Secret != "":
			if value, err = e.cfg.Secret(v.Secret, v.Key); err != nil {
				return nil, nil, fmt.Errorf("environment variable %s: %w", v.Name, err)
			}
			secrets = append(secrets, buoy.Secret{Env: v.Name, Value: value})
			continue
		case v.Field != "":
			value = e.field(v.Field, r, a, spec)
		}
		env = append(env, v.Name+"="+value)
	}
	for _, f := range spec.Secrets {
		value, err := e.cfg.Secret(f.Secret, f.Key)
		if err != nil {
			return nil, nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
		secrets = append(secrets, buoy.Secret{Path: f.Path, Value: value})
	}
	return env, secrets, nil
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
