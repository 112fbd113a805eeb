// Package probe finds out whether containers are well: what a check is, the
// verdict as a pure function of what checks found, and the loop that makes them.
package probe

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Type is how a container is asked.
type Type string

// The types.
const (
	HTTP Type = "http" // a request that has to be answered well
	TCP  Type = "tcp"  // a connection that has to come about
	Exec Type = "exec" // a command in the container that has to end with 0
)

// Check says how a container is asked and what to make of the answers. In JSON
// its times are in milliseconds.
type Check struct {
	Type Type   `json:"type"`
	Port uint16 `json:"port,omitempty"` // http and tcp

	// Of an http check.
	Scheme   string   `json:"scheme,omitempty"` // http, the default, or https, whose certificate is not verified
	Path     string   `json:"path,omitempty"`   // default "/"; may have a query
	Method   string   `json:"method,omitempty"` // default GET
	Headers  []Header `json:"headers,omitempty"`
	Body     string   `json:"body,omitempty"`
	Statuses []int    `json:"statuses,omitempty"` // the good ones; none: 200 to 399

	Args []string `json:"args,omitempty"` // exec: the command

	InitialDelay     time.Duration `json:"-"`                          // from the start; a failure until then does not count, a success does
	Period           time.Duration `json:"-"`                          // default 10 s
	Timeout          time.Duration `json:"-"`                          // default 5 s
	FailureThreshold int           `json:"failureThreshold,omitempty"` // in a row until it is unhealthy; default 3
	SuccessThreshold int           `json:"successThreshold,omitempty"` // in a row until it is healthy; default 1

	Restart bool          `json:"restart,omitempty"` // an unhealthy container is restarted
	Drain   time.Duration `json:"-"`                 // but runs on for so long first, so that nobody is sent to it any more
}

// Header is a header of a request. One called Host names the virtual host, and
// the name that TLS asks for.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// The defaults, as in Kubernetes but for the timeout.
const (
	defaultPeriod           = 10 * time.Second
	defaultTimeout          = 5 * time.Second
	defaultFailureThreshold = 3
	defaultSuccessThreshold = 1
)

// filled is c with its defaults in place.
func (c Check) filled() Check {
	c.Scheme = cmp.Or(c.Scheme, "http")
	c.Path = cmp.Or(c.Path, "/")
	c.Method = cmp.Or(c.Method, "GET")
	c.Period = cmp.Or(c.Period, defaultPeriod)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.FailureThreshold = cmp.Or(c.FailureThreshold, defaultFailureThreshold)
	c.SuccessThreshold = cmp.Or(c.SuccessThreshold, defaultSuccessThreshold)
	return c
}

// good says whether an answer with this status is one of a healthy container.
func (c Check) good(status int) bool {
	if len(c.Statuses) > 0 {
		return slices.Contains(c.Statuses, status)
	}
	return status >= 200 && status < 400
}

// plain is Check without its methods.
type plain Check

// wire is a Check in JSON.
type wire struct {
	plain
	InitialDelayMillis int64 `json:"initialDelayMillis,omitempty"`
	PeriodMillis       int64 `json:"periodMillis,omitempty"`
	TimeoutMillis      int64 `json:"timeoutMillis,omitempty"`
	DrainMillis        int64 `json:"drainMillis,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (c Check) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{
		plain(c), c.InitialDelay.Milliseconds(), c.Period.Milliseconds(), c.Timeout.Milliseconds(), c.Drain.Milliseconds(),
	})
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *Check) UnmarshalJSON(raw []byte) error {
	var w wire
	if err := json.Unmarshal(raw, &w); err != nil {
		return err
	}
	*c = Check(w.plain)
	for _, t := range []struct {
		into   *time.Duration
		millis int64
	}{
		{&c.InitialDelay, w.InitialDelayMillis}, {&c.Period, w.PeriodMillis}, {&c.Timeout, w.TimeoutMillis}, {&c.Drain, w.DrainMillis},
	} {
		*t.into = time.Duration(t.millis) * time.Millisecond
	}
	return nil
}
