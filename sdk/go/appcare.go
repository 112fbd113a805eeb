package buoy

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// AppSample is what was measured of an app.
type AppSample struct {
	Timestamp   time.Time `json:"timestamp,omitzero"`
	CPUPercent  float64   `json:"cpu_percent"`
	MemPercent  float64   `json:"memory_percent"`
	RPS         float64   `json:"rps"`
	P95Millis   float64   `json:"latency_p95_ms"`
	Connections float64   `json:"active_connections"`
	Healthy     int       `json:"healthy_replicas"`
	Total       int       `json:"total_replicas"`
}

// AppMetrics is what was measured of an app, now and before.
type AppMetrics struct {
	Name      string      `json:"app_name"`
	Timestamp time.Time   `json:"timestamp,omitzero"`
	Current   AppSample   `json:"current"`
	History   []AppSample `json:"history"`
}

// AppMetrics asks for points of an app's history, so far apart; zero values are
// the API's defaults.
func (c *Client) AppMetrics(ctx context.Context, name string, points int, interval time.Duration) (AppMetrics, error) {
	q := url.Values{}
	if points > 0 {
		q.Set("history", strconv.Itoa(points))
	}
	if interval > 0 {
		q.Set("interval", interval.String())
	}
	var m AppMetrics
	return m, c.Do(ctx, http.MethodGet, appPath(name, "metrics")+asQuery(q), nil, &m)
}

func asQuery(q url.Values) string {
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// ScalingPolicy says when there are how many replicas. In SetAppScaling nil
// stays as it is.
type ScalingPolicy struct {
	Mode          *string  `json:"mode,omitempty"` // "auto" or "manual"
	Min           *int     `json:"min_replicas,omitempty"`
	Max           *int     `json:"max_replicas,omitempty"`
	RPS           *float64 `json:"target_rps_per_replica,omitempty"`
	P95Millis     *float64 `json:"max_p95_latency_ms,omitempty"`
	CPUPercent    *float64 `json:"max_cpu_percent,omitempty"`
	MemoryPercent *float64 `json:"max_memory_percent,omitempty"`
	Connections   *float64 `json:"max_conn_per_replica,omitempty"`
	OutPercent    *float64 `json:"scale_out_threshold_pct,omitempty"`
	InPercent     *float64 `json:"scale_in_threshold_pct,omitempty"`
	Window        *float64 `json:"window_seconds,omitempty"`
	Cooldown      *float64 `json:"cooldown_seconds,omitempty"`
	Stabilization *float64 `json:"stabilization_window_seconds,omitempty"`
	OutStep       *int     `json:"max_scale_out_step,omitempty"`
	InStep        *int     `json:"max_scale_in_step,omitempty"`
	Standby       *int     `json:"standby,omitempty"`
}

// AppScaling is how an app is scaled.
type AppScaling struct {
	Name   string        `json:"app_name"`
	Mode   string        `json:"mode"`
	Policy ScalingPolicy `json:"policy"`
	Last   *ScalingEvent `json:"last_scaling_event"`
}

// ScalingEvent is a change of the number of replicas.
type ScalingEvent struct {
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"` // "scale_out" or "scale_in"
	From      int       `json:"from_replicas"`
	To        int       `json:"to_replicas"`
	Reason    string    `json:"reason"`
}

// AppScaling asks how an app is scaled.
func (c *Client) AppScaling(ctx context.Context, name string) (AppScaling, error) {
	var s AppScaling
	return s, c.Do(ctx, http.MethodGet, appPath(name, "scaling"), nil, &s)
}

// SetAppScaling changes how an app is scaled.
func (c *Client) SetAppScaling(ctx context.Context, name string, p ScalingPolicy) error {
	return c.Do(ctx, http.MethodPut, appPath(name, "scaling"), p, nil)
}

// AppHealth is how the replicas of an app are.
type AppHealth struct {
	Name       string          `json:"app_name"`
	Overall    string          `json:"overall_health"`
	Healthy    int             `json:"healthy_replicas"`
	Total      int             `json:"total_replicas"`
	Containers []ReplicaHealth `json:"containers"`
}

// ReplicaHealth is what checks of a replica have found.
type ReplicaHealth struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"`
	Health         string    `json:"health"`
	LastCheck      time.Time `json:"last_check,omitzero"`
	Failures       int       `json:"consecutive_failures"`
	ResponseMillis float64   `json:"response_time_ms"`
	LastError      string    `json:"last_error"`
}

// AppHealth asks how the replicas of an app are.
func (c *Client) AppHealth(ctx context.Context, name string) (AppHealth, error) {
	var h AppHealth
	return h, c.Do(ctx, http.MethodGet, appPath(name, "health"), nil, &h)
}

// HealthChecked is what checks have found that were asked for.
type HealthChecked struct {
	Checked   int `json:"containers_checked"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

// CheckAppHealth has hosts check the replicas of an app now.
func (c *Client) CheckAppHealth(ctx context.Context, name string) (HealthChecked, error) {
	var h HealthChecked
	return h, c.Do(ctx, http.MethodPost, appPath(name, "health", "check"), nil, &h)
}

// AppLogOptions selects log lines; the zero value is the API's default, the last
// 100.
type AppLogOptions struct {
	Tail    int
	Since   time.Time
	Replica string // only this one, by name: "web-1"
}

func (o AppLogOptions) query() url.Values {
	q := url.Values{}
	if o.Tail > 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if o.Replica != "" {
		q.Set("container", o.Replica)
	}
	return q
}

// AppLogLine is a line that a replica wrote.
type AppLogLine struct {
	Timestamp time.Time `json:"timestamp"`
	Container string    `json:"container"`
	Stream    string    `json:"stream"` // "stdout" or "stderr"
	Level     string    `json:"level"`
	Message   string    `json:"message"`
}

// AppLogFailure is a replica that could not be asked for its log.
type AppLogFailure struct {
	Container string `json:"container"`
	Error     string `json:"error"`
}

// AppLogs are lines that replicas of an app wrote.
type AppLogs struct {
	Lines       []AppLogLine    `json:"logs"` // the newest first
	Unavailable []AppLogFailure `json:"unavailable"`
}

// AppLogs asks all replicas of an app for their logs. It fails if none can be
// asked.
func (c *Client) AppLogs(ctx context.Context, name string, o AppLogOptions) (l AppLogs, err error) {
	err = c.Do(ctx, http.MethodGet, appPath(name, "logs")+asQuery(o.query()), nil, &l)
	return l, err
}

// AppLogMessage is a line, or names replicas that cannot be asked at present.
type AppLogMessage struct {
	AppLogLine
	Unavailable []AppLogFailure `json:"unavailable"` // if there are some, there is no line
}

// FollowAppLogs yields lines as they come, beginning with those that are there,
// the oldest first. It ends with ctx, with the app, or with an error.
func (c *Client) FollowAppLogs(ctx context.Context, name string, o AppLogOptions) iter.Seq2[AppLogMessage, error] {
	q := o.query()
	q.Set("follow", "true")
	return stream[AppLogMessage](ctx, c, appPath(name, "logs")+asQuery(q))
}
