package buoy

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Webhook is a receiver of events.
type Webhook struct {
	Name       string   `json:"name"`
	URL        string   `json:"url"`
	Types      []string `json:"eventtypes"` // types or kinds of events; none: all
	Containers []string `json:"containers"` // none: all
	Images     []string `json:"images"`     // none: all
	// Secret is what deliveries are signed with. It is not told but by
	// CreateWebhook, if that was given none.
	Secret string `json:"secret,omitempty"`

	Configured bool          `json:"configured,omitempty"` // in the daemon's configuration, where alone it can be changed
	Created    time.Time     `json:"created,omitzero"`
	Status     WebhookStatus `json:"status,omitzero"`
}

// WebhookStatus is how a webhook is doing.
type WebhookStatus struct {
	State        string    `json:"state"` // "idle", "delivering" or "retrying"
	Delivered    uint64    `json:"delivered"`
	Failed       uint64    `json:"failed"` // attempts
	Dead         uint64    `json:"dead"`   // events that were given up
	Missed       uint64    `json:"missed"` // events that were dropped before their turn
	Behind       uint64    `json:"behind"` // events since the last one that is done with
	LastDelivery time.Time `json:"lastDelivery,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	LastFailure  time.Time `json:"lastFailure,omitzero"`
	NextTry      time.Time `json:"nextTry,omitzero"`
}

// webhookBody is what is sent of one.
type webhookBody struct {
	Name       string   `json:"name,omitempty"`
	URL        string   `json:"url"`
	Types      []string `json:"eventtypes"`
	Containers []string `json:"containers"`
	Images     []string `json:"images"`
	Secret     string   `json:"secret,omitempty"`
}

func (w Webhook) body() webhookBody {
	return webhookBody{w.Name, w.URL, w.Types, w.Containers, w.Images, w.Secret}
}

// Webhooks are all webhooks of the daemon, by name.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	var all []Webhook
	return all, c.Do(ctx, http.MethodGet, "/webhooks", nil, &all)
}

// Webhook is one of them.
func (c *Client) Webhook(ctx context.Context, name string) (Webhook, error) {
	var w Webhook
	return w, c.Do(ctx, http.MethodGet, webhookPath(name), nil, &w)
}

// CreateWebhook makes a webhook, which is told what happens from now on. Without
// a secret one is made, which the answer tells. ErrConflict: there is one of the
// name.
func (c *Client) CreateWebhook(ctx context.Context, w Webhook) (Webhook, error) {
	var made Webhook
	return made, c.Do(ctx, http.MethodPost, "/webhooks", w.body(), &made)
}

// ReplaceWebhook makes a webhook another one, which goes on where it was. Without
// a secret it keeps its own.
func (c *Client) ReplaceWebhook(ctx context.Context, w Webhook) error {
	return c.Do(ctx, http.MethodPut, webhookPath(w.Name), w.body(), nil)
}

// DeleteWebhook removes a webhook; one that is not there is fine.
func (c *Client) DeleteWebhook(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, webhookPath(name), nil, nil)
}

func webhookPath(name string) string { return "/webhooks/" + url.PathEscape(name) }
