package probe

import (
	"testing"
	"time"
)

// TestNext plays checks at seconds after the start: "." is a success, "x" a failure.
func TestNext(t *testing.T) {
	type step struct {
		at     float64
		what   string
		want   Health
		failed int
	}
	for _, tt := range []struct {
		name  string
		check Check
		known float64 // since when it is checked
		steps []step
	}{
		{"defaults", Check{}, 0, []step{
			{0, ".", Healthy, 0},
			{10, "x", Healthy, 1},
			{20, "x", Healthy, 2},
			{30, ".", Healthy, 0},
			{40, "x", Healthy, 1},
			{50, "x", Healthy, 2},
			{60, "x", Unhealthy, 3},
			{70, "x", Unhealthy, 4},
			{80, ".", Healthy, 0},
		}},
		{"never well", Check{}, 0, []step{{0, "x", Unknown, 0}, {10, "x", Unknown, 1}, {20, "x", Unknown, 2}, {30, "x", Unhealthy, 3}}},
		{"asked often, only one failure in a period counts", Check{}, 0, []step{
			{0, "x", Unknown, 0},
			{9.9, "x", Unknown, 0},
			{10, "x", Unknown, 1},
			{15, "x", Unknown, 1},
			{22, "x", Unknown, 2},
			{29.9, "x", Unknown, 2},
			{30, "x", Unhealthy, 3},
		}},
		{"failures before the delay is over do not count", Check{InitialDelay: 30 * time.Second, FailureThreshold: 1}, 0, []step{
			{0, "x", Unknown, 0}, {29, "x", Unknown, 0}, {30, "x", Unhealthy, 1},
		}},
		{"a success before the delay is over does, and failures from then on", Check{InitialDelay: 30 * time.Second, FailureThreshold: 2}, 0, []step{
			{1, "x", Unknown, 0}, {2, ".", Healthy, 0}, {12, "x", Healthy, 1}, {22, "x", Unhealthy, 2},
		}},
		{"adopted long after the start", Check{FailureThreshold: 2}, 1000, []step{
			{1000, "x", Unknown, 1}, {1000.2, "x", Unknown, 1}, {1011, "x", Unhealthy, 2},
		}},
		{"adopted while it starts", Check{InitialDelay: 30 * time.Second, FailureThreshold: 2}, 25, []step{
			{25, "x", Unknown, 0}, {31, "x", Unknown, 1}, {36, "x", Unknown, 1}, {41, "x", Unhealthy, 2},
		}},
		{"two successes", Check{SuccessThreshold: 2, FailureThreshold: 1}, 0, []step{
			{0, ".", Unknown, 0},
			{10, ".", Healthy, 0},
			{20, "x", Unhealthy, 1},
			{30, ".", Unhealthy, 0},
			{40, "x", Unhealthy, 1},
			{50, ".", Unhealthy, 0},
			{60, ".", Healthy, 0},
		}},
	} {
		start := time.Unix(1e9, 0)
		at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
		s := State{Status: Unknown, Since: at(tt.known)}
		for _, step := range tt.steps {
			r := Result{Started: start, At: at(step.at), Took: time.Millisecond}
			if step.what == "x" {
				r.Err = "no"
			}
			before := s
			s = tt.check.Next(s, r)
			if s.Status != step.want || s.Failures != step.failed || s.LastError != r.Err || !s.LastCheck.Equal(r.At) || s.ResponseTime != r.Took {
				t.Errorf("%s, at %v: %+v, want %s after %d failures", tt.name, step.at, s, step.want, step.failed)
			}
			if changed := s.Status != before.Status; changed != s.Since.Equal(r.At) && s.Since != before.Since {
				t.Errorf("%s, at %v: since %s", tt.name, step.at, s.Since)
			}
		}
	}
}

func TestInterval(t *testing.T) {
	begin := time.Unix(1e9, 0)
	for _, tt := range []struct {
		state State
		after time.Duration
		want  time.Duration
	}{
		{State{Status: Unknown}, 0, soonest},
		{State{Status: Unknown}, time.Second, 500 * time.Millisecond},
		{State{Status: Unknown}, 8 * time.Second, 4 * time.Second},
		{State{Status: Unknown}, time.Hour, defaultPeriod},
		{State{Status: Unknown, Successes: 1}, time.Second, defaultPeriod},
		{State{Status: Healthy}, time.Second, defaultPeriod},
		{State{Status: Unhealthy}, time.Second, defaultPeriod},
	} {
		tt.state.Since = begin
		if got := (Check{}).interval(tt.state, begin.Add(tt.after)); got != tt.want {
			t.Errorf("%+v after %s: %s, want %s", tt.state, tt.after, got, tt.want)
		}
	}
	if got := (Check{Period: minPeriod}).interval(State{Status: Unknown, Since: begin}, begin); got != minPeriod {
		t.Errorf("interval = %s, more than the period", got)
	}
}

func TestRestartDue(t *testing.T) {
	since := time.Unix(1e9, 0)
	for _, tt := range []struct {
		check  Check
		status Health
		want   bool
	}{
		{Check{Restart: true, Drain: time.Minute}, Unhealthy, true},
		{Check{Restart: true, Drain: time.Minute}, Healthy, false},
		{Check{Restart: true}, Unknown, false},
		{Check{Drain: time.Minute}, Unhealthy, false},
	} {
		at, due := tt.check.restart(State{Status: tt.status, Since: since})
		if due != tt.want || due && !at.Equal(since.Add(time.Minute)) {
			t.Errorf("%+v, %s: %v at %s", tt.check, tt.status, due, at)
		}
	}
}
