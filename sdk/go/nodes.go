package buoy

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// Node is a machine that runs buoyd.
type Node struct {
	ID        string `json:"id"`
	Hostname  string `json:"hostname"`
	IPAddress string `json:"ipaddress"`
	Status    string `json:"status"` // "running" or "halted"
	Version   string `json:"version,omitempty"`
	// Controller is the URL that the node which answers reports to, "self" if it is a controller.
	Controller string `json:"controller,omitempty"`
}

// Nodes lists the nodes that the address knows.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var nodes []Node
	return nodes, c.Do(ctx, http.MethodGet, "/nodes", nil, &nodes)
}

// Node describes the node with that id, the client's own when it is empty.
func (c *Client) Node(ctx context.Context, id string) (Node, error) {
	path := "/nodes/{node}"
	if id != "" && id != "self" {
		path = "/nodes/" + url.PathEscape(id)
	}
	var node Node
	return node, c.Do(ctx, http.MethodGet, path, nil, &node)
}

// Reboot restarts the machine. Without force it is refused (ErrConflict)
// while something would be lost.
func (c *Client) Reboot(ctx context.Context, force bool) error {
	body := struct {
		Force bool `json:"force"`
	}{force}
	return c.Do(ctx, http.MethodPost, "/nodes/{node}/reboot", body, nil)
}

// Health is what a daemon says of itself.
type Health struct {
	Status  string `json:"status"` // "ok"; of a controller "healthy" or "degraded"
	Ready   bool   `json:"ready"`  // what should run has been looked after since the daemon's start
	Message string `json:"message,omitempty"`
}

// Health asks whether the daemon answers.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	return h, c.Do(ctx, http.MethodGet, "/health", nil, &h)
}

// Version is which buoyd answers.
type Version struct {
	Version string          `json:"version"`
	Go      string          `json:"go"`
	OS      string          `json:"os"`
	Arch    string          `json:"arch"`
	Raw     json.RawMessage `json:"-"` // the whole answer
}

// Version asks the daemon for its version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	if err := c.Do(ctx, http.MethodGet, "/version", nil, &v.Raw); err != nil {
		return v, err
	}
	return v, json.Unmarshal(v.Raw, &v)
}
