package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// block is how many starts of one kind follow each other back to back.
const block = 10

// startLatency measures single starts: isolated ones in random order, and
// blocks of one kind back to back.
func startLatency(ctx context.Context, b *bench) error {
	all := append([]starter{
		b.ours("buoy, directory, no NIC", func(id string) buoy.CreateRequest { return b.sleeper(id) }),
		b.ours("buoy, directory, default NIC", func(id string) buoy.CreateRequest { return b.sleeper(id, defaultNIC) }),
		b.ours("buoy, image, no NIC", func(id string) buoy.CreateRequest { return b.fromImage(id) }),
		b.ours("buoy, image, default NIC", func(id string) buoy.CreateRequest { return b.fromImage(id, defaultNIC) }),
	}, b.peers...)
	for _, s := range all { // the first of each unpacks, compiles, makes the bridge
		if _, err := b.once(ctx, s); err != nil {
			return err
		}
	}
	isolated := map[string]*pair{}
	for round := range b.samples {
		for _, i := range rand.Perm(len(all)) {
			s := all[i]
			if round%s.every != 0 {
				continue
			}
			if err := b.rest(ctx); err != nil {
				return err
			}
			if err := b.take(ctx, s, isolated); err != nil {
				return err
			}
		}
	}
	b.present("isolated start", all, isolated, true)
	burst := map[string]*pair{}
	for range (b.samples + block - 1) / block {
		for _, i := range rand.Perm(len(all)) {
			s := all[i]
			if err := b.rest(ctx); err != nil {
				return err
			}
			for range block / s.every {
				if err := b.take(ctx, s, burst); err != nil {
					return err
				}
			}
		}
	}
	b.present("back to back start", all, burst, false)
	return nil
}

func (b *bench) fromImage(name string, nics ...buoy.NIC) buoy.CreateRequest {
	r := b.sleeper(name, nics...)
	r.Flist = b.image
	return r
}

// pair is what was measured of a starter.
type pair struct{ first, answer samples }

func (b *bench) take(ctx context.Context, s starter, into map[string]*pair) error {
	got, err := b.once(ctx, s)
	if err != nil {
		return err
	}
	p := into[s.name]
	if p == nil {
		p = &pair{}
		into[s.name] = p
	}
	p.first, p.answer = append(p.first, got.first), append(p.answer, got.answer)
	return nil
}

// once starts and removes a container.
func (b *bench) once(ctx context.Context, s starter) (sample, error) {
	const id = "start"
	got, err := s.start(ctx, id)
	if rerr := s.remove(ctx, id); err == nil {
		err = rerr
	}
	if err != nil {
		return got, fmt.Errorf("%s: %w", s.name, err)
	}
	return got, nil
}

// present adds the figures of all starters, with the ratio to the newest runc.
func (b *bench) present(group string, all []starter, got map[string]*pair, bars bool) {
	reference := ""
	for _, s := range b.peers {
		if reference == "" && strings.HasPrefix(s.name, "runc") {
			reference = s.name
		}
	}
	base := got[reference]
	if base == nil {
		base = &pair{}
	}
	for _, s := range all {
		p := got[s.name]
		mine := strings.HasPrefix(s.name, "buoy")
		f := p.first.figure(group+", first instruction", s.name).against(base.first.ms(0.5), reference)
		if mine && f.Ratio > 0 {
			f = f.below(f.Ratio, 0.5, "≤ 0.50, then 0.25")
		}
		b.report.add(f)
		a := p.answer.figure(group+", answer", s.name).against(base.answer.ms(0.5), reference)
		if mine && a.Ratio > 0 {
			a = a.below(a.Ratio, 0.5, "≤ 0.50, then 0.25")
		}
		b.report.add(a)
	}
	if !bars {
		return
	}
	for _, kind := range []string{"directory", "image"} {
		with, without := got["buoy, "+kind+", default NIC"], got["buoy, "+kind+", no NIC"]
		extra := with.first.ms(0.5) - without.first.ms(0.5)
		f := figure{Group: "default NIC", Name: "more than no NIC, " + kind, Value: extra, N: len(with.first), Unit: "ms"}
		b.report.add(f.below(extra, 5, "≤ 5 ms"))
	}
}
