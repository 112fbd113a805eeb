package node

import (
	"context"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// TestSettleUnlisted: whoever waits for the end of a command hears of it, also
// when the command has gone with its container while nobody listened.
func TestSettleUnlisted(t *testing.T) {
	n, shim := runNode(t)
	await := func(job string, started bool) <-chan shimapi.Exit {
		ended := n.await("a", job)
		if started {
			n.awaitStarted(job)
		}
		return ended
	}
	there, ended := await("exec-there", true), await("exec-ended", true)
	gone, late, starting := await("exec-gone", true), await("exec-late", true), await("exec-starting", false)
	shim.mu.Lock()
	shim.list = []shimapi.Container{{ID: "a", Jobs: []shimapi.Job{{Job: "exec-late"}, {Job: "exec-there"}}}} // as it is by now
	shim.mu.Unlock()
	n.settleUnlisted(t.Context(), []shimapi.Container{{ID: "a", Jobs: []shimapi.Job{{Job: "exec-there"}, {Job: "exec-ended", Exit: &shimapi.Exit{Code: 3}}}}})
	if e := <-ended; e.Code != 3 || e.Lost {
		t.Errorf("one that has ended: %+v", e)
	}
	if e := <-gone; !e.Lost {
		t.Errorf("one that has gone: %+v", e)
	}
	for name, c := range map[string]<-chan shimapi.Exit{"there": there, "late": late, "starting": starting} {
		select {
		case e := <-c:
			t.Errorf("%s: %+v", name, e)
		default:
		}
	}
}

// TestEndUnlisted: a command without a client is told that it is, and killed
// when it does not mind.
func TestEndUnlisted(t *testing.T) {
	n, shim := runNode(t)
	signals := make(chan int, 4)
	shim.signalled = func(r shimapi.SignalRequest) error { signals <- r.Signal; return nil }
	n.settleUnlisted(t.Context(), []shimapi.Container{{ID: "a", Jobs: []shimapi.Job{{Job: "exec-old"}, {Job: "somebody's"}}}})
	began := time.Now()
	for _, want := range []int{1, 9} {
		if got := <-signals; got != want {
			t.Errorf("signal %d, want %d", got, want)
		}
	}
	if grace := time.Since(began); grace < hangUpGrace/2 {
		t.Errorf("it had %v to end", grace)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.endUnlisted(ctx, "a", "exec-old")
	select {
	case got := <-signals:
		if got != 1 {
			t.Errorf("signal %d by a daemon that ends", got)
		}
	default:
	}
}
