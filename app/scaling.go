package app

import (
	"context"
	"fmt"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// clamp holds a number of replicas within limits.
func clamp(n int, s Scaling) int { return min(max(n, s.Min), max(s.Max, s.Min)) }

// resize wants another number of replicas. A rollout to none makes no progress,
// and has its time from the first one on.
func (a *App) resize(n int, now time.Time) {
	if a.Replicas == 0 && n > 0 && !a.Rollout.Done {
		a.Rollout.Since = now
	}
	a.Replicas = n
}

// within says whether an app may have so many replicas.
func within(a *App, n int) error {
	s := a.Scaling
	if n < 0 || n > max(s.Max, s.Min) {
		return errs.E(errs.Conflict, "app %q may have %d to %d replicas, not %d: %w", a.Name, s.Min, max(s.Max, s.Min), n, ErrLimits)
	}
	if s.Mode == Auto && n < s.Min {
		return errs.E(errs.Conflict, "app %q is scaled automatically and has at least %s, not %d: %w", a.Name, several(s.Min, "replica"), n, ErrLimits)
	}
	return nil
}

// Scale sets the number of replicas and says what it was. Conflict: ErrLimits;
// ErrScaling while an earlier change is not settled.
func (e *Engine) Scale(ctx context.Context, name string, replicas int, reason string, person bool) (from int, err error) {
	_, err = e.edited(ctx, name, func(a *App) ([]Event, error) {
		from = a.Replicas
		spec := a.Spec()
		if spec.Kind != Service {
			return nil, errs.E(errs.Conflict, "app %q is a %s, whose replicas are not scaled", name, spec.Kind)
		}
		if err := within(a, replicas); err != nil {
			return nil, err
		}
		if a.Replicas == replicas {
			return nil, nil
		}
		if a.Started && !e.settled(a) {
			return nil, errs.E(errs.Conflict, "app %q is on its way to %s: %w", name, several(a.Replicas, "replica"), ErrScaling)
		}
		now := e.cfg.Now().UTC()
		a.Scaled = ScaleEvent{At: now, From: from, To: replicas, Reason: reason, Person: person}
		a.resize(replicas, now)
		a.Updated = now
		return []Event{scaledEvent(name, from, replicas, reason, map[string]any{"previous_replicas": from, "new_replicas": replicas})}, nil
	})
	return from, err
}

func scaledEvent(app string, from, to int, reason string, details map[string]any) Event {
	return Event{Type: Rescale, App: app, Message: fmt.Sprintf("Scaled from %d to %s: %s", from, several(to, "replica"), reason), Details: details}
}

// settled says that the replicas of an app are as many as are wanted, or
// cannot become so: then another number may be the cure, and so it may for those
// that are too busy to be healthy.
func (e *Engine) settled(a *App) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	rec := e.apps[a.Name]
	if rec.missing > 0 || rec.fails.InRow > 0 {
		return true
	}
	n := 0
	for id := range rec.reps {
		r := e.replicas[id]
		if r.Living() && !r.Standby {
			if !r.Ready() && r.Seen.Health != "unhealthy" {
				return false
			}
			n++
		}
	}
	return n == a.Replicas
}

// SetScaling changes the policy and says what it was.
func (e *Engine) SetScaling(ctx context.Context, name string, s Scaling) (old Scaling, err error) {
	_, err = e.edited(ctx, name, func(a *App) ([]Event, error) {
		old = a.Scaling
		spec := *a.Spec()
		spec.Scaling, spec.Replicas = s, 0 // which is of the first start alone
		if err := spec.Validate(); err != nil {
			return nil, err
		}
		if old == s {
			return nil, nil
		}
		a.Scaling, a.Updated = s, e.cfg.Now().UTC()
		a.resize(clamp(a.Replicas, s), a.Updated)
		return []Event{{Type: Configured, App: name, Message: "Scaling policy updated", Details: map[string]any{"min_replicas": s.Min, "max_replicas": s.Max, "mode": s.Mode}}}, nil
	})
	return old, err
}
