package main

import (
	"context"
	"fmt"
	"time"
)

// standby measures how fast a prepared container runs once it is let go.
func standby(ctx context.Context, b *bench) error {
	ways := []struct {
		name string
		let  func(id string) error
	}{
		{"REST start", func(id string) error { return b.inst.client.Start(ctx, id) }},
		{"shim release", func(id string) error { return b.inst.shim.Release(ctx, id) }},
	}
	got := make([]pair, len(ways))
	for n := range b.samples {
		for i, way := range ways {
			id := fmt.Sprintf("standby-%d-%d", n, i)
			s, err := b.release(ctx, id, way.let)
			if derr := b.inst.client.Delete(context.WithoutCancel(ctx), id); err == nil {
				err = derr
			}
			if err != nil {
				return err
			}
			got[i].first, got[i].answer = append(got[i].first, s.first), append(got[i].answer, s.answer)
		}
	}
	for i, way := range ways {
		f := got[i].first.figure("standby", way.name+" → first instruction")
		b.report.add(f.below(f.P95, 1, "p95 < 1 ms"))
		b.report.add(got[i].answer.figure("standby", way.name+" → answer"))
	}
	return nil
}

func (b *bench) release(ctx context.Context, id string, let func(id string) error) (s sample, err error) {
	r := b.sleeper(id)
	r.Standby = true
	if err := b.inst.client.Create(ctx, r); err != nil {
		return s, err
	}
	if err := b.rest(ctx); err != nil {
		return s, err
	}
	begin := now()
	if err := let(id); err != nil {
		return s, err
	}
	s.answer = time.Duration(now() - begin)
	first, err := b.inst.firstOf(ctx, id)
	s.first = time.Duration(first - begin)
	return s, err
}
