package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/probe"
	"github.com/buoy-edge/buoy/node/state"
)

// CheckHealth checks a container now, out of turn. Conflict: it has no check, or
// does not run.
func (n *Node) CheckHealth(ctx context.Context, name string) (probe.State, error) {
	b, err := n.find(name)
	if err != nil {
		return probe.State{}, err
	}
	var check *probe.Check
	var status Status
	var p *probe.Prober
	b.set(func() { check, status, p = b.spec.Health, b.status, b.prober })
	switch {
	case check == nil:
		return probe.State{}, errs.E(errs.Conflict, "container %q was created without a health check", name)
	case p == nil:
		return probe.State{}, errs.E(errs.Conflict, "container %q is %s, not running", name, status)
	}
	s, err := p.Now(ctx)
	if err != nil {
		return s, fmt.Errorf("check container %q: %w", name, err)
	}
	return s, nil
}

// health is what is known of the container's. The caller holds b.mu.
func (b *box) health() *probe.State {
	switch {
	case b.spec.Health == nil:
		return nil
	case b.prober == nil:
		return &probe.State{Status: probe.Unknown}
	}
	return new(b.prober.State())
}

// startChecks has the health of a run, whose program started then, checked until
// its end. The caller holds the box.
func (n *Node) startChecks(ctx context.Context, b *box, started time.Time) {
	n.endChecks(b)
	if b.spec.Health == nil {
		return
	}
	ctx, cancel := context.WithCancel(events.ByItself(context.WithoutCancel(ctx), healthPart)) // not with who started the container
	p := probe.New(probe.Config{
		Check: *b.spec.Health, Started: started,
		Dial:    func(ctx context.Context, port uint16) (net.Conn, error) { return dial(ctx, b, port) },
		Exec:    func(ctx context.Context, args []string) (int, string, error) { return n.execCheck(ctx, b, args) },
		Changed: func(was probe.Health, now probe.State) { n.healthChanged(ctx, b, was, now) },
	})
	b.set(func() { b.prober, b.probing = p, cancel })
	n.background(func(run context.Context) {
		run = events.ByItself(run, healthPart)
		defer context.AfterFunc(run, cancel)()
		p.Run(ctx, func(s probe.State) { n.restartUnhealthy(ctx, run, b, p, s) })
	})
}

// endChecks ends what startChecks began.
func (n *Node) endChecks(b *box) {
	b.set(func() {
		if b.probing != nil {
			b.probing()
			b.prober, b.probing = nil, nil
		}
	})
}

// healthPart is what of the node events name.
const healthPart = "health check"

func (n *Node) healthChanged(ctx context.Context, b *box, was probe.Health, now probe.State) {
	switch {
	case now.Status == probe.Healthy:
		n.tell(ctx, b, events.ContainerHealthy, events.Data{})
	case now.Status == probe.Unhealthy:
		n.tell(ctx, b, events.ContainerUnhealthy, events.Data{Message: now.LastError})
	}
	switch {
	case now.Status == probe.Unhealthy:
		n.cfg.Log.Warn("container is unhealthy", "container", b.name, "failures", now.Failures, "error", now.LastError)
	case was == probe.Unhealthy:
		n.cfg.Log.Info("container is healthy again", "container", b.name)
	}
	n.announce()
}

// restartUnhealthy restarts the run that p checks, unless somebody else is
// ending it. That ends ctx; run is the daemon's.
func (n *Node) restartUnhealthy(ctx, run context.Context, b *box, p *probe.Prober, s probe.State) {
	if !n.hold(ctx, b) {
		return
	}
	defer b.unlock()
	if !get(b, func() bool { return b.prober == p && b.status == Running }) {
		return
	}
	n.cfg.Log.Warn("container is restarted", "container", b.name, "reason", reasonUnhealthy, "error", s.LastError)
	why := "unhealthy: " + s.LastError
	// First, so that a daemon after us does not take its end for its own.
	n.record(run, b, func() { b.rec.Reason, b.rec.Message = reasonUnhealthy, why })
	if err := n.halt(run, b, reasonUnhealthy, why); err != nil {
		n.cfg.Log.Error("container not stopped", "container", b.name, "error", err)
		n.record(run, b, func() { b.rec.Reason, b.rec.Message = "", "" })
		return
	}
	now := time.Now()
	n.record(run, b, func() {
		d := afterUnhealthy(b.spec.Restart, history(b.rec), now)
		if !d.Restart {
			b.rec.Wanted, b.rec.Person = state.Halt, false
			b.rec.Message = why + "; " + d.Reason
			return
		}
		b.rec.Restarts, b.rec.Quick = d.History.Retries, d.History.Quick
		n.startLater(b, d.After)
	})
	n.announce()
}

// afterUnhealthy decides like a restart policy about the end of a run that was
// unhealthy. Its check asks for the restart, so no policy is needed; one that
// counts counts it.
func afterUnhealthy(r container.Restart, h container.History, now time.Time) container.Decision {
	if r.Policy != container.RestartOnFailure {
		r = container.Restart{Policy: container.RestartAlways}
	}
	return r.Next(h, shimapi.Exit{Code: 1, At: now}, now)
}

// dial connects to a container at its address, or at loopback if it has none.
// The node's own bridge it takes like everybody else who sends to a default NIC.
// Other networks the machine may have no way into (macvlan, a NIC lent, none at
// all), so there it connects inside the container's: that always works, and takes
// a thread, which costs as much as the rest of the check.
func dial(ctx context.Context, b *box, port uint16) (net.Conn, error) {
	var spec Spec
	var nics []NICState
	var process shimapi.Process
	b.set(func() { spec, nics, process = b.spec, b.nics(), b.process })
	addr, near := netip.AddrFrom4([4]byte{127, 0, 0, 1}), spec.HostNetworking
	if i := mainNIC(spec.NICs, nics); i >= 0 {
		addr, near = nics[i].Addrs[0].Addr(), spec.NICs[i].Type == netcfg.NICDefault
	}
	d := net.Dialer{KeepAlive: -1}
	to := netip.AddrPortFrom(addr, port).String()
	if near {
		return d.DialContext(ctx, "tcp", to)
	}
	ns, err := container.OpenProc(process, "ns/net")
	if err != nil {
		return nil, errs.E(errs.Conflict, "container %q has just ended: %w", spec.Name, err)
	}
	defer ns.Close()
	var conn net.Conn
	inside := false
	err = netcfg.InNS(fdPath(ns), func() (err error) {
		inside = true
		// It makes the socket on this thread; another one may only interrupt it.
		conn, err = d.DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil && !inside {
		return nil, errs.E(errs.Unavailable, "%w", err)
	}
	return conn, err
}
