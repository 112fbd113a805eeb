package container

import (
	"errors"
	"testing"
	"testing/quick"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestParseRestart(t *testing.T) {
	good := map[string]Restart{
		"":               {Policy: RestartNo},
		"no":             {Policy: RestartNo},
		"always":         {Policy: RestartAlways},
		"unless-stopped": {Policy: RestartUnlessStopped},
		"on-failure":     {Policy: RestartOnFailure},
		"on-failure:0":   {Policy: RestartOnFailure},
		"on-failure:5":   {Policy: RestartOnFailure, MaxRetries: 5},
	}
	for s, want := range good {
		got, err := ParseRestart(s)
		if err != nil || got != want {
			t.Errorf("ParseRestart(%q) = %+v, %v, want %+v", s, got, err, want)
		}
		if again, err := ParseRestart(got.String()); err != nil || again != got {
			t.Errorf("ParseRestart(%q) = %+v, %v, want %+v", got.String(), again, err, got)
		}
	}
	for _, s := range []string{
		"Always", "never", " no", "no ", "on_failure", "onfailure", "unless stopped", "on-failure:", "on-failure:-1", "on-failure:+1", "on-failure:x",
		"on-failure:1.5", "on-failure:3:4", "on-failure:99999999999", "always:3", "unless-stopped:1", "no:0", ":", ":3", "true", "always\n",
	} {
		if got, err := ParseRestart(s); !errors.Is(err, errs.Invalid) {
			t.Errorf("ParseRestart(%q) = %+v, %v, want Invalid", s, got, err)
		}
	}
	for _, r := range []Restart{{Policy: "x"}, {Policy: RestartOnFailure, MaxRetries: -1}, {MaxRetries: 1}, {Policy: RestartAlways, MaxRetries: 1}} {
		if err := r.Validate(); !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v.Validate() = %v", r, err)
		}
	}
}

func TestNext(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ran := func(d time.Duration, h History) History { h.Started = now.Add(-d); return h }
	var (
		no, always, unless = Restart{}, Restart{Policy: RestartAlways}, Restart{Policy: RestartUnlessStopped}
		onFailure          = Restart{Policy: RestartOnFailure}
		twice              = Restart{Policy: RestartOnFailure, MaxRetries: 2}
		well, fail         = ExitInfo{}, ExitInfo{Code: 1}
		killed             = ExitInfo{Code: 137, Signal: 9}
		oom                = ExitInfo{Code: 0, OOM: true}
		lost               = ExitInfo{Code: 255, Lost: true}
	)
	tests := []struct {
		name    string
		r       Restart
		h       History
		exit    ExitInfo
		restart bool
		after   time.Duration
		reason  string
	}{
		{"zero policy", no, History{}, fail, false, 0, "exited with code 1; there is no restart policy"},
		{"no", Restart{Policy: RestartNo}, History{}, oom, false, 0, `ran out of memory; by its restart policy, "no", it is not started again`},
		{"unknown policy", Restart{Policy: "x"}, History{}, fail, false, 0, "exited with code 1; there is no restart policy"},
		{"always, ends well", always, History{}, well, true, 100 * time.Millisecond, "exited with code 0; restart 1 after 100ms"},
		{"always, fails", always, History{}, fail, true, 100 * time.Millisecond, "exited with code 1; restart 1 after 100ms"},
		{"always, stopped", always, History{Stopped: true}, killed, false, 0, "killed by signal 9, stopped by request"},
		{"unless-stopped, ends well", unless, History{}, well, true, 100 * time.Millisecond, "exited with code 0; restart 1 after 100ms"},
		{"unless-stopped, stopped", unless, History{Stopped: true}, well, false, 0, "exited with code 0, stopped by request"},
		{"on-failure, ends well", onFailure, History{}, well, false, 0, "exited with code 0, which is no failure"},
		{"on-failure, fails", onFailure, History{Retries: 1000}, fail, true, 100 * time.Millisecond, "exited with code 1; restart 1001 after 100ms"},
		{"on-failure, killed", onFailure, History{}, killed, true, 100 * time.Millisecond, "killed by signal 9; restart 1 after 100ms"},
		{"on-failure, OOM of a child", onFailure, History{}, oom, true, 100 * time.Millisecond, "ran out of memory; restart 1 after 100ms"},
		{"on-failure, unseen", onFailure, History{}, lost, true, 100 * time.Millisecond, "ended unseen; restart 1 after 100ms"},
		{"on-failure, stopped", onFailure, History{Stopped: true}, fail, false, 0, "exited with code 1, stopped by request"},
		{"on-failure:2, second retry", twice, History{Retries: 1, Quick: 1}, fail, true, 200 * time.Millisecond, "exited with code 1; restart 2 after 200ms"},
		{"on-failure:2, spent", twice, History{Retries: 2, Quick: 2}, fail, false, 0, "exited with code 1; gave up after 2 of 2 retries"},
		{"on-failure:2, spent, though the last run was long", twice, ran(time.Hour, History{Retries: 2}), fail, false, 0, "exited with code 1; gave up after 2 of 2 retries"},
		{"back-off grows", always, ran(9*time.Second, History{Retries: 4, Quick: 4}), fail, true, 1600 * time.Millisecond, "exited with code 1; restart 5 after 1.6s"},
		{"back-off is bounded", always, ran(time.Second, History{Retries: 500, Quick: 500}), fail, true, time.Minute, "exited with code 1; restart 501 after 1m0s"},
		{"ten seconds reset it", always, ran(10*time.Second, History{Retries: 7, Quick: 7}), fail, true, 100 * time.Millisecond, "exited with code 1; restart 8 after 100ms"},
		{"clock set back", always, ran(-time.Hour, History{Quick: 2}), fail, true, 400 * time.Millisecond, "exited with code 1; restart 1 after 400ms"},
		{"ended a while ago", always, ran(61*time.Second, History{Quick: 10}), ExitInfo{Code: 1, At: now.Add(-59 * time.Second)}, true, time.Second, "exited with code 1; restart 1 after 1m0s"},
		{"ended long ago", always, History{Quick: 10}, ExitInfo{Code: 1, At: now.Add(-time.Hour)}, true, 0, "exited with code 1; restart 1 after 1m0s"},
		{"ended in the future", always, ran(time.Second, History{}), ExitInfo{At: now.Add(time.Hour)}, true, 100 * time.Millisecond, "exited with code 0; restart 1 after 100ms"},
	}
	for _, tt := range tests {
		got := tt.r.Next(tt.h, tt.exit, now)
		if got.Restart != tt.restart || got.After != tt.after || got.Reason != tt.reason {
			t.Errorf("%s: Next = %+v, want %v %v %q", tt.name, got, tt.restart, tt.after, tt.reason)
		}
		if got.Restart && (got.History.Retries != tt.h.Retries+1 || got.History.Quick < 1) {
			t.Errorf("%s: remembers %+v", tt.name, got.History)
		}
	}
}

// TestReboot walks through docker's documented cases: what runs after a reboot.
func TestReboot(t *testing.T) {
	started := History{Started: time.Unix(1, 0)}
	stopped := History{Started: time.Unix(1, 0), Stopped: true}
	tests := []struct {
		policy          string
		ran, hadStopped bool
	}{
		{"no", false, false},
		{"", false, false},
		{"on-failure", false, false},
		{"on-failure:3", false, false},
		{"always", true, true},
		{"unless-stopped", true, false},
	}
	for _, tt := range tests {
		r, err := ParseRestart(tt.policy)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.AtBoot(started); got != tt.ran {
			t.Errorf("%s: starts at boot after it ran: %v", tt.policy, got)
		}
		if got := r.AtBoot(stopped); got != tt.hadStopped {
			t.Errorf("%s: starts at boot after a person stopped it: %v", tt.policy, got)
		}
	}
}

// TestBackoffProperties plays random lives: the wait never shrinks while runs
// are short, stays within its bounds and begins anew after a long run; retries
// only grow and on-failure:N restarts N times at most.
func TestBackoffProperties(t *testing.T) {
	life := func(runs []uint16, limit uint8) bool {
		now := time.Unix(1_800_000_000, 0)
		always, limited := Restart{Policy: RestartAlways}, Restart{Policy: RestartOnFailure, MaxRetries: int(limit%8) + 1}
		h, g := History{Started: now}, History{Started: now}
		var last time.Duration
		restarts := 0
		for _, ms := range runs {
			run := time.Duration(ms) * time.Millisecond // up to 65 s
			now = now.Add(run)
			d := always.Next(h, ExitInfo{Code: 1, At: now}, now)
			if !d.Restart || d.After < backoffMin || d.After > backoffMax || d.History.Retries != h.Retries+1 {
				return false
			}
			if run >= backoffReset && d.After != backoffMin || run < backoffReset && d.After < last {
				return false
			}
			if limited := limited.Next(g, ExitInfo{Code: 1}, now); limited.Restart {
				g = limited.History
				restarts++
			}
			last, h = d.After, d.History
			now = now.Add(d.After)
			h.Started, g.Started = now, now
		}
		return restarts == min(len(runs), limited.MaxRetries)
	}
	if err := quick.Check(life, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
	for n := -5; n < 200; n++ {
		if a, b := backoff(n), backoff(n+1); a > b || a < backoffMin || b > backoffMax {
			t.Errorf("backoff(%d) = %v, backoff(%d) = %v", n, a, n+1, b)
		}
	}
}
