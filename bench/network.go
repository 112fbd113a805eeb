package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/netcfg"
)

// network measures what the network of containers costs: beside a bridge made
// by hand, and beside the reference CNI plugin. All of it is in namespaces of
// its own; buoyd has no part in it.
func network(ctx context.Context, b *bench) (err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	dir := filepath.Join(b.dir, "network")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	maker, err := newLANMaker(dir, &undo)
	if err != nil {
		return err
	}
	for i, filtered := range []bool{false, true} {
		ours, err := maker.ours(ctx, fmt.Sprint("bench", i), filtered)
		if err != nil {
			return err
		}
		plain, err := maker.plain(ctx, filtered, false)
		if err != nil {
			return err
		}
		tracked, err := maker.plain(ctx, filtered, true)
		if err != nil {
			return err
		}
		if err := b.traffic(ctx, []*lan{plain, ours, tracked}, filtered); err != nil {
			return err
		}
	}
	ours, err := maker.ours(ctx, "bench", false)
	if err != nil {
		return err
	}
	if err := b.nicReady(ctx, ours.net, maker); err != nil {
		return err
	}
	return b.manyNICs(ctx, ours)
}

// reference is what the ratios of traffic are to.
const reference = "a bridge made by hand, without rules"

// traffic measures the machines in turn: without rules, ours, and one with
// nothing but connection tracking, which is most of what NAT costs.
func (b *bench) traffic(ctx context.Context, machines []*lan, filtered bool) error {
	ways := []way{{"container to container", (*lan).within, 0.95}, {"outside to published port", (*lan).inward, 0.9}}
	if filtered {
		ways = []way{{"container to container, br_netfilter", (*lan).within, 0}}
	}
	for _, w := range ways {
		var routes []route
		for _, m := range machines {
			routes = append(routes, w.route(m))
		}
		fast, err := b.inTurn(ctx, b.samples/2, routes, func(r route) (float64, error) { return r.stream(ctx) })
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		small, err := b.inTurn(ctx, b.samples/4, routes, func(r route) (float64, error) { return r.packets(ctx) })
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		trip, err := b.inTurn(ctx, b.samples/4, routes, func(r route) (float64, error) { return r.roundTrip(ctx, 500) })
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		for i, name := range []string{w.name, w.name + ", connection tracking alone"} {
			f := fast.figure("network, one TCP connection", name, "Gbit/s", i+1)
			if i == 0 && w.bar > 0 {
				f = f.above(f.Ratio, w.bar, fmt.Sprintf("≥ %.2f", w.bar))
			}
			b.report.add(f)
			b.report.add(small.figure("network, UDP packets of 64 bytes", name, "1000/s", i+1))
			b.report.add(trip.figure("network, round trip of 64 bytes", name, "µs", i+1))
		}
	}
	return nil
}

// way is one of those that traffic takes; bar 0: none.
type way struct {
	name  string
	route func(*lan) route
	bar   float64
}

// turns are what was measured in each round, of each route.
type turns [][]float64

// inTurn measures all routes in each round, in random order.
func (b *bench) inTurn(ctx context.Context, rounds int, routes []route, measure func(route) (float64, error)) (turns, error) {
	var all turns
	for range max(rounds, 1) {
		if err := b.rest(ctx); err != nil {
			return nil, err
		}
		round := make([]float64, len(routes))
		for _, i := range rand.Perm(len(routes)) {
			var err error
			if round[i], err = measure(routes[i]); err != nil {
				return nil, err
			}
		}
		all = append(all, round)
	}
	return all, nil
}

// figure is that of the i-th route. Its ratio is the median of those within a
// round, which others' work on the machine moves least.
func (t turns) figure(group, name, unit string, i int) figure {
	var values, ratios []float64
	for _, round := range t {
		values, ratios = append(values, round[i]), append(ratios, round[i]/round[0])
	}
	return figure{Group: group, Name: name, Value: median(values), Ratio: median(ratios), Of: reference, N: len(t), Unit: unit}
}

// nicReady measures how long a start waits for its NIC.
func (b *bench) nicReady(ctx context.Context, n *netcfg.Net, maker *lanMaker) error {
	host, err := maker.ns(ctx)
	if err != nil {
		return err
	}
	if err := sh(ctx, host, "ip link set lo up"); err != nil {
		return err
	}
	cni, err := findCNI(host, maker.dir)
	if err != nil {
		b.report.NotRun = append(b.report.NotRun, err.Error())
	}
	var netns, attach, add samples
	for i := range b.samples {
		if err := b.rest(ctx); err != nil {
			return err
		}
		begin := time.Now()
		ns, err := n.Netns(ctx)
		if err != nil {
			return err
		}
		mid := time.Now()
		err = n.Attach(ctx, ns.Path(), defaultLink(100+i))
		netns, attach = append(netns, mid.Sub(begin)), append(attach, time.Since(mid))
		if err := errors.Join(err, ns.Close()); err != nil {
			return err
		}
		if cni == nil {
			continue
		}
		if err := b.rest(ctx); err != nil {
			return err
		}
		if ns, err = n.Netns(ctx); err != nil {
			return err
		}
		id := fmt.Sprintf("bench-%d", i)
		begin = time.Now()
		err = cni.run(ctx, "ADD", id, ns.Path())
		add = append(add, time.Since(begin))
		err = errors.Join(err, cni.run(context.WithoutCancel(ctx), "DEL", id, ns.Path()), ns.Close())
		if err != nil {
			return err
		}
	}
	const group, peer = "default NIC ready", "CNI bridge with host-local"
	f := attach.figure(group, "buoy, in a namespace of the pool").against(add.ms(0.5), peer)
	if cni != nil {
		f = f.below(f.Ratio, 0.15, "≤ 0.15")
	}
	b.report.add(f)
	b.report.add(netns.figure(group, "buoy, taking the namespace"))
	if cni != nil {
		b.report.add(add.figure(group, peer+", ADD without NAT").against(add.ms(0.5), peer))
	}
	return nil
}

// manyNICs makes as many NICs as there may be containers, and removes them:
// by their namespaces, as containers end, and by Detach.
func (b *bench) manyNICs(ctx context.Context, l *lan) error {
	before, err := l.made(ctx)
	if err != nil {
		return err
	}
	const group = "many NICs"
	for _, way := range []string{"ended", "detached"} {
		var open []*netcfg.Netns
		var took samples
		for i := range b.count {
			ns, err := l.net.Netns(ctx)
			if err != nil {
				return err
			}
			open = append(open, ns)
			begin := time.Now()
			if err := l.net.Attach(ctx, ns.Path(), defaultLink(1000+i)); err != nil {
				return err
			}
			took = append(took, time.Since(begin))
		}
		begin := time.Now()
		for i, ns := range open {
			if way == "detached" {
				err = errors.Join(err, l.net.Detach(ctx, ns.Path(), defaultLink(1000+i)))
			}
			err = errors.Join(err, ns.Close())
		}
		after, lerr := l.made(ctx)
		for lerr == nil && after != before && time.Since(begin) < time.Minute { // the kernel ends namespaces in the background
			time.Sleep(10 * time.Millisecond)
			after, lerr = l.made(ctx)
		}
		gone := time.Since(begin)
		if err := errors.Join(err, lerr); err != nil {
			return err
		}
		if after != before {
			return fmt.Errorf("%d NICs left something: %s, before %s", b.count, after, before)
		}
		q := b.count / 4
		first, last := took[:q].ms(0.5), took[len(took)-q:].ms(0.5)
		f := figure{Group: group, Name: fmt.Sprintf("%d made: one of the last quarter", b.count), Value: last, N: q, Unit: "ms"}
		f = f.against(first, "one of the first quarter")
		b.report.add(f.below(f.Ratio, 1.5, "≤ 1.5: no worse than linear"))
		b.report.add(figure{
			Group: group, Name: fmt.Sprintf("%d %s: all gone", b.count, way), Value: gone.Seconds() * 1000 / float64(b.count), Unit: "ms each",
			Note: "links, routes and rules as before",
		})
	}
	return nil
}

// made counts what there is on the host.
func (l *lan) made(ctx context.Context) (string, error) {
	script := "ip -o link | wc -l; ip -o route show table all | wc -l; ip -o -6 route show table all | wc -l"
	if _, err := exec.LookPath("nft"); err == nil {
		script += "; nft list ruleset | wc -l"
	}
	out, err := inNS(l.host, exec.CommandContext(ctx, "sh", "-ec", script).Output)
	return strings.Join(strings.Fields(string(out)), " "), err
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(v))[len(v)/2]
}
