package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

func testEmpty(t *testing.T, b *bench) {
	b.check(t, app.State{})
	if events, total := b.events(t, app.EventQuery{}); len(events) != 0 || total != 0 {
		t.Errorf("a new store has %d of %d events", len(events), total)
	}
}

func testRoundTrip(t *testing.T, b *bench) {
	want := app.State{
		Apps:     []app.App{anApp("web"), anApp("db"), {Name: "bare"}},
		Replicas: []app.Replica{aReplica("r1"), aReplica("r2"), {ID: "bare"}},
		Hosts:    []app.Host{aHost("h1"), aHost("h2"), {ID: "bare"}},
		Settings: map[string][]byte{"tokens": []byte(`{"a":1}`), "binary": {0, 1, 0xff}},
	}
	b.commit(t, app.Change{Apps: want.Apps, Replicas: want.Replicas, Hosts: want.Hosts, Settings: want.Settings})
	b.check(t, want)

	// What is measured is not kept.
	h, r := aHost("h1"), aReplica("r1")
	h.Report, h.Seen, h.Linked = app.Report{Boot: "b", Seq: 4, Containers: []app.Container{{Name: "c"}}}, moment, true
	r.Seen, r.Well = app.Container{Name: "c"}, moment
	b.commit(t, app.Change{Hosts: []app.Host{h}, Replicas: []app.Replica{r}})
	b.check(t, want)
}

func testPutAgain(t *testing.T, b *bench) {
	a, r, h := anApp("web"), aReplica("r1"), aHost("h1")
	b.commit(t, app.Change{
		Apps: []app.App{a, anApp("db")}, Replicas: []app.Replica{r, aReplica("r2")}, Hosts: []app.Host{h, aHost("h2")},
		Settings: map[string][]byte{"a": []byte("1"), "b": []byte("2")},
	})
	a.Replicas, r.Phase, h.Mode = 8, app.Ended, app.Pause
	a.Revisions = a.Revisions[1:]
	change := app.Change{Apps: []app.App{a}, Replicas: []app.Replica{r}, Hosts: []app.Host{h}, Settings: map[string][]byte{"a": []byte("3")}}
	b.commit(t, change)
	b.commit(t, change)
	// Of several in one change, the last holds.
	first := r
	first.Phase, r.Phase = app.Failed, app.Starting
	b.commit(t, app.Change{Replicas: []app.Replica{first, r}})
	b.check(t, app.State{
		Apps: []app.App{a, anApp("db")}, Replicas: []app.Replica{r, aReplica("r2")}, Hosts: []app.Host{h, aHost("h2")},
		Settings: map[string][]byte{"a": []byte("3"), "b": []byte("2")},
	})
}

func testDrop(t *testing.T, b *bench) {
	b.commit(t, app.Change{
		Apps: []app.App{anApp("web"), anApp("db")}, Replicas: []app.Replica{aReplica("r1"), aReplica("r2")}, Hosts: []app.Host{aHost("h1"), aHost("h2")},
		Events: []app.Event{anEvent(1)},
	})
	drop := app.Change{DropApps: []string{"web", "never"}, DropReplicas: []string{"r1", "never"}, DropHosts: []string{"h1", "never"}}
	b.commit(t, drop)
	b.commit(t, drop)
	b.check(t, app.State{Apps: []app.App{anApp("db")}, Replicas: []app.Replica{aReplica("r2")}, Hosts: []app.Host{aHost("h2")}})
	if events, total := b.events(t, app.EventQuery{App: "web"}); len(events) != 1 || total != 1 {
		t.Errorf("%d of %d events of an app that is gone, want its 1", len(events), total)
	}
	// What is gone may come again.
	b.commit(t, app.Change{Apps: []app.App{anApp("web")}, DropApps: []string{"db"}, DropReplicas: []string{"r2"}, DropHosts: []string{"h2"}})
	b.check(t, app.State{Apps: []app.App{anApp("web")}})
}

func testSettings(t *testing.T, b *bench) {
	b.commit(t, app.Change{Settings: map[string][]byte{"a": []byte("1"), "empty": {}, "b": []byte("2"), "": []byte("3")}})
	b.commit(t, app.Change{Settings: map[string][]byte{"a": nil, "never": nil}})
	b.check(t, app.State{Settings: map[string][]byte{"empty": {}, "b": []byte("2"), "": []byte("3")}})
	st, err := b.Load(t.Context())
	if v, ok := st.Settings["empty"]; err != nil || !ok || v == nil {
		t.Errorf("an empty setting = %#v, %v, %v; want it there, and not nil", v, ok, err)
	}
}

func testEmptyChange(t *testing.T, b *bench) {
	b.commit(t, app.Change{})
	b.commit(t, app.Change{Apps: []app.App{}, Settings: map[string][]byte{}, DropHosts: []string{}, Events: []app.Event{}})
	b.check(t, app.State{})
}

// A part that cannot be kept, and nothing of the change is.
func testRefused(t *testing.T, b *bench) {
	b.commit(t, app.Change{Apps: []app.App{anApp("web")}, Events: []app.Event{anEvent(1)}})
	bad := app.Change{
		Apps: []app.App{anApp("db")}, DropApps: []string{"web"}, Settings: map[string][]byte{"a": []byte("1")},
		Events: []app.Event{anEvent(2), {Type: app.Life, Message: "x", Details: map[string]any{"f": func() {}}}},
	}
	if err := b.Commit(t.Context(), bad); !errors.Is(err, errs.Invalid) {
		t.Errorf("Commit of what cannot be kept = %v, want Invalid", err)
	}
	if bad.Events[0].ID != 0 {
		t.Errorf("an event that was not kept has id %d", bad.Events[0].ID)
	}
	b.check(t, app.State{Apps: []app.App{anApp("web")}})
	if _, total := b.events(t, app.EventQuery{}); total != 1 {
		t.Errorf("%d events, want 1", total)
	}
}

func testCancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Commit(ctx, app.Change{Apps: []app.App{anApp("web")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit for nobody = %v, want Canceled", err)
	}
	if _, err := b.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Load for nobody = %v, want Canceled", err)
	}
	if _, _, err := b.Events(ctx, app.EventQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Events for nobody = %v, want Canceled", err)
	}
	b.check(t, app.State{})
	b.commit(t, app.Change{Apps: []app.App{anApp("web")}})
	b.check(t, app.State{Apps: []app.App{anApp("web")}})
}

func testAtOnce(t *testing.T, b *bench) {
	const writers, each = 20, 10
	var want app.State
	changes := make([][]app.Change, writers)
	for i := range changes {
		for j := range each {
			r := aReplica(fmt.Sprintf("%d.%d", i, j))
			want.Replicas = append(want.Replicas, r)
			changes[i] = append(changes[i], app.Change{
				Replicas: []app.Replica{r}, DropReplicas: []string{fmt.Sprintf("%d.%d.never", i, j)},
				Events: []app.Event{anEvent(i), anEvent(j)},
			})
		}
	}
	var wg sync.WaitGroup
	for _, mine := range changes {
		wg.Go(func() {
			for _, c := range mine {
				if err := b.Commit(t.Context(), c); err != nil {
					t.Error(err)
				}
				if _, _, err := b.Events(t.Context(), app.EventQuery{App: "web"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var ids []int64
	for _, mine := range changes {
		last := int64(0)
		for _, c := range mine {
			for _, e := range c.Events {
				if e.ID <= last {
					t.Errorf("an event got id %d after %d of the same writer", e.ID, last)
				}
				last = e.ID
				ids = append(ids, e.ID)
			}
		}
	}
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != writers*each*2 {
		t.Errorf("%d events have %d ids", writers*each*2, n)
	}
	b.check(t, want)
}

func testMany(t *testing.T, b *bench) {
	var want app.State
	for i := range 3000 {
		want.Replicas = append(want.Replicas, aReplica(fmt.Sprint("r", i)))
	}
	for i := range 500 {
		want.Hosts = append(want.Hosts, aHost(fmt.Sprint("h", i)))
	}
	b.commit(t, app.Change{Replicas: want.Replicas, Hosts: want.Hosts})
	var drop []string
	for _, r := range want.Replicas[100:] {
		drop = append(drop, r.ID)
	}
	want.Replicas = want.Replicas[:100]
	b.commit(t, app.Change{DropReplicas: drop})
	b.check(t, want)
}
