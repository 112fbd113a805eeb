package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Hash is what is kept of a token.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// RegisterHost takes a host in under a token. One that is known keeps what was
// decided about it; its former token is void. A host that was terminated is a
// new one. Without an id it gets one. Of h.Report only Boot counts; Conflict: it
// is an earlier one.
func (e *Engine) RegisterHost(ctx context.Context, h Host, token string) (Host, error) {
	if h.ID == "" {
		h.ID = strings.ToLower(rand.Text())
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	now := e.cfg.Now().UTC()
	e.mu.RLock()
	old := e.hosts[h.ID]
	err := e.past(h.ID, h.Report.Boot)
	e.mu.RUnlock()
	if err != nil {
		return Host{}, err
	}
	h.Report = Report{}
	h.TokenHash, h.Mode, h.Registered, h.Changed = Hash(token), Continue, now, now
	message := "Host registered"
	if old != nil && old.Terminated.IsZero() {
		message = "Host registered again"
		h.Mode, h.Reason, h.Detail, h.Registered = old.Mode, old.Reason, old.Detail, old.Registered
		if reflect.DeepEqual(h.Facts, old.Facts) {
			h.Changed = old.Changed
		}
	}
	h.Seen = e.cfg.Now()
	ev := Event{Time: now, Type: OfHost, Host: h.ID, Message: message, Details: map[string]any{"name": h.Name, "address": h.Addr}}
	if err := e.commit(ctx, Change{Hosts: []Host{h}, Events: []Event{ev}}); err != nil {
		return Host{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.liveness[h.ID] = Alive
	e.cluster.Set(e.siteOf(h.ID))
	for r := range e.onHost[h.ID] { // from before it was forgotten
		e.reckon(e.replicas[r])
	}
	e.markAll(h.ID)
	return *e.hosts[h.ID], nil
}

// markAll has the loop, and whoever waits, look at whatever a host matters to.
// The caller holds mu.
func (e *Engine) markAll(host string) {
	for id := range e.onHost[host] {
		e.mark(e.replicas[id].App)
	}
	for name, rec := range e.apps {
		if rec.missing > 0 || rec.app.Started && rec.app.Spec().Kind == Daemon {
			e.mark(name)
		}
	}
	e.kick()
	e.announce()
}

// siteOf is a host for placement. The caller holds mu.
func (e *Engine) siteOf(id string) Node {
	h := e.hosts[id]
	attr := map[string]string{"id": h.ID, "name": h.Name, "arch": h.Facts.Arch, "os": h.Facts.OS}
	for k, v := range h.Labels {
		attr["label."+k] = v
	}
	if len(h.Facts.GPUs) > 0 {
		attr["gpu.model"] = h.Facts.GPUs[0].Model
	}
	n := Node{ID: id, Name: h.Name, Attr: attr, Open: true, Leaving: h.Mode == Drain || h.Mode == Terminate, Total: h.forApps()}
	switch {
	case h.Mode != Continue:
		n.Open, n.Why = false, "its mode is "+string(h.Mode)
		if h.Detail != "" {
			n.Why += ": " + h.Detail
		}
	case e.liveness[id] != Alive:
		n.Open, n.Why = false, fmt.Sprintf("it has not reported for %s", e.cfg.Now().Sub(h.Seen).Round(time.Second))
	}
	return n
}

// forApps is what apps may have of the host: what others may use is not theirs.
func (h *Host) forApps() Resources {
	o := h.Report.Others
	return Resources{MilliCPU: h.Facts.MilliCPU - o.MilliCPU, Memory: h.Facts.Memory - o.Memory, GPUs: len(h.Facts.GPUs) - o.GPUs}
}

// HostByToken is the host with that token.
func (e *Engine) HostByToken(token string) (Host, bool) {
	sum := Hash(token)
	e.mu.RLock()
	defer e.mu.RUnlock()
	if h := e.hosts[e.tokens[sum]]; h != nil {
		return *h, true
	}
	return Host{}, false
}

// Host is one host; NotFound.
func (e *Engine) Host(id string) (HostView, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	h := e.hosts[id]
	if h == nil {
		return HostView{}, noHost(id)
	}
	return e.hostView(h), nil
}

func noHost(id string) error { return errs.E(errs.NotFound, "there is no host %q", id) }

func (e *Engine) hostView(h *Host) HostView {
	v := HostView{Host: *h, Liveness: e.liveness[h.ID], Free: h.forApps()}
	for id := range e.onHost[h.ID] {
		r := e.replicas[id]
		if r.Phase != Gone && r.Phase != Ended && r.Phase != Failed {
			v.Replicas++
		}
		if rev := e.revisionOf(r); rev != nil && r.takes(&rev.Spec) {
			limits := rev.Spec.Container.Limits
			v.Free.MilliCPU -= limits.MilliCPU
			v.Free.Memory -= limits.Memory
			v.Free.GPUs -= rev.Spec.GPUs
		}
	}
	return v
}

// Hosts are all hosts, by id.
func (e *Engine) Hosts() []HostView {
	e.mu.RLock()
	defer e.mu.RUnlock()
	out := make([]HostView, 0, len(e.hosts))
	for _, id := range slices.Sorted(maps.Keys(e.hosts)) {
		out = append(out, e.hostView(e.hosts[id]))
	}
	return out
}

// SetHostMode tells a host what to do, with its next report. Terminate is final:
// the host stops what it runs and registers anew if it comes back.
func (e *Engine) SetHostMode(ctx context.Context, id string, m HostMode, reason, detail string) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	e.mu.RLock()
	old := e.hosts[id]
	e.mu.RUnlock()
	if old == nil {
		return noHost(id)
	}
	if old.Mode == m && old.Reason == reason && old.Detail == detail {
		return nil
	}
	if !old.Terminated.IsZero() {
		return errs.E(errs.Conflict, "host %q is terminated; it has to register again", id)
	}
	h := *old
	now := e.cfg.Now().UTC()
	h.Mode, h.Reason, h.Detail, h.Changed = m, reason, detail, now
	if m == Terminate {
		h.Terminated = now
	}
	ev := Event{Time: now, Type: OfHost, Host: id, Message: "Host mode is " + string(m), Details: map[string]any{"reason": reason, "detail": detail, "previous": old.Mode}}
	if err := e.commit(ctx, Change{Hosts: []Host{h}, Events: []Event{ev}}); err != nil {
		return err
	}
	e.mu.Lock()
	e.cluster.Set(e.siteOf(id))
	e.markAll(id)
	e.mu.Unlock()
	e.cfg.Nudge(id)
	return nil
}

// ForgetHost drops a host that will not come back, with the records of what was
// on it. Conflict: it is in touch.
func (e *Engine) ForgetHost(ctx context.Context, id string) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	e.mu.RLock()
	h := e.hosts[id]
	live := e.liveness[id]
	e.mu.RUnlock()
	if h == nil {
		return noHost(id)
	}
	if live == Alive && h.Terminated.IsZero() {
		return errs.E(errs.Conflict, "host %q reports; terminate it first", id)
	}
	ev := Event{Time: e.cfg.Now().UTC(), Type: OfHost, Host: id, Message: "Host forgotten"}
	return e.commit(ctx, Change{DropHosts: []string{id}, Events: []Event{ev}})
}

// Linked notes that a host's tunnel was opened or closed.
func (e *Engine) Linked(id string, up bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.hosts[id]; old != nil && old.Linked != up {
		h := *old
		h.Linked, h.Closed = up, time.Time{}
		if !up {
			h.Closed = e.cfg.Now()
		}
		e.hosts[id] = &h
		e.announce()
	}
}

// Orders are what a host has to do yet; NotFound.
func (e *Engine) Orders(id string) (Orders, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.hosts[id]
	if h == nil {
		return Orders{}, noHost(id)
	}
	return e.orders(h), nil
}

// Alert makes an event of what a host has noticed, or somebody on no host in particular.
func (e *Engine) Alert(ctx context.Context, host, kind string, value float64) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	if host != "" {
		if _, err := e.Host(host); err != nil {
			return err
		}
	}
	ev := Event{Time: e.cfg.Now().UTC(), Type: Trouble, Host: host, Message: fmt.Sprintf("Alert %s: %g", kind, value), Details: map[string]any{"alert": kind, "value": value}}
	return e.commit(ctx, Change{Events: []Event{ev}})
}
