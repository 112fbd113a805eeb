// Package webhooks tells receivers on the network what happens on a node, one
// POST an event, in order, each at least once. Their queue is the log of events:
// a webhook is a place in it.
package webhooks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/egress"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// Store keeps webhooks; *state.DB does it.
type Store interface {
	Webhooks(ctx context.Context) ([]state.Webhook, error)
	PutWebhook(ctx context.Context, w state.Webhook) error
	DeleteWebhook(ctx context.Context, name string) error
}

// Config is what Hooks are made of.
type Config struct {
	Events     *events.Log  // required
	Store      Store        // required
	Keys       *seal.Keys   // required: seal the secrets of those that are in Store
	Configured []Hook       // those of the daemon's configuration
	Rules      egress.Rules // where deliveries may go
	Log        *slog.Logger // default: none
}

// most bounds how many webhooks there are: each has a connection.
const most = 64

// Hooks are the webhooks of a node.
type Hooks struct {
	cfg    Config
	tune   tuning
	client *http.Client

	fresh chan struct{} // a token: there is a worker to be started
	dirty chan struct{} // a token: there is progress to be saved

	disk sync.Mutex // held while webhooks are written; before mu

	mu      sync.Mutex // guards workers, and all of theirs
	workers map[string]*worker
}

// Progress is how far a webhook has got. It lasts.
type Progress struct {
	After     string    `json:"after"` // ID of the last event that is done with
	Delivered uint64    `json:"delivered"`
	Failed    uint64    `json:"failed"` // attempts
	Dead      uint64    `json:"dead"`   // events that were given up
	Missed    uint64    `json:"missed"` // events that the log had dropped before their turn
	Last      time.Time `json:"last,omitzero"`
	Error     string    `json:"error,omitempty"` // of the last attempt that failed
	ErrorTime time.Time `json:"errorTime,omitzero"`
}

// Status is a webhook, and how it is doing.
type Status struct {
	Hook       Hook
	Configured bool // by the daemon's configuration, not through the API
	Created    time.Time
	Progress   Progress
	Behind     uint64    // events since the last one that is done with, those that it does not want among them
	NextTry    time.Time // zero: no attempt has failed since the last success
}

// New checks cfg. Nothing happens before Load and Run.
func New(cfg Config) (*Hooks, error) {
	if cfg.Events == nil || cfg.Store == nil || cfg.Keys == nil {
		return nil, errors.New("new webhooks: Events, Store and Keys are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Configured) > most {
		return nil, errs.E(errs.Invalid, "there are %d webhooks; at most %d are possible", len(cfg.Configured), most)
	}
	for i := range cfg.Configured {
		if err := cfg.Configured[i].Validate(cfg.Rules); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(cfg.Configured[:i], func(h Hook) bool { return h.Name == cfg.Configured[i].Name }) {
			return nil, errs.E(errs.Invalid, "webhook %s is there twice", cfg.Configured[i].Name)
		}
	}
	return &Hooks{
		cfg: cfg, tune: defaultTuning(), client: newClient(cfg.Rules), workers: map[string]*worker{},
		fresh: make(chan struct{}, 1), dirty: make(chan struct{}, 1),
	}, nil
}

// Load reads the webhooks that there are. It comes before Run and before
// anything is asked.
func (h *Hooks) Load(ctx context.Context) error {
	rows, err := h.cfg.Store.Webhooks(ctx)
	if err != nil {
		return err
	}
	had := map[string]state.Webhook{}
	for _, row := range rows {
		had[row.Name] = row
		if len(row.Spec) == 0 {
			continue
		}
		var spec Hook
		if err := json.Unmarshal(row.Spec, &spec); err != nil {
			return fmt.Errorf("webhook %s: read its spec: %w", row.Name, err)
		}
		if err := h.add(spec, row, false); err != nil {
			return err
		}
	}
	for _, spec := range h.cfg.Configured {
		row, known := had[spec.Name]
		if !known {
			row = state.Webhook{Name: spec.Name, Created: time.Now()}
		}
		if len(row.Spec) > 0 {
			h.cfg.Log.Warn("the configuration has a webhook of the name of one that was made through the API, which it replaces", "webhook", spec.Name)
		}
		if err := h.add(spec, row, true); err != nil {
			return err
		}
		delete(had, spec.Name)
	}
	for name, row := range had { // of an earlier configuration
		if len(row.Spec) == 0 {
			err = errors.Join(err, h.cfg.Store.DeleteWebhook(ctx, name))
		}
	}
	return err
}

// add takes in a webhook that the store or the configuration has.
func (h *Hooks) add(spec Hook, row state.Webhook, configured bool) error {
	w := &worker{hooks: h, spec: spec, configured: configured, created: row.Created, poke: make(chan struct{}, 1), done: make(chan struct{})}
	w.progress.After = h.cfg.Events.End().String()
	if len(row.Progress) > 0 {
		if err := json.Unmarshal(row.Progress, &w.progress); err != nil {
			return fmt.Errorf("webhook %s: read how far it has got: %w", spec.Name, err)
		}
	}
	if !configured {
		w.open()
	}
	w.unsaved = len(row.Progress) == 0 || configured && len(row.Spec) > 0 || !configured && w.sealed != spec.Secret
	h.workers[spec.Name] = w
	return nil
}

// Run delivers until ctx ends, and writes down how far it has got.
func (h *Hooks) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer h.client.CloseIdleConnections()
	defer func() {
		wg.Wait()
		h.save(context.WithoutCancel(ctx))
	}()
	h.save(ctx)
	var due <-chan time.Time
	for {
		h.start(ctx, &wg)
		select {
		case <-h.fresh:
		case <-h.dirty:
			if due == nil {
				due = time.After(h.tune.save)
			}
		case <-due:
			due = nil
			h.save(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// start starts the workers that have not been.
func (h *Hooks) start(ctx context.Context, wg *sync.WaitGroup) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.workers {
		if w.stop != nil {
			continue
		}
		wctx, stop := context.WithCancel(ctx)
		w.stop = stop
		wg.Go(func() {
			defer close(w.done)
			defer stop()
			w.run(wctx)
		})
	}
}

// save writes down what has become of webhooks since it last did.
func (h *Hooks) save(ctx context.Context) {
	h.disk.Lock()
	defer h.disk.Unlock()
	var rows []state.Webhook
	h.mu.Lock()
	for _, w := range h.workers {
		if w.unsaved {
			w.unsaved = false
			rows = append(rows, w.row())
		}
	}
	h.mu.Unlock()
	for _, row := range rows {
		if err := h.cfg.Store.PutWebhook(ctx, row); err != nil {
			h.cfg.Log.Error("how far a webhook has got is not written down: what was delivered since is delivered again after a restart", "webhook", row.Name, "error", err)
		}
	}
}

// List are all webhooks, by name.
func (h *Hooks) List() []Status {
	end := h.cfg.Events.End()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Status, 0, len(h.workers))
	for _, w := range h.workers {
		all = append(all, w.status(end))
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Hook.Name, b.Hook.Name) })
	return all
}

// Get is one of them.
func (h *Hooks) Get(name string) (Status, error) {
	end := h.cfg.Events.End()
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.workers[name]
	if !ok {
		return Status{}, missing(name)
	}
	return w.status(end), nil
}

func missing(name string) error { return errs.E(errs.NotFound, "there is no webhook %q", name) }

// Create makes a webhook, which is told what happens from now on.
func (h *Hooks) Create(ctx context.Context, spec Hook) error {
	if err := spec.Validate(h.cfg.Rules); err != nil {
		return err
	}
	h.disk.Lock()
	defer h.disk.Unlock()
	h.cfg.Events.Flush() // what was before is not told
	sealed, err := h.cfg.Keys.Seal(sealName(spec.Name), spec.Secret)
	if err != nil {
		return err
	}
	w := &worker{hooks: h, spec: spec, sealed: sealed, created: time.Now(), poke: make(chan struct{}, 1), done: make(chan struct{})}
	w.progress.After = h.cfg.Events.End().String()
	h.mu.Lock()
	_, taken := h.workers[spec.Name]
	full := len(h.workers) >= most
	h.mu.Unlock()
	switch {
	case taken:
		return errs.E(errs.Exists, "webhook %q exists already on this node", spec.Name)
	case full:
		return errs.E(errs.Conflict, "there are %d webhooks, and no more are possible", most)
	}
	if err := h.cfg.Store.PutWebhook(ctx, w.row()); err != nil {
		return err
	}
	h.mu.Lock()
	h.workers[spec.Name] = w
	h.mu.Unlock()
	token(h.fresh)
	h.tell(ctx, events.WebhookCreated, spec.Name)
	return nil
}

// Replace makes a webhook another one, that goes on where it was. Without a
// secret it keeps the one that it had.
func (h *Hooks) Replace(ctx context.Context, spec Hook) error {
	h.disk.Lock()
	defer h.disk.Unlock()
	w, err := h.own(spec.Name, "changed")
	if err != nil {
		return err
	}
	h.mu.Lock()
	before, sealed, locked, row := w.spec, w.sealed, w.locked, w.row()
	h.mu.Unlock()
	if spec.Secret == "" && locked != nil {
		return locked
	}
	if spec.Secret == "" {
		spec.Secret = before.Secret
	} else if sealed, err = h.cfg.Keys.Seal(sealName(spec.Name), spec.Secret); err != nil {
		return err
	}
	if err := spec.Validate(h.cfg.Rules); err != nil {
		return err
	}
	row.Spec = specOf(spec, sealed)
	if err := h.cfg.Store.PutWebhook(ctx, row); err != nil {
		return err
	}
	h.mu.Lock()
	w.spec, w.sealed, w.locked = spec, sealed, nil
	h.mu.Unlock()
	token(w.poke)
	h.tell(ctx, events.WebhookUpdated, spec.Name)
	return nil
}

// own is a webhook that was made through the API.
func (h *Hooks) own(name, done string) (*worker, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.workers[name]
	if !ok {
		return nil, missing(name)
	}
	if w.configured {
		return nil, errs.E(errs.Conflict, "webhook %q is in the configuration of buoyd, and is %s there", name, done)
	}
	return w, nil
}

// Delete removes a webhook. Nothing is delivered to it when Delete has returned.
func (h *Hooks) Delete(ctx context.Context, name string) error {
	h.disk.Lock()
	defer h.disk.Unlock()
	w, err := h.own(name, "removed")
	if err != nil {
		return err
	}
	if err := h.cfg.Store.DeleteWebhook(ctx, name); err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.workers, name)
	stop := w.stop
	h.mu.Unlock()
	if stop != nil {
		stop()
		<-w.done
	}
	h.tell(ctx, events.WebhookDeleted, name)
	return nil
}

func (h *Hooks) tell(ctx context.Context, t events.Type, name string) {
	h.cfg.Events.Emit(ctx, events.Event{Type: t, Subject: "webhooks/" + name})
}

// token puts one into a channel that has room for one.
func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
