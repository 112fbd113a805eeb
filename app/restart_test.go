package app

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestartsTold: what a host starts again by itself is told at once, and then
// once a minute, with none left out and none twice, also by another controller.
func TestRestartsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer func() { r.stop() }()
		r.apply(webSpec(1))
		r.until("runs", ready(1))
		h := r.hosts["h1"]
		again := func(set func(c *Container)) {
			h.set(func() {
				for _, c := range h.have {
					set(c)
				}
			})
			h.poke <- struct{}{}
			think()
		}
		told := func() (n, restarts int) {
			events, _, err := r.Events(t.Context(), EventQuery{App: "web", Type: Trouble})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Replica == "" || e.Host != "h1" || e.Details["exit_code"] != 3 || !strings.HasPrefix(e.Message, "Replica web-1 on host h1 was restarted ") {
					t.Errorf("event %+v", e)
				}
				restarts += e.Details["count"].(int)
			}
			return len(events), restarts
		}
		crash := func(c *Container) { c.Restarts++; c.ExitCode = 3 }
		again(crash)
		if n, restarts := told(); n != 1 || restarts != 1 {
			t.Errorf("after the first: %d events of %d restarts", n, restarts)
		}
		for i := range 299 {
			time.Sleep(time.Second - 2*batch)
			again(crash)
			if i == 200 {
				r.stop()
				r.run("h1")
			}
		}
		if n, _ := told(); n < 5 || n > 6 {
			t.Errorf("%d events in five minutes", n)
		}
		time.Sleep(2 * time.Minute)
		before, restarts := told()
		if restarts != 300 {
			t.Errorf("events speak of %d restarts, there were 300", restarts)
		}
		again(func(c *Container) { c.Restarts = 0 }) // started by a person
		again(crash)
		if n, restarts := told(); n != before+1 || restarts != 301 {
			t.Errorf("counted anew: %d events of %d restarts, before that %d of 300", n, restarts, before)
		}
	})
}
