package buoy

import (
	"context"
	"net/http"
	"time"
)

// ContainerSummary is a container in a list.
type ContainerSummary struct {
	Name     string            `json:"name"`
	Hostname string            `json:"hostname"`
	Flist    string            `json:"flist"`
	Status   string            `json:"status"` // "running" or "halted"
	State    string            `json:"state"`  // finer: "creating", "standby", "running", "stopping", "restarting", "halted", "deleting"
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Image    string            `json:"image"`
	Created  time.Time         `json:"created,omitzero"`
	Ports    []string          `json:"ports"`
	Labels   map[string]string `json:"labels,omitempty"`
	Health   *HealthState      `json:"health,omitempty"` // nil: it is not checked
}

// Container is a container and what is known of it.
type Container struct {
	Name           string        `json:"name"`
	Hostname       string        `json:"hostname"`
	Flist          string        `json:"flist"`
	Storage        string        `json:"storage,omitempty"`
	NICs           []NIC         `json:"nics"`
	Ports          []string      `json:"ports"`
	HostNetworking bool          `json:"hostNetworking"`
	Filesystems    []string      `json:"filesystems"`
	InitProcesses  []InitProcess `json:"initprocesses"`
	Status         string        `json:"status"` // "running" or "halted"

	State    string            `json:"state"`   // as in ContainerSummary
	Reason   string            `json:"reason"`  // one word: "Stopped", "Exited", "OOMKilled", "StartFailed", "Lost", "Rebooted", "GPULost"
	Message  string            `json:"message"` // a sentence for a person
	Image    string            `json:"image"`
	Digest   string            `json:"digest,omitempty"`
	PID      int               `json:"pid,omitempty"`
	Address  string            `json:"address,omitempty"` // of its default NIC, "172.18.0.5/16"
	Created  time.Time         `json:"created,omitzero"`
	Started  time.Time         `json:"started,omitzero"`
	Finished time.Time         `json:"finished,omitzero"`
	ExitCode *int              `json:"exitCode"` // of the last run; nil: it has not ended
	OOM      bool              `json:"oomKilled"`
	Restarts int               `json:"restarts"`
	Restart  string            `json:"restart"`
	Labels   map[string]string `json:"labels"`
	Command  []string          `json:"command"`
	Secrets  []Secret          `json:"secrets,omitempty"` // without values
	Limits   Limits            `json:"limits,omitzero"`
	GPUs     []GPUHold         `json:"gpus,omitempty"` // that it holds
	TTY      bool              `json:"tty,omitempty"`
	Stdin    bool              `json:"stdin,omitempty"`
	Lazy     string            `json:"lazy,omitempty"`
	Health   *HealthState      `json:"health,omitempty"` // nil: it is not checked
	Fetch    *Fetch            `json:"fetch,omitempty"`  // of an flist that is mounted lazily
}

// Fetch is how far the content of an flist has come.
type Fetch struct {
	Done     int64     `json:"done"`  // bytes of the image that are on the node
	Total    int64     `json:"total"` // of all of it
	Complete bool      `json:"complete"`
	Path     string    `json:"path,omitempty"` // of the last read that failed
	Error    string    `json:"error,omitempty"`
	Failed   time.Time `json:"failed,omitzero"`
}

// Ended says that the container is at rest: halted, and not on its way
// somewhere else.
func (c Container) Ended() bool {
	if c.State != "" {
		return c.State == "halted"
	}
	return c.Status == "halted"
}

// Containers lists the node's containers.
func (c *Client) Containers(ctx context.Context) ([]ContainerSummary, error) {
	var list []ContainerSummary
	return list, c.Do(ctx, http.MethodGet, "/nodes/{node}/containers", nil, &list)
}

// Container describes one container.
func (c *Client) Container(ctx context.Context, name string) (Container, error) {
	var one Container
	return one, c.Do(ctx, http.MethodGet, containerPath(name), nil, &one)
}

// Create makes a container and starts it. When that fails nothing is left of
// it. ErrConflict: the name, or a port it wants, is taken.
func (c *Client) Create(ctx context.Context, r CreateRequest) error {
	return c.Do(ctx, http.MethodPost, "/nodes/{node}/containers", r, nil)
}

// Start starts a container that is halted.
func (c *Client) Start(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, containerPath(name, "start"), nil, nil)
}

// Stop stops a container: its stop signal, its grace, then the kill. Its
// writable layer is gone then unless it was created with Keep.
func (c *Client) Stop(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, containerPath(name, "stop"), nil, nil)
}

// Kill sends a signal to the first process of a container. After SIGKILL, or
// the container's own stop signal if that ends it, it stays halted.
func (c *Client) Kill(ctx context.Context, name string, signal int) error {
	return c.Do(ctx, http.MethodPost, containerPath(name, "kill"), processSignal{signal}, nil)
}

// Restart is Stop and Start.
func (c *Client) Restart(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, containerPath(name, "restart"), nil, nil)
}

// Delete stops a container and removes all that is left of it. One that is
// not there is fine.
func (c *Client) Delete(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, containerPath(name), nil, nil)
}
