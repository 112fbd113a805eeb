package container

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Policy says when a container that has ended starts again, in docker's words.
type Policy string

// The policies.
const (
	RestartNo            Policy = "no"             // never; so the zero value, but for the boot: see node
	RestartOnFailure     Policy = "on-failure"     // when it failed, MaxRetries times
	RestartAlways        Policy = "always"         // and at boot even if a person stopped it
	RestartUnlessStopped Policy = "unless-stopped" // and at boot unless a person stopped it
)

// Restart is a restart policy as docker documents it:
//
//	                 ends well   fails      a person stops it   boot, it ran   boot, a person had stopped it
//	no               -           -          -                   -              -
//	on-failure[:N]   -           restarts   -                   -              -
//	always           restarts    restarts   -                   starts         starts
//	unless-stopped   restarts    restarts   -                   starts         -
type Restart struct {
	Policy     Policy `json:"policy,omitempty"`
	MaxRetries int    `json:"maxRetries,omitempty"` // on-failure only; 0: no limit
}

// Back-off as in docker: 100 ms, doubling to a minute, from the start again
// after a run of ten seconds.
const (
	backoffMin   = 100 * time.Millisecond
	backoffMax   = time.Minute
	backoffReset = 10 * time.Second
)

// ParseRestart reads "no", "on-failure", "on-failure:N", "always" or
// "unless-stopped"; empty is "no".
func ParseRestart(s string) (Restart, error) {
	name, count, counted := strings.Cut(s, ":")
	r := Restart{Policy: Policy(name)}
	if name == "" {
		r.Policy = RestartNo
	}
	if counted {
		n, err := strconv.ParseUint(count, 10, 31)
		if err != nil || name == "" {
			return Restart{}, errs.E(errs.Invalid, "restart policy %q: after the colon stands a number of retries", s)
		}
		if r.Policy != RestartOnFailure {
			return Restart{}, errs.E(errs.Invalid, "restart policy %q: only on-failure takes a number of retries", s)
		}
		r.MaxRetries = int(n)
	}
	return r, r.Validate()
}

// Validate says what is wrong with r.
func (r Restart) Validate() error {
	switch r.Policy {
	case "", RestartNo, RestartAlways, RestartUnlessStopped:
		if r.MaxRetries != 0 {
			return errs.E(errs.Invalid, "restart policy %q: only on-failure takes a number of retries", r.Policy)
		}
	case RestartOnFailure:
		if r.MaxRetries < 0 {
			return errs.E(errs.Invalid, "restart policy %q: %d retries", r.Policy, r.MaxRetries)
		}
	default:
		return errs.E(errs.Invalid, "restart policy %q: not one of no, on-failure[:N], always, unless-stopped", r.Policy)
	}
	return nil
}

// String is what ParseRestart reads.
func (r Restart) String() string {
	switch {
	case r.Policy == "":
		return string(RestartNo)
	case r.MaxRetries > 0:
		return fmt.Sprintf("%s:%d", r.Policy, r.MaxRetries)
	}
	return string(r.Policy)
}

// History is what must be remembered of a container, across reboots too. A
// start by a person or by AtBoot begins a new one: History{Started: now}; one by
// a Decision goes on with Decision.History and sets Started. A stop by a person
// sets Stopped.
type History struct {
	Started time.Time `json:"started,omitzero"`  // of the present or last run
	Retries int       `json:"retries,omitempty"` // restarts so far; good runs do not reset it (docker)
	Quick   int       `json:"quick,omitempty"`   // restarts in a row after runs shorter than ten seconds
	Stopped bool      `json:"stopped,omitempty"` // by a person
}

// ExitInfo is how a run ended.
type ExitInfo = shimapi.Exit

// Decision is what to do about a container that has ended.
type Decision struct {
	Restart bool
	After   time.Duration // from now, when Restart
	Reason  string        // for a person
	History History       // to be remembered, when Restart
}

// Next decides what follows the end of a run.
func (r Restart) Next(h History, exit ExitInfo, now time.Time) Decision {
	ended := exit.At
	if ended.IsZero() || ended.After(now) {
		ended = now
	}
	how, failed := ending(exit)
	if h.Stopped {
		return Decision{Reason: how + ", stopped by request"}
	}
	switch r.Policy {
	case RestartAlways, RestartUnlessStopped:
	case RestartOnFailure:
		if !failed {
			return Decision{Reason: how + ", which is no failure"}
		}
		if r.MaxRetries > 0 && h.Retries >= r.MaxRetries {
			return Decision{Reason: fmt.Sprintf("%s; gave up after %d of %d retries", how, h.Retries, r.MaxRetries)}
		}
	case RestartNo:
		return Decision{Reason: how + `; by its restart policy, "no", it is not started again`}
	default:
		return Decision{Reason: how + "; there is no restart policy"}
	}
	then := h
	if !h.Started.IsZero() && ended.Sub(h.Started) >= backoffReset {
		then.Quick = 0
	}
	wait := backoff(then.Quick)
	then.Quick++
	then.Retries++
	// What has passed since the end, while nobody looked, counts.
	after := max(wait-now.Sub(ended), 0)
	return Decision{Restart: true, After: after, Reason: fmt.Sprintf("%s; restart %d after %s", how, then.Retries, wait), History: then}
}

// AtBoot says whether a container that has no process starts when the machine,
// or the daemon after its absence, does. An end that happened meanwhile and is
// known goes to Next instead.
func (r Restart) AtBoot(h History) bool {
	switch r.Policy {
	case RestartAlways:
		return true
	case RestartUnlessStopped:
		return !h.Stopped
	case RestartNo, RestartOnFailure:
	}
	return false
}

// ending says how a run ended and whether that is a failure. The kernel may kill
// a child for memory and leave the first process to end with 0: still a failure.
func ending(e ExitInfo) (how string, failed bool) {
	switch {
	case e.OOM:
		return "ran out of memory", true
	case e.Lost:
		return "ended unseen", true
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d", e.Signal), true
	}
	return fmt.Sprintf("exited with code %d", e.Code), e.Code != 0
}

// backoff is the wait before a restart that follows n quick ones.
func backoff(n int) time.Duration {
	return min(backoffMin<<min(max(n, 0), 16), backoffMax) // 100 ms << 16 is well above the bound
}
