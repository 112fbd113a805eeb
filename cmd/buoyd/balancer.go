package main

import (
	"net/netip"
	"slices"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/proxy"
)

// balancer is the proxy as the app engine sees it.
type balancer struct {
	proxy  *proxy.Proxy
	listen netip.Addr       // of streams
	own    []netip.AddrPort // where this daemon listens itself: no replica's
}

// Update implements app.Balancer.
func (b *balancer) Update(changed []app.Route) error {
	var apps []proxy.App
	var gone []string
	for _, r := range changed {
		if r.Spec == nil {
			gone = append(gone, r.App)
			continue
		}
		apps = append(apps, b.route(r))
	}
	return b.proxy.Update(apps, gone...)
}

// Check implements app.Balancer.
func (b *balancer) Check(name string, spec *app.Spec) error {
	return b.proxy.Check(b.route(app.Route{App: name, Spec: spec}))
}

// route is an app as the proxy takes it: requests go to its first HTTP port.
func (b *balancer) route(r app.Route) proxy.App {
	a := proxy.App{Name: r.App}
	for _, p := range r.Spec.Ports {
		switch p.Proto {
		case "http", "h2c":
			if a.Port == 0 {
				a.Port, a.H2C = p.Container, p.Proto == "h2c"
			}
		}
		if p.Listen != 0 {
			proto := "tcp"
			if p.Proto == "udp" {
				proto = "udp"
			}
			a.Streams = append(a.Streams, proxy.Stream{
				Proto: proto, Listen: netip.AddrPortFrom(b.listen, p.Listen), Port: p.Container, SendProxy: p.SendProxy,
			})
		}
	}
	for _, rule := range r.Spec.Rules() {
		a.Rules = append(a.Rules, proxy.Rule{Host: rule.Host, Path: rule.Path})
	}
	switch r.Spec.Expose.Balance {
	case "leastconn":
		a.Balance = proxy.LeastConnections
	case "sticky":
		a.Balance = proxy.Sticky
	}
	for _, be := range r.Backends {
		// Else a host that comes by loopback could have the balancer ask our API.
		if slices.ContainsFunc(b.own, func(own netip.AddrPort) bool { return hasPort(be.Ports, own) }) {
			continue
		}
		a.Backends = append(a.Backends, proxy.Backend{ID: be.ID, Ports: be.Ports, Draining: be.Draining})
	}
	return a
}

func hasPort(ports map[uint16]netip.AddrPort, at netip.AddrPort) bool {
	for _, p := range ports {
		if p == at || p.Port() == at.Port() && p.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// Traffic implements app.Balancer.
func (b *balancer) Traffic() map[string]app.Traffic {
	out := map[string]app.Traffic{}
	for name, s := range b.proxy.Stats() {
		t := app.Traffic{
			Requests: s.Requests, Errors: s.Errors, Active: s.Active, Latency: latencies{s.Latency},
			Answers: s.Answers, Retries: s.Retries, Ejections: s.Ejections, Replicas: map[string]app.ReplicaTraffic{},
		}
		for id, be := range s.Backends {
			t.Replicas[id] = app.ReplicaTraffic{
				Requests: be.Requests, Errors: be.Errors, Active: be.Active, Latency: latencies{be.Latency}, Ejected: be.Ejected,
			}
		}
		out[name] = t
	}
	return out
}

// latencies are the proxy's histogram as the engine sees it.
type latencies struct{ proxy.Histogram }

// Since implements app.Latencies.
func (l latencies) Since(older app.Latencies) app.Latencies {
	if o, ok := older.(latencies); ok {
		return latencies{l.Sub(o.Histogram)}
	}
	return l
}
