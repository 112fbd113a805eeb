package probe

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestJSON(t *testing.T) {
	for _, tt := range []struct {
		check Check
		want  string
	}{
		{Check{Type: TCP, Port: 80}, `{"type":"tcp","port":80}`},
		{
			Check{
				Type: HTTP, Port: 443, Scheme: "https", Path: "/h", Method: "POST", Headers: []Header{{"A", "b"}}, Body: "x", Statuses: []int{204},
				InitialDelay: 30 * time.Second, Period: 1500 * time.Millisecond, Timeout: 20 * time.Millisecond,
				FailureThreshold: 5, SuccessThreshold: 2, Restart: true, Drain: time.Minute,
			},
			`{"type":"http","port":443,"scheme":"https","path":"/h","method":"POST","headers":[{"name":"A","value":"b"}],"body":"x","statuses":[204],` +
				`"failureThreshold":5,"successThreshold":2,"restart":true,"initialDelayMillis":30000,"periodMillis":1500,"timeoutMillis":20,"drainMillis":60000}`,
		},
		{Check{Type: Exec, Args: []string{"/bin/true"}}, `{"type":"exec","args":["/bin/true"]}`},
	} {
		raw, err := json.Marshal(tt.check)
		if err != nil || string(raw) != tt.want {
			t.Errorf("%+v = %s, %v, want %s", tt.check, raw, err, tt.want)
		}
		var back Check
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.check, back); diff != "" {
			t.Error(diff)
		}
	}
	var c Check
	if err := json.Unmarshal([]byte(`{"type":7}`), &c); err == nil {
		t.Error("a number is a type")
	}
}

func TestValidate(t *testing.T) {
	web := Check{Type: HTTP, Port: 80}
	with := func(change func(*Check)) Check {
		c := web
		change(&c)
		return c
	}
	for _, tt := range []struct {
		check Check
		want  string // in the error; "": there is none
	}{
		{web, ""},
		{Check{Type: TCP, Port: 65535}, ""},
		{Check{Type: Exec, Args: []string{"/bin/true", ""}}, ""},
		{with(func(c *Check) { c.Path = "/a/b?c=d%20e" }), ""},
		{with(func(c *Check) { c.Headers, c.Statuses = []Header{{"X-A", "a\tb"}}, []int{200, 599} }), ""},
		{with(func(c *Check) { c.Period, c.Timeout, c.Drain, c.InitialDelay = minPeriod, maxTimeout, maxTime, 1 }), ""},
		{Check{}, `health.type "" is not http, tcp or exec`},
		{Check{Type: "grpc"}, `health.type "grpc"`},
		{Check{Type: HTTP}, "health.port is missing"},
		{Check{Type: TCP}, "health.port is missing"},
		{Check{Type: Exec}, "health.command is missing"},
		{Check{Type: Exec, Args: []string{""}}, "health.command is missing"},
		{Check{Type: Exec, Args: []string{"x"}, Port: 1}, "health.port has no meaning for a check of type exec"},
		{Check{Type: TCP, Port: 1, Path: "/"}, "health.path has no meaning for a check of type tcp"},
		{Check{Type: TCP, Port: 1, Statuses: []int{200}}, "health.statuses has no meaning"},
		{with(func(c *Check) { c.Args = []string{"x"} }), "health.command has no meaning"},
		{with(func(c *Check) { c.Scheme = "ftp" }), `health.scheme "ftp"`},
		{with(func(c *Check) { c.Path = "health" }), `health.path "health"`},
		{with(func(c *Check) { c.Path = "http://other/" }), `health.path`},
		{with(func(c *Check) { c.Path = "//other/" }), `health.path`},
		{with(func(c *Check) { c.Path = "/a b" }), `health.path`},
		{with(func(c *Check) { c.Path = "/a\nb" }), `health.path`},
		{with(func(c *Check) { c.Path = "/a#b" }), `health.path`},
		{with(func(c *Check) { c.Method = "GE T" }), `health.method "GE T"`},
		{with(func(c *Check) { c.Method = "CONNECT" }), `health.method "CONNECT"`},
		{with(func(c *Check) { c.Headers = []Header{{"", "x"}} }), `health.headers: "" is not the name`},
		{with(func(c *Check) { c.Headers = []Header{{"a:b", "x"}} }), `health.headers: "a:b"`},
		{with(func(c *Check) { c.Headers = []Header{{"A", "x\r\nB: y"}} }), `control characters`},
		{with(func(c *Check) { c.Body = strings.Repeat("x", maxBody+1) }), `health.body has 65537 bytes`},
		{with(func(c *Check) { c.Statuses = []int{101} }), `health.statuses: 101`},
		{with(func(c *Check) { c.Period = time.Millisecond }), `health.period is 1ms; it must be from 100ms to 24h0m0s`},
		{with(func(c *Check) { c.Period = -time.Second }), `health.period`},
		{with(func(c *Check) { c.Timeout = time.Hour }), `health.timeout`},
		{with(func(c *Check) { c.InitialDelay = -1 }), `health.initialDelay`},
		{with(func(c *Check) { c.Drain = 25 * time.Hour }), `health.drain`},
		{with(func(c *Check) { c.FailureThreshold = -1 }), `health.failureThreshold is -1`},
		{with(func(c *Check) { c.SuccessThreshold = 1001 }), `health.successThreshold is 1001`},
	} {
		err := tt.check.Validate()
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || tt.want == "" || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v, want %q", tt.check, err, tt.want)
		}
	}
}
