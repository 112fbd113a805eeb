package events

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/webhooks"
)

// Webhooks are the receivers of a node's events; *webhooks.Hooks does it.
type Webhooks interface {
	List() []webhooks.Status // by name
	Get(name string) (webhooks.Status, error)
	Create(ctx context.Context, h webhooks.Hook) error
	Replace(ctx context.Context, h webhooks.Hook) error
	Delete(ctx context.Context, name string) error
}

// webhookBody is what a client wants of a webhook. EventTypes is Zero-OS's word.
type webhookBody struct {
	Name       string   `json:"name"`
	URL        string   `json:"url"`
	EventTypes []string `json:"eventtypes"`
	Containers []string `json:"containers"`
	Images     []string `json:"images"`
	Secret     string   `json:"secret"`
}

// webhookObject is a webhook.
type webhookObject struct {
	Name       string        `json:"name"`
	URL        string        `json:"url"`
	EventTypes []string      `json:"eventtypes"`
	Containers []string      `json:"containers"`
	Images     []string      `json:"images"`
	Secret     string        `json:"secret,omitempty"` // in the answer to a create alone, if it was made for it
	Configured bool          `json:"configured"`
	Created    time.Time     `json:"created"`
	Status     webhookStatus `json:"status"`
}

// webhookStatus is how a webhook is doing.
type webhookStatus struct {
	State        string     `json:"state"` // "idle", "delivering" or "retrying"
	Delivered    uint64     `json:"delivered"`
	Failed       uint64     `json:"failed"`
	Dead         uint64     `json:"dead"`
	Missed       uint64     `json:"missed"`
	Behind       uint64     `json:"behind"`
	LastDelivery *time.Time `json:"lastDelivery,omitempty"`
	LastError    string     `json:"lastError,omitempty"`
	LastFailure  *time.Time `json:"lastFailure,omitempty"`
	NextTry      *time.Time `json:"nextTry,omitempty"`
}

func webhookOut(s webhooks.Status) webhookObject {
	p := s.Progress
	o := webhookObject{
		Name: s.Hook.Name, URL: s.Hook.URL, EventTypes: listOut(s.Hook.Types), Containers: listOut(s.Hook.Containers), Images: listOut(s.Hook.Images),
		Configured: s.Configured, Created: s.Created.UTC(),
		Status: webhookStatus{
			State: "idle", Delivered: p.Delivered, Failed: p.Failed, Dead: p.Dead, Missed: p.Missed, Behind: s.Behind,
			LastDelivery: timeOut(p.Last), LastError: p.Error, LastFailure: timeOut(p.ErrorTime), NextTry: timeOut(s.NextTry),
		},
	}
	switch {
	case !s.NextTry.IsZero():
		o.Status.State = "retrying"
	case s.Behind > 0:
		o.Status.State = "delivering"
	}
	return o
}

func listOut(all []string) []string {
	if all == nil {
		return []string{}
	}
	return all
}

func timeOut(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (d *Dialect) webhookRoutes(r chi.Router) {
	on := func(method, path string, h handler) { r.Method(method, path, d.do(h)) }
	on("GET", "/webhooks", d.listWebhooks)
	on("POST", "/webhooks", d.createWebhook)
	on("GET", "/webhooks/{webhook}", d.getWebhook)
	on("PUT", "/webhooks/{webhook}", d.putWebhook)
	on("DELETE", "/webhooks/{webhook}", d.deleteWebhook)
}

func (d *Dialect) listWebhooks(w http.ResponseWriter, _ *http.Request) error {
	all := []webhookObject{}
	for _, s := range d.cfg.Webhooks.List() {
		all = append(all, webhookOut(s))
	}
	api.JSON(w, http.StatusOK, all)
	return nil
}

func (d *Dialect) getWebhook(w http.ResponseWriter, r *http.Request) error {
	s, err := d.cfg.Webhooks.Get(api.Param(r, "webhook"))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, webhookOut(s))
	return nil
}

// createWebhook makes the secret if none is given, and tells it this once.
func (d *Dialect) createWebhook(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[webhookBody](w, r)
	if err != nil {
		return err
	}
	hook := hookOf(b)
	hook.Secret = cmp.Or(b.Secret, webhooks.NewSecret())
	if err := d.cfg.Webhooks.Create(who(r), hook); err != nil {
		return err
	}
	s, err := d.cfg.Webhooks.Get(hook.Name)
	if err != nil {
		return err
	}
	o := webhookOut(s)
	if b.Secret == "" {
		o.Secret = hook.Secret
	}
	w.Header().Set("Location", "/webhooks/"+url.PathEscape(hook.Name))
	api.JSON(w, http.StatusCreated, o)
	return nil
}

// putWebhook makes a webhook what the body says; a secret that is left out stays.
func (d *Dialect) putWebhook(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[webhookBody](w, r)
	if err != nil {
		return err
	}
	name := api.Param(r, "webhook")
	if b.Name != "" && b.Name != name {
		return errs.E(errs.Invalid, "field \"name\" is %q, and the path says %q; a webhook keeps its name", b.Name, name)
	}
	b.Name = name
	if err := d.cfg.Webhooks.Replace(who(r), hookOf(b)); err != nil {
		return err
	}
	return d.getWebhook(w, r)
}

func (d *Dialect) deleteWebhook(w http.ResponseWriter, r *http.Request) error {
	err := d.cfg.Webhooks.Delete(who(r), api.Param(r, "webhook"))
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func hookOf(b webhookBody) webhooks.Hook {
	drop := func(all []string) []string { return slices.DeleteFunc(all, func(s string) bool { return s == "" }) }
	return webhooks.Hook{
		Name: b.Name, URL: b.URL, Types: drop(b.EventTypes), Containers: drop(b.Containers), Images: Images(b.Images), Secret: b.Secret,
	}
}

// who is the context of a request with whom events name as its author.
func who(r *http.Request) context.Context {
	return events.Asked(r.Context(), api.RequestID(r.Context()), api.Peer(r))
}
