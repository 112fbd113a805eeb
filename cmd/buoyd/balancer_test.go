package main

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/proxy"
)

// balanced is a balancer with so many apps and replicas of each.
func balanced(t testing.TB, apps, replicas int) (*balancer, []app.Route) {
	t.Helper()
	p, err := proxy.New(proxy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	lb := &balancer{proxy: p, listen: netip.IPv6Unspecified()}
	var all []app.Route
	for i := range apps {
		name := fmt.Sprintf("app-%05d", i)
		r := app.Route{App: name, Spec: &app.Spec{Name: name, Ports: []app.Port{{Container: 80, Proto: "http", Listen: uint16(1000 + i)}}}}
		for j := range replicas {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), uint16(1024+j))
			r.Backends = append(r.Backends, app.Backend{ID: fmt.Sprintf("%s-%d", name, j), Ports: map[uint16]netip.AddrPort{80: at}})
		}
		all = append(all, r)
	}
	if err := lb.Update(all); err != nil {
		t.Fatal(err)
	}
	return lb, all
}

// BenchmarkCheck is of one app, among few and among many: the others are not to
// count.
func BenchmarkCheck(b *testing.B) {
	for _, apps := range []int{10, 1000} {
		b.Run(fmt.Sprintf("%dx100", apps), func(b *testing.B) {
			lb, all := balanced(b, apps, 100)
			for b.Loop() {
				if err := lb.Check(all[apps/2].App, all[apps/2].Spec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestBalancerCheck(t *testing.T) {
	lb, all := balanced(t, 3, 2)
	with := func(port app.Port, hosts ...string) *app.Spec {
		s := &app.Spec{Ports: []app.Port{port}}
		for _, h := range hosts {
			s.Expose.Rules = append(s.Expose.Rules, app.Rule{Host: h})
		}
		return s
	}
	web := func(hosts ...string) *app.Spec { return with(app.Port{Container: 80, Proto: "http"}, hosts...) }
	for _, c := range []struct {
		name, app string
		spec      *app.Spec
		clashes   bool
	}{
		{"itself", all[1].App, all[1].Spec, false},
		{"itself elsewhere", all[1].App, web("x.example"), false},
		{"a new one by its name", "new", web(), false},
		{"a new one at the host of another", "new", web("x.example", all[2].App), true},
		{"one that is there at the host of another", all[1].App, web(all[2].App + ".localhost"), true},
		{"the port of another", "new", with(app.Port{Container: 5432, Proto: "tcp", Listen: all[0].Spec.Ports[0].Listen}), true},
		{"the same port, of datagrams", "new", with(app.Port{Container: 53, Proto: "udp", Listen: all[0].Spec.Ports[0].Listen}), false},
	} {
		c.spec.Name = c.app
		t.Run(c.name, func(t *testing.T) {
			if err := lb.Check(c.app, c.spec); errors.Is(err, errs.Conflict) != c.clashes || err != nil && !c.clashes {
				t.Errorf("Check: %v, want a clash: %v", err, c.clashes)
			}
		})
	}
	if err := lb.Update([]app.Route{{App: all[2].App}}); err != nil {
		t.Fatal(err)
	}
	if err := lb.Check("new", web(all[2].App)); err != nil || lb.proxy.Len() != 2 {
		t.Errorf("when the other is gone: %v; %d are there", err, lb.proxy.Len())
	}
}
