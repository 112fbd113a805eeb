package probe

import "time"

// Health is the verdict on a container.
type Health string

// The verdicts.
const (
	Unknown   Health = "unknown" // since its start, or since the daemon's
	Healthy   Health = "healthy"
	Unhealthy Health = "unhealthy"
)

// State is what checks have found so far.
type State struct {
	Status       Health
	Since        time.Time // when the status became what it is
	Failures     int       // in a row, those that count
	Successes    int       // in a row
	LastCheck    time.Time // when the last one began
	LastError    string    // what was wrong then, empty if nothing
	ResponseTime time.Duration
}

// Result is what one check has found.
type Result struct {
	Started time.Time     // when the container started
	At      time.Time     // when the check began
	Took    time.Duration // until the answer
	Err     string        // a sentence, empty if the container is well
}

// Next is the state after one more check.
func (c Check) Next(s State, r Result) State {
	c = c.filled()
	s.LastCheck, s.LastError, s.ResponseTime = r.At, r.Err, r.Took
	if r.Err == "" {
		s.Failures, s.Successes = 0, s.Successes+1
		if s.Status != Healthy && s.Successes >= c.SuccessThreshold {
			s.Status, s.Since = Healthy, r.At
		}
		return s
	}
	s.Successes = 0
	if !c.counts(s, r) {
		return s
	}
	s.Failures++
	if s.Status != Unhealthy && s.Failures >= c.FailureThreshold {
		s.Status, s.Since = Unhealthy, r.At
	}
	return s
}

// counts says whether a failure does. As long as nothing is known a container
// is asked at once and more often than its period says (see interval). So of the
// failures in one period only one counts, and none in the first period after the
// start: a program needs a moment until it listens. Nor does one before the
// initial delay is over.
func (c Check) counts(s State, r Result) bool {
	if s.Status != Unknown {
		return true
	}
	periods := time.Duration(s.Failures) * c.Period
	return !r.At.Before(r.Started.Add(max(c.InitialDelay, c.Period)+periods)) && !r.At.Before(s.Since.Add(periods))
}

// soonest is how long a container that has just started is left alone between
// checks at first.
const soonest = 200 * time.Millisecond

// interval is how long after a check that began now the next one does. Until it
// has been well once, a container is asked again after half the time it has been
// waited for: that it is well is known soon, and asking a slow one costs little.
func (c Check) interval(s State, now time.Time) time.Duration {
	c = c.filled()
	if s.Status != Unknown || s.Successes > 0 {
		return c.Period
	}
	return min(max(now.Sub(s.Since)/2, soonest), c.Period)
}

// restart says from when on the container is to be restarted.
func (c Check) restart(s State) (at time.Time, due bool) {
	return s.Since.Add(c.Drain), c.Restart && s.Status == Unhealthy
}
