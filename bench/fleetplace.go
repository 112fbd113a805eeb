package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// What is placed: replicas of so many apps.
const (
	placeApps = 1000
	placeEach = 100
)

// place measures placement alone, in this process, on an empty fleet: for apps
// that are all alike, and for apps of five kinds with constraints.
func place(ctx context.Context, b *bench) error {
	for _, kind := range []struct {
		name string
		spec func(i int) *app.Spec
	}{
		{"plain apps", plainApp},
		{"apps with constraints, affinities, spread, host ports", pickyApp},
	} {
		var took samples
		for range max(b.samples/8, 3) {
			d, err := b.placeOnce(ctx, kind.spec)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			took = append(took, d)
		}
		f := took.figure("placement", fmt.Sprintf("%d replicas of %d %s on %d hosts", placeApps*placeEach, placeApps, kind.name, b.hosts))
		f.Value, f.P95, f.Unit = f.Value/1000, f.P95/1000, "s"
		b.report.add(f.below(f.Value, 10, "< 10 s"))
		rate := placeApps * placeEach / f.Value
		b.report.add(figure{
			Group: "placement", Name: "the same, placements a second", Value: rate, Unit: "1/s", Note: "Nomad publishes 1,500 to 3,750",
		})
	}
	return nil
}

func (b *bench) placeOnce(ctx context.Context, spec func(i int) *app.Spec) (time.Duration, error) {
	nodes := make([]app.Node, b.hosts)
	for i := range nodes {
		id := fmt.Sprintf("edge-%05d", i)
		nodes[i] = app.Node{
			ID: id, Name: id, Open: true, Total: app.Resources{MilliCPU: simCPUs * 1000, Memory: simMemory},
			Attr: map[string]string{"id": id, "name": id, "arch": "amd64", "os": "debian 12", "label.zone": strconv.Itoa(i % 7), "label.cores": strconv.Itoa(i % 64)},
		}
	}
	c := app.NewCluster(nodes)
	specs := make([]*app.Spec, placeApps)
	for i := range specs {
		specs[i] = spec(i)
	}
	runtime.GC()
	began := time.Now()
	for _, s := range specs {
		if got, why := c.Place(s, placeEach, nil); len(got) != placeEach {
			return 0, fmt.Errorf("%d of %d replicas of %s are placed: %v", len(got), placeEach, s.Name, why[0])
		}
	}
	return time.Since(began), ctx.Err()
}

func plainApp(i int) *app.Spec {
	return &app.Spec{
		Name: fmt.Sprintf("app-%04d", i), Kind: app.Service, Ports: []app.Port{{Container: 8080, Proto: "http"}},
		Container: buoy.CreateRequest{Limits: buoy.Limits{MilliCPU: 100, Memory: 64 << 20}},
	}
}

func pickyApp(i int) *app.Spec {
	s := plainApp(i)
	s.Container.Limits = buoy.Limits{MilliCPU: int64(10 + i%200), Memory: int64(16+i%256) << 20}
	p := &s.Placement
	switch i % 5 {
	case 1:
		p.Constraints = []app.Constraint{{Attribute: "label.zone", Op: "in", Values: []string{"1", "2", "3", "4"}}}
	case 2:
		p.Constraints, p.Spread = []app.Constraint{{Attribute: "label.cores", Op: ">=", Values: []string{"16"}}}, "label.zone"
	case 3:
		p.Affinity = []app.Affinity{{Constraint: &app.Constraint{Attribute: "label.zone", Op: "=", Values: []string{"5"}}, Weight: 50}}
		p.MaxPerHost = 2
	case 4:
		s.Ports[0].Host, p.Strategy = uint16(8000+i), app.BinPack
	}
	return s
}
