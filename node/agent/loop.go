package agent

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/tlspin"
)

// loop reports until ctx ends or the host has left.
func (a *Agent) loop(ctx context.Context) {
	var started time.Time
	periodic, tries := true, 0
	for {
		started = time.Now()
		a.pace.made(started)
		f, again := a.exchange(ctx, periodic)
		if ctx.Err() != nil {
			return
		}
		if a.left(f) {
			a.forget()
			return
		}
		a.say(ctx, f)
		wait := time.Duration((0.9 + 0.1*rand.Float64()) * float64(a.interval))
		switch {
		case f != nil:
			wait = max(backoff(f.kind, tries), f.after)
			tries++
		case again:
			wait, tries = minGap, 0
		default:
			tries = 0
		}
		if periodic = a.rest(ctx, started, wait, f == nil); ctx.Err() != nil {
			return
		}
	}
}

// pace spaces reports: a few may follow one another at once, more only as one
// each minGap.
type pace struct{ next time.Time } // when one more would be due if all kept their distance

// made notes a report.
func (p *pace) made(now time.Time) {
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(minGap)
}

// wait is how long the next one has to.
func (p *pace) wait(now time.Time) time.Duration {
	return max(p.next.Sub(now)-(burst-1)*minGap, 0)
}

// backoff is how long to wait after a number of failures in a row: between 1
// and 30 seconds, and longer where somebody has to do something. Hosts that
// lost their controller together do not come back together.
func backoff(kind trouble, tries int) time.Duration {
	least := min(time.Second<<min(tries, 4), 10*time.Second)
	if kind == refused {
		least = 30 * time.Second
	}
	return least + time.Duration(rand.Int64N(int64(2*least)))
}

// say logs when something else is wrong than before.
func (a *Agent) say(ctx context.Context, f *failure) {
	switch {
	case f == nil && !a.reached:
		a.reached = true
		a.cfg.Reached(ctx, nil)
	case f != nil && f.kind != homemade && (a.reached || a.troubled == ""):
		a.reached = false
		a.cfg.Reached(ctx, f.err)
	}
	switch {
	case f == nil && a.troubled != "":
		a.log.Info("the controller answers again")
		a.troubled = ""
	case f == nil || a.troubled == f.kind:
	default:
		a.troubled = f.kind
		hint := "containers run on; it is tried again"
		if f.kind == refused {
			hint = "this host is not let in: give it a join token that is valid; containers run on, and it is tried again"
		}
		a.log.Warn("no orders from the controller", "trouble", string(f.kind), "error", f.err, "hint", hint)
	}
}

// rest waits for the time of the next report, or for a reason to make one at
// once; periodic says that it was the time. Jobs end meanwhile. Without listen
// only the controller's own poke is a reason.
func (a *Agent) rest(ctx context.Context, last time.Time, wait time.Duration, listen bool) (periodic bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var changed <-chan struct{}
	if listen {
		changed = a.lookout.changed
	}
	var due <-chan time.Time // in a moment, so that more can come together
	var when time.Time       // that is
	poked := false
	soon := func(wait time.Duration) {
		if at := time.Now().Add(wait); due == nil || at.Before(when) {
			due, when = time.After(wait), at
		}
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-a.poked:
			poked = true
			soon(a.pace.wait(time.Now()))
		case o := <-a.outcomes:
			a.settle(ctx, o)
			if listen && o.job != nil { // the controller waits for it
				soon(a.pace.wait(time.Now()))
			}
		case <-changed:
			changed = nil
			soon(max(coalesce, minGap-time.Since(last)))
		case <-due:
			now := time.Now()
			if poked || a.see(ctx, now, false) != nil || a.news(now) || a.leaving {
				return false
			}
			changed, due = a.lookout.changed, nil
		}
	}
}

// see looks at the node's containers.
func (a *Agent) see(ctx context.Context, now time.Time, all bool) error {
	before := a.lookout
	if err := a.lookout.look(ctx, a.cfg.Local, a.cfg.Node, now, all); err != nil {
		return err
	}
	a.missed(before)
	return nil
}

// exchange tells the controller how things are and does what it says; again
// says that it wants to hear more at once.
func (a *Agent) exchange(ctx context.Context, periodic bool) (f *failure, again bool) {
	now := time.Now()
	if err := a.see(ctx, now, periodic); err != nil {
		return fail(homemade, "%w", err), false
	}
	if periodic {
		a.measure(ctx, now)
	}
	a.tidy(ctx)
	if !a.joined || !a.leaving && a.countGPUs().all != a.facts {
		return a.join(ctx, now), false
	}
	s := a.compose(now, false)
	empty := len(s.ContainerStatus) == 0 && (s.Same == 0 || len(a.sent.list) == 0)
	session, _ := a.Session()
	o, f := a.ctl.report(ctx, session, s)
	if f != nil {
		if a.leaving || f.kind != refused && f.kind != unknown || ctx.Err() != nil {
			return f, false
		}
		a.log.Warn("the controller does not know this host any more, which registers again", "error", f.err)
		a.joined = false
		a.setSession(Session{})
		return a.join(ctx, now), false
	}
	a.answered(s, now, o)
	a.told = a.leaving && empty
	a.obey(ctx, o)
	return nil, o.Full && s.Same != 0 || a.idle() && !a.told
}

// join registers this host, with the token that it has, else with the join token.
func (a *Agent) join(ctx context.Context, now time.Time) *failure {
	info, err := a.info(ctx)
	if err != nil {
		return fail(homemade, "read the facts of this host: %w", err)
	}
	s := a.compose(now, true)
	r := hostapi.RegisterRequest{Info: info, Status: &s}
	var answer hostapi.RegisterResponse
	var f *failure
	if a.kept.Token != "" {
		answer, f = a.ctl.register(ctx, a.kept.Token, r)
	}
	if a.kept.Token == "" || f != nil && f.kind == refused {
		token, err := a.cfg.JoinToken()
		token = strings.TrimSpace(token)
		switch {
		case err != nil:
			return fail(refused, "get the join token: %w", err)
		case !validToken(token):
			return fail(refused, "the join token is empty, or has spaces or control characters in it")
		}
		answer, f = a.ctl.register(ctx, token, r)
	}
	if f != nil {
		return f
	}
	next := kept{Controller: a.cfg.Controller, HostID: answer.HostID, Token: answer.HostToken, Pin: a.kept.Pin}
	if token, err := a.cfg.JoinToken(); err == nil {
		if _, pin := tlspin.Cut(strings.TrimSpace(token)); pin != "" {
			next.Pin = pin
		}
	}
	a.know(next)
	if err := a.kept.write(a.cfg.Data, a.cfg.Keys); err != nil {
		a.log.Error("the host's token is not written down: it needs the join token again after a restart", "error", err)
	}
	a.joined, a.facts = true, len(info.GPUs)
	a.setSession(Session{HostID: answer.HostID, Token: answer.HostToken})
	a.interval = intervalOf(answer.ConfigProperties.ReportIntervalSeconds)
	a.speaksOurs = answer.ConfigProperties.ReportIntervalSeconds > 0
	a.log.Info("registered with the controller", "controller", a.cfg.Controller, "host", answer.HostID, "interval", a.interval)
	a.answered(s, now, answer.Status)
	a.obey(ctx, answer.Status)
	return nil
}

// The bounds of the interval between two reports.
const (
	minInterval = 50 * time.Millisecond
	maxInterval = 10 * time.Minute
)

func intervalOf(seconds float64) time.Duration {
	if !(seconds > 0) { // not a number, too
		return defaultInterval
	}
	return max(min(time.Duration(min(seconds, 1e6)*float64(time.Second)), maxInterval), minInterval)
}

// left says that a host that was told to terminate has done so and the
// controller knows it, or does not want to.
func (a *Agent) left(f *failure) bool {
	if !a.idle() {
		return false
	}
	if f != nil {
		return f.kind == refused || f.kind == unknown
	}
	return a.told
}

// idle says that a host that is leaving has nothing left to do.
func (a *Agent) idle() bool { return a.leaving && len(a.lookout.ours) == 0 && len(a.jobs) == 0 }

// forget makes this host one that no controller knows.
func (a *Agent) forget() {
	a.know(kept{})
	a.setSession(Session{})
	if err := a.kept.write(a.cfg.Data, a.cfg.Keys); err != nil {
		a.log.Error("the host's token is not removed", "error", err)
	}
	a.log.Warn("this host has left its controller, which had told it to; the node goes on alone until it is started again")
}
