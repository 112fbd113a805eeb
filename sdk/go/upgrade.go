package buoy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// UpgradeState is which programs a node runs, and how its last upgrade went.
type UpgradeState struct {
	Version    string          `json:"version"`              // of the programs that run
	Installed  string          `json:"installed"`            // of those that the machine was installed with
	Phase      string          `json:"phase"`                // "idle", "fetching", "unpacking", "restarting" or "trial"
	Controller string          `json:"controller,omitempty"` // "reached" or "lost"; "": there is none
	Fetch      *UpgradeFetch   `json:"fetch,omitempty"`
	Trial      *UpgradeTrial   `json:"trial,omitempty"`
	Last       *UpgradeOutcome `json:"last,omitempty"`
}

// UpgradeFetch is a bundle on its way.
type UpgradeFetch struct {
	URL   string `json:"url"`
	Got   int64  `json:"got,omitempty"`
	Total int64  `json:"total,omitempty"` // 0: not known
}

// UpgradeTrial is programs that have to prove themselves.
type UpgradeTrial struct {
	Version string `json:"version"`
	From    string `json:"from"`
	Window  int64  `json:"window"` // seconds that they have to become healthy
	Boots   int    `json:"boots"`  // how often they were started
}

// UpgradeOutcome is how an upgrade went.
type UpgradeOutcome struct {
	Version string    `json:"version,omitempty"`
	From    string    `json:"from"`
	Result  string    `json:"result"` // "confirmed", "failed" (the old programs run) or "refused" (they still do)
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Time    time.Time `json:"time"`
}

// Upgrading asks a node which programs it runs, and what becomes of others.
func (c *Client) Upgrading(ctx context.Context) (UpgradeState, error) {
	var s UpgradeState
	return s, c.Do(ctx, http.MethodGet, "/nodes/{node}/upgrade", nil, &s)
}

// Upgrade sends a node a bundle of programs. When it returns the node has
// verified it and restarts; Upgrading tells how it went. Within window, zero for
// the node's default, they must become healthy, or the node goes back.
func (c *Client) Upgrade(ctx context.Context, bundle io.Reader, window time.Duration) (UpgradeState, error) {
	q := url.Values{}
	if window != 0 {
		q.Set("window", window.String())
	}
	var s UpgradeState
	// io.NopCloser: the client must not close what is the caller's.
	resp, err := c.send(ctx, request{
		method: http.MethodPost, path: "/nodes/{node}/upgrade", query: q, body: io.NopCloser(bundle), contentType: "application/octet-stream",
	})
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("decode the answer to an upgrade: %w", err)
	}
	return s, nil
}

// UpgradeFrom has a node get the bundle by itself, for as long as it takes.
func (c *Client) UpgradeFrom(ctx context.Context, from string, window time.Duration) (UpgradeState, error) {
	body := struct {
		URL    string `json:"url"`
		Window string `json:"window,omitempty"`
	}{URL: from}
	if window != 0 {
		body.Window = window.String()
	}
	var s UpgradeState
	return s, c.Do(ctx, http.MethodPost, "/nodes/{node}/upgrade", body, &s)
}

// CancelUpgrade ends a fetch that UpgradeFrom began.
func (c *Client) CancelUpgrade(ctx context.Context) error {
	return c.Do(ctx, http.MethodDelete, "/nodes/{node}/upgrade", nil, nil)
}
