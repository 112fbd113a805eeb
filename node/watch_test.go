package node

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/buoy-edge/buoy/node/state"
)

// Who waits for a container has no slot: those who have the container wait for
// one, at boot all of them.
func TestReassertWaitsWithoutSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{boxes: map[string]*box{}, slots: make(chan struct{}, 1)}
		b := newBox(Spec{Name: "a"}, state.Record{})
		n.boxes["a"] = b
		if err := b.lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go n.reassert(ctx, b)
		synctest.Wait()
		if len(n.slots) > 0 {
			t.Error("it keeps a slot from who has the container")
		}
		b.unlock()
		synctest.Wait()
		if len(n.slots) > 0 || len(b.busy) > 0 {
			t.Error("it keeps what it had")
		}
	})
}

// What an update may go back to is nobody else's meanwhile.
func TestUpdateKeepsWhatItMayNeed(t *testing.T) {
	old := promise{spec: Spec{Name: "a"}, given: []given{{Key: bridgeKey("lab")}}}
	n := &Node{boxes: map[string]*box{}}
	b := newBox(Spec{Name: "a"}, state.Record{})
	n.boxes["a"] = b
	for _, c := range []struct {
		fallback *promise
		want     string
	}{{nil, ""}, {&old, "a"}} {
		b.fallback = c.fallback
		if got := n.userOf(bridgeKey("lab")); got != c.want {
			t.Errorf("%v: the bridge is used by %q, want %q", c.fallback, got, c.want)
		}
	}
}
