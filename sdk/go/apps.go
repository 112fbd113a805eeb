package buoy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// AppSummary is an app in a list.
type AppSummary struct {
	Name      string      `json:"name"`
	Kind      string      `json:"kind"`   // "service", "daemon", "job" or "cron"
	Mode      string      `json:"mode"`   // of scaling: "auto" or "manual"
	Origin    string      `json:"origin"` // the dialect that made it: "apps", "services", "osc"
	Status    string      `json:"status"` // "stopped", "starting", "running", "degraded", "error" or "completed"
	Message   string      `json:"message"`
	Image     string      `json:"image"`
	Replicas  AppReplicas `json:"replicas"`
	CreatedAt time.Time   `json:"created_at,omitzero"`
}

// AppReplicas counts the replicas of an app.
type AppReplicas struct {
	Current int `json:"current"`
	Desired int `json:"desired"`
	Ready   int `json:"ready"`   // in a list
	Healthy int `json:"healthy"` // of one app, as are those that follow
	Standby int `json:"standby"`
	Missing int `json:"missing"` // that no host takes
}

// App is an app and how it is doing.
type App struct {
	AppSummary
	Labels       map[string]string `json:"labels"`
	Reason       string            `json:"reason"` // a word, empty while all is well
	Metrics      AppSample         `json:"metrics"`
	UpdatedAt    time.Time         `json:"updated_at,omitzero"`
	LastScaledAt time.Time         `json:"last_scaled_at,omitzero"`
	Rollout      Rollout           `json:"rollout"`
	Containers   []AppReplica      `json:"containers"`
	Unplaced     []WhyNot          `json:"unplaced"` // why hosts take no more
}

// Settled says that the app is as it is wanted to be: nothing is about to be
// started, stopped or replaced.
func (a *App) Settled() bool {
	switch a.Status {
	case "running", "stopped", "completed":
		return a.Status != "running" || a.Rollout.Done || a.Rollout.Canary || a.Rollout.Paused
	default:
		return false
	}
}

// Rollout is how far the newest revision of an app has come.
type Rollout struct {
	Revision int       `json:"revision"` // that replicas are brought to
	Previous int       `json:"previous"` // the one it replaces; 0: none
	Since    time.Time `json:"since,omitzero"`
	Done     bool      `json:"done"`
	Paused   bool      `json:"paused"`
	Canary   bool      `json:"canary"` // only the canaries have it, until it is promoted
	Ready    int       `json:"ready"`  // replicas at Revision
	Wanted   int       `json:"wanted"` // there: of canaries, only them
	Message  string    `json:"message"`
}

// AppReplica is a container of an app.
type AppReplica struct {
	ID        string    `json:"id"` // of the launch, which events have, too
	Name      string    `json:"name"`
	Container string    `json:"container"` // its name on its host
	Revision  int       `json:"revision"`
	Host      string    `json:"host"` // its id
	IP        string    `json:"ip"`   // of the container
	Port      int       `json:"port"`
	Endpoints []string  `json:"endpoints"` // where its host publishes its ports
	Status    string    `json:"status"`    // "creating", "starting", "standby", "running", "stopping", "exited", "failed" or "lost"
	Health    string    `json:"health"`    // "healthy", "unhealthy" or "unknown"
	StartedAt time.Time `json:"started_at,omitzero"`
	ExitCode  *int      `json:"exit_code"` // nil: it has not ended
	Restarts  int       `json:"restarts"`
	Reason    string    `json:"reason"`
	Message   string    `json:"message"`
}

// WhyNot is why a host does not take a replica.
type WhyNot struct {
	Host   string `json:"host"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Apps lists the apps. With a status, those alone that have it.
func (c *Client) Apps(ctx context.Context, status string) ([]AppSummary, error) {
	var answer struct {
		Apps []AppSummary `json:"apps"`
	}
	path := "/api/v1/apps"
	if status != "" {
		path += "?status=" + url.QueryEscape(status)
	}
	return answer.Apps, c.Do(ctx, http.MethodGet, path, nil, &answer)
}

// App describes one app.
func (c *Client) App(ctx context.Context, name string) (App, error) {
	var a App
	return a, c.Do(ctx, http.MethodGet, appPath(name), nil, &a)
}

func appPath(name string, below ...string) string {
	return "/api/v1/apps/" + join(append([]string{name}, below...))
}

// AppliedApp is what ApplyApps did about an app.
type AppliedApp struct {
	Name     string   `json:"app_name"`
	Action   string   `json:"action"` // "created", "updated" or "unchanged"
	Revision int      `json:"revision"`
	Status   string   `json:"status"`
	Notes    []string `json:"notes"` // sentences about what is not quite as it may seem
}

// ApplyApps makes apps be as a manifest says, which is YAML or JSON of one or
// several documents, or a Compose file, and starts them. ErrInvalid: an Error
// with Problems, and nothing was changed.
func (c *Client) ApplyApps(ctx context.Context, manifest []byte) ([]AppliedApp, error) {
	var answer struct {
		Apps []AppliedApp `json:"apps"`
	}
	err := c.manifest(ctx, "/api/v1/apps/apply", manifest, &answer)
	return answer.Apps, err
}

// AppPlan is what ApplyApps would do about an app.
type AppPlan struct {
	Name    string      `json:"app_name"`
	New     bool        `json:"new"`
	Changes []AppChange `json:"changes"` // empty: nothing would change
	Actions []string    `json:"actions"` // sentences
	Notes   []string    `json:"notes"`
}

// AppChange is a field of a manifest that changes.
type AppChange struct {
	Path string          `json:"path"`
	Old  json.RawMessage `json:"old,omitempty"`
	New  json.RawMessage `json:"new,omitempty"`
}

// PlanApps says what ApplyApps would do, and does nothing.
func (c *Client) PlanApps(ctx context.Context, manifest []byte) ([]AppPlan, error) {
	var answer struct {
		Apps []AppPlan `json:"apps"`
	}
	return answer.Apps, c.manifest(ctx, "/api/v1/apps/plan", manifest, &answer)
}

// manifest posts one.
func (c *Client) manifest(ctx context.Context, path string, manifest []byte, out any) error {
	kind := "application/yaml"
	if json.Valid(manifest) {
		kind = "application/json"
	}
	resp, err := c.send(ctx, request{method: http.MethodPost, path: path, body: bytes.NewReader(manifest), contentType: kind})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the answer to POST %s: %w", path, err)
	}
	return nil
}

// RegisterApp takes in one new app, and does not start it. ErrConflict: there is
// one of that name.
func (c *Client) RegisterApp(ctx context.Context, manifest []byte) error {
	return c.manifest(ctx, "/api/v1/apps/register", manifest, &struct{}{})
}

// AppWait is how long a call waits for what it has begun. The zero value does
// not wait.
type AppWait struct {
	Wait    bool `json:"wait,omitempty"`
	Timeout int  `json:"timeout,omitempty"` // seconds
}

// StartApp starts an app, with so many replicas; less than 0: as before.
func (c *Client) StartApp(ctx context.Context, name string, replicas int, w AppWait) error {
	body := struct {
		Replicas *int `json:"replicas,omitempty"`
		AppWait
	}{AppWait: w}
	if replicas >= 0 {
		body.Replicas = &replicas
	}
	return c.Do(ctx, http.MethodPost, appPath(name, "start"), body, nil)
}

// StopApp stops an app. With force, its replicas are killed at once.
func (c *Client) StopApp(ctx context.Context, name string, force bool) error {
	body := struct {
		Force bool `json:"force"`
	}{force}
	return c.Do(ctx, http.MethodPost, appPath(name, "stop"), body, nil)
}

// ScaleApp gives an app so many replicas, and returns how many there were.
func (c *Client) ScaleApp(ctx context.Context, name string, replicas int, w AppWait) (previous int, err error) {
	body := struct {
		Replicas int `json:"replicas"`
		AppWait
	}{replicas, w}
	var answer struct {
		Previous int `json:"previous_replicas"`
	}
	return answer.Previous, c.Do(ctx, http.MethodPost, appPath(name, "scale"), body, &answer)
}

// RemovedApp is what went with an app.
type RemovedApp struct {
	Containers int `json:"containers_removed"`
	Volumes    int `json:"volumes_removed"`
}

// RemoveApp stops and forgets an app, once nothing of it is left. Its volumes go
// too unless keepData.
func (c *Client) RemoveApp(ctx context.Context, name string, keepData bool) (RemovedApp, error) {
	var r RemovedApp
	return r, c.Do(ctx, http.MethodDelete, appPath(name)+"?keep_data="+strconv.FormatBool(keepData)+"&force=true", nil, &r)
}

// AppSpec is the manifest of an app, as JSON.
func (c *Client) AppSpec(ctx context.Context, name string) (json.RawMessage, error) {
	var spec json.RawMessage
	err := c.Do(ctx, http.MethodGet, appPath(name, "spec"), nil, &spec)
	return spec, err
}

// AppExplanation is where the next replica of an app would go.
type AppExplanation struct {
	Name    string    `json:"app_name"`
	Missing int       `json:"missing"` // replicas that no host takes
	Hosts   []HostFit `json:"hosts"`   // those that fit first, the best first
}

// HostFit is what a host is to a replica.
type HostFit struct {
	Host   string  `json:"host"`
	Name   string  `json:"name"`
	Fits   bool    `json:"fits"`
	Reason string  `json:"reason"` // why not
	Score  float64 `json:"score"`
}

// ExplainApp says for each host whether it would take the next replica.
func (c *Client) ExplainApp(ctx context.Context, name string) (AppExplanation, error) {
	var e AppExplanation
	return e, c.Do(ctx, http.MethodGet, appPath(name, "explain"), nil, &e)
}

// AppRevision is a manifest that an app has, or had.
type AppRevision struct {
	Revision  int       `json:"revision"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	Image     string    `json:"image"`
	Digest    string    `json:"digest"`
	Good      bool      `json:"good"`   // all replicas were healthy on it once
	Failed    string    `json:"failed"` // why it was given up
	Current   bool      `json:"current"`
}

// AppRevisions lists the revisions of an app, the newest first.
func (c *Client) AppRevisions(ctx context.Context, name string) ([]AppRevision, error) {
	var answer struct {
		Revisions []AppRevision `json:"revisions"`
	}
	return answer.Revisions, c.Do(ctx, http.MethodGet, appPath(name, "revisions"), nil, &answer)
}

// RollbackApp goes back to a revision, 0: the last good one before. It returns
// which one that is.
func (c *Client) RollbackApp(ctx context.Context, name string, revision int) (int, error) {
	body := struct {
		Revision int `json:"revision"`
	}{revision}
	var answer struct {
		Rollout Rollout `json:"rollout"`
	}
	err := c.Do(ctx, http.MethodPost, appPath(name, "rollback"), body, &answer)
	return answer.Rollout.Revision, err
}

// PauseRollout stops replacing replicas, until ResumeRollout.
func (c *Client) PauseRollout(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, appPath(name, "rollout", "pause"), nil, nil)
}

// ResumeRollout goes on replacing replicas.
func (c *Client) ResumeRollout(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, appPath(name, "rollout", "resume"), nil, nil)
}

// PromoteRollout brings all replicas to the revision of the canaries.
func (c *Client) PromoteRollout(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, appPath(name, "rollout", "promote"), nil, nil)
}

// AppMove is a replica that rebalancing takes to another host.
type AppMove struct {
	App     string `json:"app_name"`
	Replica string `json:"replica"`
	From    string `json:"from"` // ids of hosts
	To      string `json:"to"`
	Reason  string `json:"reason"`
}

// RebalanceApps moves replicas to where they had better be, of one app, or of
// all if name is empty. With preview it only says which.
func (c *Client) RebalanceApps(ctx context.Context, name string, preview bool) ([]AppMove, error) {
	body := struct {
		Preview bool `json:"preview"`
	}{preview}
	var answer struct {
		Moves []AppMove `json:"moves"`
	}
	path := "/api/v1/apps/rebalance"
	if name != "" {
		path = appPath(name, "rebalance")
	}
	return answer.Moves, c.Do(ctx, http.MethodPost, path, body, &answer)
}
