package node

import (
	"context"
	"testing"
)

// Whatever becomes of a container, who waits for a change is told.
func TestChanged(t *testing.T) {
	n, _ := newNode(t)
	standby := n.spec("b")
	standby.Standby = true
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"create", func(ctx context.Context) error { return n.Create(ctx, n.spec("a")) }},
		{"stop", func(ctx context.Context) error { return n.Stop(ctx, "a") }},
		{"start", func(ctx context.Context) error { return n.Start(ctx, "a") }},
		{"delete", func(ctx context.Context) error { return n.Delete(ctx, "a") }},
		{"create a standby", func(ctx context.Context) error { return n.Create(ctx, standby) }},
		{"release it", func(ctx context.Context) error { return n.Start(ctx, "b") }},
		{"delete it", func(ctx context.Context) error { return n.Delete(ctx, "b") }},
	} {
		changed := n.Changed()
		if err := step.do(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Errorf("%s: nobody is told", step.what)
		}
	}
	bad := n.spec("c")
	bad.Image = "/no/such/dir"
	changed := n.Changed()
	if err := n.Create(t.Context(), bad); err == nil {
		t.Error("created")
	}
	<-changed // it was there for a moment
}
