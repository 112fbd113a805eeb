// Package storetest is the contract of app.Store as a test.
package storetest

import (
	"cmp"
	"io"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/app"
)

// Opener opens the store that is in dir, which is empty at first. Opening
// again is with the same dir; what was opened before has then been closed if
// it is an io.Closer.
type Opener func(t *testing.T, dir string) app.Store

// Run tests the stores that open opens.
func Run(t *testing.T, open func(t *testing.T, dir string) app.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, b *bench)
	}{
		{"empty", testEmpty},
		{"round trip", testRoundTrip},
		{"put again", testPutAgain},
		{"drop", testDrop},
		{"settings", testSettings},
		{"empty change", testEmptyChange},
		{"refused change", testRefused},
		{"cancelled", testCancelled},
		{"at once", testAtOnce},
		{"many", testMany},
		{"event", testEvent},
		{"event ids", testEventIDs},
		{"event queries", testEventQueries},
		{"event bound", testEventBound},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{open: open, dir: t.TempDir()}
			b.reopen(t)
			t.Cleanup(func() { b.close(t) })
			c.test(t, b)
		})
	}
}

// bench is what a test works on.
type bench struct {
	app.Store
	open Opener
	dir  string
}

func (b *bench) close(t *testing.T) {
	t.Helper()
	if c, ok := b.Store.(io.Closer); ok {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func (b *bench) reopen(t *testing.T) {
	t.Helper()
	b.close(t)
	b.Store = b.open(t, b.dir)
}

func (b *bench) commit(t *testing.T, c app.Change) {
	t.Helper()
	if err := b.Commit(t.Context(), c); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func (b *bench) events(t *testing.T, q app.EventQuery) ([]app.Event, int) {
	t.Helper()
	events, total, err := b.Events(t.Context(), q)
	if err != nil {
		t.Fatalf("Events(%+v): %v", q, err)
	}
	return events, total
}

// check wants Load to answer what is in want, before and after reopening.
func (b *bench) check(t *testing.T, want app.State) {
	t.Helper()
	for _, when := range []string{"", " after reopening"} {
		got, err := b.Load(t.Context())
		if err != nil {
			t.Fatalf("Load%s: %v", when, err)
		}
		if diff := diff(want, got); diff != "" {
			t.Errorf("Load%s (-want +got):\n%s", when, diff)
		}
		if when == "" {
			b.reopen(t)
		}
	}
}

// diff compares without regard to order. Nil and empty are the same.
func diff(want, got app.State) string {
	return gocmp.Diff(sorted(want), sorted(got), cmpopts.EquateEmpty(),
		gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

func sorted(s app.State) app.State {
	s.Apps = slices.SortedFunc(slices.Values(s.Apps), func(a, b app.App) int { return cmp.Compare(a.Name, b.Name) })
	s.Replicas = slices.SortedFunc(slices.Values(s.Replicas), func(a, b app.Replica) int { return cmp.Compare(a.ID, b.ID) })
	s.Hosts = slices.SortedFunc(slices.Values(s.Hosts), func(a, b app.Host) int { return cmp.Compare(a.ID, b.ID) })
	return s
}
