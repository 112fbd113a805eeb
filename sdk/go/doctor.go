package buoy

import (
	"context"
	"net/http"
)

// Finding is what a look at the machine has found.
type Finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // "ok", "warning" or "failure"
	Found  string `json:"found"`
	Cost   string `json:"cost,omitempty"` // what does not work for that
	Mend   string `json:"mend,omitempty"` // what helps
}

// Doctor looks at the node's machine: what it lacks, what that costs, and how to
// mend it. It takes some seconds where something cannot be reached.
func (c *Client) Doctor(ctx context.Context) ([]Finding, error) {
	var all []Finding
	return all, c.Do(ctx, http.MethodGet, "/nodes/{node}/doctor", nil, &all)
}
