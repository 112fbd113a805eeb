package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app"
)

func testEvent(t *testing.T, b *bench) {
	want := []app.Event{
		{Type: app.Trouble, Message: "no time, nothing"},
		{
			Time: moment, Type: app.HealthOf, App: "web", Host: "h1", Replica: "r1", Message: "a <sentence> \x00 \"ü\"",
			Details: map[string]any{"n": 1.5, "s": "x", "list": []any{true, nil}, "map": map[string]any{"a": "b"}},
		},
	}
	given := slices.Clone(want)
	given[1].ID = 99 // the store says
	b.commit(t, app.Change{Events: given})
	for i := range want {
		want[i].ID = given[i].ID
		if given[i].ID <= 0 || i > 0 && given[i].ID <= given[i-1].ID {
			t.Errorf("ids are %d after %d, want them above 0 and to rise", given[i].ID, given[max(0, i-1)].ID)
		}
	}
	slices.Reverse(want)
	for range 2 {
		got, total := b.events(t, app.EventQuery{})
		if diff := gocmp.Diff(want, got); diff != "" || total != 2 {
			t.Errorf("Events, total %d (-want +got):\n%s", total, diff)
		}
		b.reopen(t)
	}
}

// Ids rise over changes, failures and reopening.
func testEventIDs(t *testing.T, b *bench) {
	last := int64(0)
	for round := range 6 {
		c := app.Change{Events: []app.Event{anEvent(round), anEvent(round), anEvent(round)}}
		bad := app.Change{Events: []app.Event{anEvent(0), {Details: map[string]any{"f": func() {}}}}}
		if err := b.Commit(t.Context(), bad); err == nil {
			t.Error("Commit of what cannot be kept worked")
		}
		b.commit(t, c)
		for _, e := range c.Events {
			if e.ID <= last {
				t.Errorf("round %d: id %d after %d", round, e.ID, last)
			}
			last = e.ID
		}
		if round%2 == 1 {
			b.reopen(t)
		}
	}
	got, total := b.events(t, app.EventQuery{})
	if len(got) != 18 || total != 18 || !slices.IsSortedFunc(got, func(a, b app.Event) int { return int(b.ID - a.ID) }) {
		t.Errorf("%d of %d events, want all 18, the newest first", len(got), total)
	}
}

func testEventQueries(t *testing.T, b *bench) {
	var all []app.Event
	for i := range 240 {
		e := anEvent(i)
		e.App = []string{"", "web", "db"}[i%3]
		e.Host = []string{"", "h1", "h2", "h3"}[i%4]
		e.Type = []app.EventType{app.Life, app.OfHost, app.Rescale, "config", app.Trouble}[i%5]
		if i%7 == 0 {
			e.Time = moment.Add(-time.Hour) // the clock was set: times need not rise with ids
		}
		all = append(all, e)
	}
	b.commit(t, app.Change{Events: all[:100]})
	b.commit(t, app.Change{Events: all[100:]})
	middle := moment.Add(120 * time.Second)
	for _, q := range []app.EventQuery{
		{},
		{Limit: 1},
		{Limit: 7},
		{Limit: 240},
		{Limit: 1000},
		{App: "web"},
		{App: "web", Limit: 3},
		{App: "nobody"},
		{Host: "h2"},
		{Type: "config"},
		{Type: "no such"},
		{Since: middle, Limit: 500},
		{Since: moment.Add(-time.Minute), Limit: 500},
		{Since: moment.Add(time.Hour)},
		{After: all[200].ID},
		{After: all[100].ID, Limit: 5},
		{After: all[239].ID},
		{App: "web", Host: "h1", Limit: 500},
		{App: "db", Type: app.Life},
		{Host: "h3", Type: app.Rescale, Since: middle},
		{App: "web", Host: "h1", Type: app.OfHost, Since: moment, After: all[10].ID, Limit: 2},
	} {
		want, wantTotal := query(all, q)
		got, total := b.events(t, q)
		if diff := gocmp.Diff(want, got); diff != "" || total != wantTotal {
			t.Errorf("Events(%+v): total %d, want %d (-want +got):\n%s", q, total, wantTotal, diff)
		}
	}
}

// query is what Events should answer.
func query(all []app.Event, q app.EventQuery) (found []app.Event, total int) {
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	for _, e := range slices.Backward(all) {
		if q.App != "" && e.App != q.App || q.Host != "" && e.Host != q.Host || q.Type != "" && e.Type != q.Type ||
			e.Time.Before(q.Since) || e.ID <= q.After {
			continue
		}
		if total++; total <= limit {
			found = append(found, e)
		}
	}
	return found, total
}

// What is kept of events are the newest, of each app too, however many another app has.
func testEventBound(t *testing.T, b *bench) {
	const rounds, batch = 30, 1000
	var quiet, noisy []int64
	for round := range rounds {
		c := app.Change{Events: make([]app.Event, batch)}
		for i := range c.Events {
			c.Events[i] = anEvent(round)
			c.Events[i].App = fmt.Sprint("noisy", round%3)
		}
		c.Events[500].App = "quiet"
		b.commit(t, c)
		quiet = append(quiet, c.Events[500].ID)
		for _, e := range c.Events {
			if e.App == "noisy0" {
				noisy = append(noisy, e.ID)
			}
		}
	}
	if _, total := b.events(t, app.EventQuery{}); total >= rounds*batch {
		t.Errorf("all of %d events are kept, want a bound", total)
	}
	for name, ids := range map[string][]int64{"quiet": quiet, "noisy0": noisy} {
		got, total := b.events(t, app.EventQuery{App: name, Limit: rounds * batch})
		if total != len(got) || total < rounds {
			t.Fatalf("%d of %d events of %s, want at least %d", len(got), total, name, rounds)
		}
		slices.Reverse(got)
		for i, id := range ids[len(ids)-len(got):] {
			if got[i].ID != id {
				t.Fatalf("event %d of the %d of %s is %d, want %d: only the oldest are forgotten", i, len(got), name, got[i].ID, id)
			}
		}
	}
	b.reopen(t)
	c := app.Change{Events: []app.Event{anEvent(1)}}
	if b.commit(t, c); c.Events[0].ID <= noisy[len(noisy)-1] {
		t.Errorf("id %d after %d", c.Events[0].ID, noisy[len(noisy)-1])
	}
}
