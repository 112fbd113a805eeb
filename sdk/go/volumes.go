package buoy

import (
	"context"
	"net/http"
	"net/url"
)

// Volume is a directory that a node keeps for containers that name it.
type Volume struct {
	Name       string   `json:"name"`
	Containers []string `json:"containers"` // that name it
}

// Volumes lists the node's volumes.
func (c *Client) Volumes(ctx context.Context) ([]Volume, error) {
	var all []Volume
	return all, c.Do(ctx, http.MethodGet, "/nodes/{node}/volumes", nil, &all)
}

// DeleteVolume removes a volume and all that is in it. One that is not there is
// fine. ErrConflict: a container names it.
func (c *Client) DeleteVolume(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, "/nodes/{node}/volumes/"+url.PathEscape(name), nil, nil)
}
