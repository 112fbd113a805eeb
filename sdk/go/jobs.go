package buoy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"
)

// Command is a command to run in a container.
type Command struct {
	Name        string   `json:"name"` // the executable
	Args        []string `json:"args,omitempty"`
	Pwd         string   `json:"pwd,omitempty"`
	User        string   `json:"user,omitempty"`
	Environment []string `json:"environment,omitempty"` // "KEY=value", added to the container's
	Stdin       string   `json:"stdin,omitempty"`
}

// JobItem is a job in a list.
type JobItem struct {
	ID        string `json:"id"`
	StartTime int64  `json:"startTime"` // milliseconds since 1970
}

// Job is a command that was started through the API. Its output is there when
// it has ended.
type Job struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Args      []string `json:"args"`
	State     string   `json:"state"` // "running", "SUCCESS", "ERROR", "KILLED", …
	StartTime int64    `json:"startTime"`
	Stdout    string   `json:"stdout"`
	Stderr    string   `json:"stderr"`
	Data      string   `json:"data"`
	Level     int      `json:"level"`
	ExitCode  *int     `json:"exitCode"`  // nil: it has not ended
	Truncated bool     `json:"truncated"` // there was more output than is kept
}

// Ended says that the job runs no more.
func (j Job) Ended() bool { return j.State != "running" }

// Exec starts a job in a container and returns its id.
func (c *Client) Exec(ctx context.Context, container string, cmd Command) (string, error) {
	header, err := c.call(ctx, http.MethodPost, containerPath(container, "jobs"), cmd, nil)
	if err != nil {
		return "", err
	}
	id, err := url.PathUnescape(path.Base(header.Get("Location")))
	if err != nil || header.Get("Location") == "" {
		return "", errors.New("buoyd started the job but did not say where")
	}
	return id, nil
}

// Jobs lists the jobs of a container, or of the node if the name is empty.
func (c *Client) Jobs(ctx context.Context, container string) ([]JobItem, error) {
	var jobs []JobItem
	return jobs, c.Do(ctx, http.MethodGet, scopePath(container, "jobs"), nil, &jobs)
}

// Job describes a job of a container, or of the node if the name is empty.
func (c *Client) Job(ctx context.Context, container, id string) (Job, error) {
	var job Job
	return job, c.Do(ctx, http.MethodGet, scopePath(container, "jobs", id), nil, &job)
}

const (
	waitStep  = 30 * time.Second       // one question; proxies cut at 60 s
	waitPause = 100 * time.Millisecond // for a daemon that answers before it has to
)

// WaitJob returns the job once it has ended, or an error once ctx is done.
func (c *Client) WaitJob(ctx context.Context, container, id string) (Job, error) {
	ask := scopePath(container, "jobs", id) + "?wait=" + strconv.Itoa(int(waitStep/time.Second))
	for {
		var job Job
		if err := c.Do(ctx, http.MethodGet, ask, nil, &job); err != nil || job.Ended() {
			return job, err
		}
		select {
		case <-ctx.Done():
			return job, ctx.Err()
		case <-time.After(waitPause):
		}
	}
}

// SignalJob sends a signal to a job of a container.
func (c *Client) SignalJob(ctx context.Context, container, id string, signal int) error {
	return c.Do(ctx, http.MethodPost, containerPath(container, "jobs", id), processSignal{signal}, nil)
}

// KillJob kills a job of a container, or of the node if the name is empty.
func (c *Client) KillJob(ctx context.Context, container, id string) error {
	return c.Do(ctx, http.MethodDelete, scopePath(container, "jobs", id), nil, nil)
}

// KillJobs kills all jobs of a container, or of the node if the name is empty.
func (c *Client) KillJobs(ctx context.Context, container string) error {
	return c.Do(ctx, http.MethodDelete, scopePath(container, "jobs"), nil, nil)
}
