package services

import (
	"slices"
	"strconv"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	"github.com/buoy-edge/buoy/internal/errs"
)

// portsOf reads ports. What old says besides of a port that stays is kept.
func portsOf(texts []text, old []app.Port) ([]app.Port, error) {
	var ports []app.Port
	for i, t := range texts {
		p, ok := manifest.ParsePort(string(t))
		if !ok {
			return nil, errs.E(errs.Invalid, "ports[%d] is %q; it must be the port of the container, like 8080, "+
				"with that of the host before it, like 80:8080, if that may not be any, and /udp behind it if it is one of UDP", i, t)
		}
		if p.Proto == "" {
			p.Proto = usual(ports)
		}
		at := slices.IndexFunc(old, func(o app.Port) bool { return o.Container == p.Container && o.Proto == p.Proto })
		if at >= 0 {
			p.Name, p.Listen, p.SendProxy = old[at].Name, old[at].Listen, old[at].SendProxy
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// usual is what a port speaks that does not say it: the first one HTTP, where
// the balancer then finds the service by its name.
func usual(before []app.Port) string {
	if slices.ContainsFunc(before, func(p app.Port) bool { return p.Proto != "udp" }) {
		return "tcp"
	}
	return "http"
}

// portsOut writes ports as portsOf reads them.
func portsOut(ports []app.Port) []string {
	var texts []string
	for i, p := range ports {
		text := strconv.Itoa(int(p.Container))
		if p.Host != 0 {
			text = strconv.Itoa(int(p.Host)) + ":" + text
		}
		if p.Proto != usual(ports[:i]) {
			text += "/" + p.Proto
		}
		texts = append(texts, text)
	}
	return texts
}

// fixed says that a port of the host is asked for, of which there is one.
func fixed(ports []app.Port) bool {
	return slices.ContainsFunc(ports, func(p app.Port) bool { return p.Host != 0 })
}
