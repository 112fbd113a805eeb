package nodes

import (
	"math"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/probe"
)

// healthCheck is how the health of a container is checked. Times are in seconds.
type healthCheck struct {
	Type             string         `json:"type"` // http, tcp or exec
	Port             int            `json:"port"`
	Scheme           string         `json:"scheme"`
	Path             string         `json:"path"`
	Method           string         `json:"method"`
	Headers          []healthHeader `json:"headers"`
	Body             string         `json:"body"`
	Statuses         []int          `json:"statuses"`
	Command          []string       `json:"command"` // of exec
	InitialDelay     float64        `json:"initialDelay"`
	Period           float64        `json:"period"`
	Timeout          float64        `json:"timeout"`
	FailureThreshold int            `json:"failureThreshold"`
	SuccessThreshold int            `json:"successThreshold"`
	Restart          bool           `json:"restart"`
	Drain            float64        `json:"drain"`
}

type healthHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// healthState is what checks have found.
type healthState struct {
	Status       string    `json:"status"`   // unknown, healthy or unhealthy
	Failures     int       `json:"failures"` // in a row
	LastCheck    time.Time `json:"lastCheck,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	ResponseTime float64   `json:"responseTime"` // seconds
}

// healthIn translates a check; nil is none.
func healthIn(h *healthCheck) (*probe.Check, error) {
	if h == nil {
		return nil, nil
	}
	if h.Port < 0 || h.Port > math.MaxUint16 {
		return nil, errs.E(errs.Invalid, "field \"health.port\" is %d; it must be 1 to 65535", h.Port)
	}
	c := &probe.Check{
		Type: probe.Type(h.Type), Port: uint16(h.Port), Scheme: h.Scheme, Path: h.Path, Method: h.Method,
		Body: h.Body, Statuses: h.Statuses, Args: h.Command,
		FailureThreshold: h.FailureThreshold, SuccessThreshold: h.SuccessThreshold, Restart: h.Restart,
	}
	for _, header := range h.Headers {
		c.Headers = append(c.Headers, probe.Header(header))
	}
	for _, t := range []struct {
		name    string
		into    *time.Duration
		seconds float64
	}{
		{"initialDelay", &c.InitialDelay, h.InitialDelay}, {"period", &c.Period, h.Period}, {"timeout", &c.Timeout, h.Timeout}, {"drain", &c.Drain, h.Drain},
	} {
		const day = 24 * 60 * 60
		if t.seconds < 0 || t.seconds > day {
			return nil, errs.E(errs.Invalid, "field \"health.%s\" is %v; it must be 0 to %d seconds", t.name, t.seconds, day)
		}
		*t.into = time.Duration(math.Round(t.seconds*1000)) * time.Millisecond
	}
	return c, nil
}

func healthOut(s *probe.State) *healthState {
	if s == nil {
		return nil
	}
	return &healthState{
		Status: string(s.Status), Failures: s.Failures, LastCheck: s.LastCheck.UTC(), LastError: s.LastError, ResponseTime: s.ResponseTime.Seconds(),
	}
}

// checkHealth checks a container now and answers with what is known then, well
// or not.
func (d *Dialect) checkHealth(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	ctx, cancel := api.StreamContext(r) // a check takes as long as its timeout says
	defer cancel()
	s, err := d.node.CheckHealth(ctx, name)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, healthOut(&s))
	return nil
}
