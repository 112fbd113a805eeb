package buoy

import (
	"context"
	"net/http"
	"time"
)

// HealthCheck is how the node finds out whether a container is well. Times are
// in seconds, and may have fractions.
type HealthCheck struct {
	Type     string         `json:"type"` // "http", "tcp" or "exec"
	Port     uint16         `json:"port,omitempty"`
	Scheme   string         `json:"scheme,omitempty"` // "http" (default) or "https", whose certificate is not verified
	Path     string         `json:"path,omitempty"`   // default "/"
	Method   string         `json:"method,omitempty"` // default "GET"
	Headers  []HealthHeader `json:"headers,omitempty"`
	Body     string         `json:"body,omitempty"`
	Statuses []int          `json:"statuses,omitempty"` // that are well; none: 200 to 399
	Command  []string       `json:"command,omitempty"`  // exec: well when it ends with 0

	InitialDelay     float64 `json:"initialDelay,omitempty"`     // failures until then do not count
	Period           float64 `json:"period,omitempty"`           // default 10
	Timeout          float64 `json:"timeout,omitempty"`          // default 5
	FailureThreshold int     `json:"failureThreshold,omitempty"` // default 3
	SuccessThreshold int     `json:"successThreshold,omitempty"` // default 1

	Restart bool    `json:"restart,omitempty"` // the node restarts it when it is unhealthy
	Drain   float64 `json:"drain,omitempty"`   // for so long it is left alone before that
}

// HealthHeader is a header of the request of a check.
type HealthHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// HealthState is what checks of a container have found.
type HealthState struct {
	Status       string    `json:"status"`   // "unknown", "healthy", "unhealthy"
	Failures     int       `json:"failures"` // in a row
	LastCheck    time.Time `json:"lastCheck,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	ResponseTime float64   `json:"responseTime"` // of the last check, in seconds
}

// CheckHealth has a container checked now, out of turn, and says what is known
// then. ErrConflict: it does not run, or was created without a check.
func (c *Client) CheckHealth(ctx context.Context, name string) (HealthState, error) {
	var s HealthState
	return s, c.Do(ctx, http.MethodPost, containerPath(name, "health", "check"), nil, &s)
}
