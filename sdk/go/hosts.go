package buoy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Host is a node as the controller sees it.
type Host struct {
	ID      string            `json:"hostID"`
	Name    string            `json:"name"`
	Address string            `json:"address"` // where its published ports are reached
	IPs     []string          `json:"ips"`
	Labels  map[string]string `json:"labels"`
	Arch    string            `json:"arch"`
	OS      string            `json:"os"`
	Kernel  string            `json:"kernel"`
	Version string            `json:"agentVersionNumber"`

	Mode        string    `json:"mode"`     // "continue", "drain", "pause" or "terminate"
	Liveness    string    `json:"liveness"` // "alive", "silent" or "lost"
	DrainReason string    `json:"drainReason"`
	DrainDetail string    `json:"drainDetail"`
	Registered  time.Time `json:"createdDateTime,omitzero"`
	LastSeen    time.Time `json:"lastUpdateDateTime,omitzero"`
	Linked      bool      `json:"linked"` // it can be asked for logs and the like: its tunnel is open

	Replicas     int   `json:"numEngines"`
	CPUs         int   `json:"numCPU"`
	VCPUFree     int64 `json:"vcpuAvailable"` // not busy; 1024 is one CPU
	Memory       int64 `json:"memory"`        // bytes
	NumGPU       int   `json:"numGPU"`
	GPUAvailable int   `json:"gpuAvailable"`
	GPUs         []GPU `json:"gpus"`

	Free struct { // what replicas may still reserve
		MilliCPU int64 `json:"milliCPU"`
		Memory   int64 `json:"memory"` // bytes
		GPUs     int   `json:"gpus"`
	} `json:"free"`
}

// GPU is a graphics card.
type GPU struct {
	UUID   string `json:"uuid"`
	Model  string `json:"model"`
	Memory int64  `json:"memory"` // bytes
}

// hostPage is how many hosts are asked for at a time.
const hostPage = 1000

// Hosts lists all hosts.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	var all []Host
	for {
		var page struct {
			Count  int    `json:"count"`
			Result []Host `json:"result"`
		}
		q := url.Values{"limit": {strconv.Itoa(hostPage)}, "offset": {strconv.Itoa(len(all))}}
		if err := c.Do(ctx, http.MethodGet, "/hosts"+asQuery(q), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Result...)
		if len(page.Result) == 0 || len(all) >= page.Count {
			return all, nil
		}
	}
}

// Host describes one host.
func (c *Client) Host(ctx context.Context, id string) (Host, error) {
	var h Host
	return h, c.Do(ctx, http.MethodGet, hostPath(id, "detail"), nil, &h)
}

// FindHost is the host with that id or, if there is none, the only one with that
// name.
func (c *Client) FindHost(ctx context.Context, idOrName string) (Host, error) {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return Host{}, err
	}
	var named []Host
	for _, h := range hosts {
		if h.ID == idOrName {
			return h, nil
		}
		if strings.EqualFold(h.Name, idOrName) {
			named = append(named, h)
		}
	}
	switch len(named) {
	case 0:
		return Host{}, &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no host %q", idOrName)}
	case 1:
		return named[0], nil
	default:
		return Host{}, &Error{Status: http.StatusConflict, Message: fmt.Sprintf("%d hosts are called %q: name the one you mean by its id", len(named), idOrName)}
	}
}

func hostPath(id, below string) string { return "/host/" + join([]string{id, below}) }

// DrainHost gives a host nothing new, and moves what runs there elsewhere. The
// detail is a sentence for people.
func (c *Client) DrainHost(ctx context.Context, id, detail string) error {
	return c.Do(ctx, http.MethodPost, hostPath(id, "drain"), hostReason{"user", detail}, nil)
}

// TerminateHost drains a host, and then the controller forgets it.
func (c *Client) TerminateHost(ctx context.Context, id, detail string) error {
	return c.Do(ctx, http.MethodPost, hostPath(id, "terminate"), hostReason{"user", detail}, nil)
}

// PauseHost gives a host nothing new; what runs there stays.
func (c *Client) PauseHost(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, hostPath(id, "pause"), nil, nil)
}

// ResumeHost undoes PauseHost and DrainHost.
func (c *Client) ResumeHost(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, hostPath(id, "resume"), nil, nil)
}

type hostReason struct {
	Reason string `json:"reason"`
	Detail string `json:"detail,omitempty"`
}
