package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// many measures how long a machine full of containers takes to come and to go.
func many(ctx context.Context, b *bench) error {
	for _, nics := range [][]buoy.NIC{nil, {defaultNIC}} {
		name := "no NIC"
		if nics != nil {
			name = "default NIC"
		}
		var starts, deletes []figure
		for _, parallel := range []int{1, 2, 4, 8} {
			if err := b.rest(ctx); err != nil {
				return err
			}
			up, err := b.fill(ctx, parallel, func(id string) buoy.CreateRequest { return b.sleeper(id, nics...) })
			if err != nil {
				return errors.Join(err, b.empty(ctx))
			}
			begin := time.Now()
			if err := b.each(ctx, parallel, b.inst.client.Delete); err != nil {
				return err
			}
			down := time.Since(begin)
			line := fmt.Sprintf("%d, %s, parallel %d", b.count, name, parallel)
			f := figure{Group: "many", Name: line + ": all running", Value: up.Seconds(), Unit: "s"}
			starts = append(starts, f.below(f.Value*200/float64(b.count), 3, "≤ 3 s for 200"))
			deletes = append(deletes, figure{Group: "many", Name: line + ": all deleted", Value: down.Seconds(), Unit: "s"})
		}
		for _, f := range append(starts, deletes...) {
			b.report.add(f.against(starts[0].Value, "one after the other"))
		}
	}
	return nil
}

// fill starts count containers and returns when all run.
func (b *bench) fill(ctx context.Context, parallel int, request func(id string) buoy.CreateRequest) (time.Duration, error) {
	begin := time.Now()
	err := b.each(ctx, parallel, func(ctx context.Context, id string) error { return b.inst.client.Create(ctx, request(id)) })
	took := time.Since(begin)
	if err != nil {
		return took, err
	}
	list, err := b.inst.client.Containers(ctx)
	if err != nil {
		return took, err
	}
	running := 0
	for _, c := range list {
		if c.State == "running" {
			running++
		}
	}
	if running != b.count {
		return took, fmt.Errorf("%d of %d containers run", running, b.count)
	}
	return took, nil
}

// empty deletes what fill made.
func (b *bench) empty(ctx context.Context) error {
	return b.each(context.WithoutCancel(ctx), 8, b.inst.client.Delete)
}

// each calls f with the names of all containers, so many at once.
func (b *bench) each(ctx context.Context, parallel int, f func(ctx context.Context, id string) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for n := range b.count {
		g.Go(func() error { return f(ctx, fmt.Sprintf("many-%d", n)) })
	}
	return g.Wait()
}
