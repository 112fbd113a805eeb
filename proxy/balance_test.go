package proxy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// some is an app with n backends.
func some(t *testing.T, n int, how Balance) (*Proxy, *service) {
	t.Helper()
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	a := web()
	a.Balance = how
	for i := range n {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 80)
		a.Backends = append(a.Backends, Backend{ID: fmt.Sprint(i), Ports: map[uint16]netip.AddrPort{80: at}})
	}
	if err := p.Update(just(a)); err != nil {
		t.Fatal(err)
	}
	return p, webOf(p)
}

func at(seconds float64) int64 { return int64(seconds*1e9) + 1 }

func TestEjection(t *testing.T) {
	_, s := some(t, 3, RoundRobin)
	e := s.ends[0]
	for i, step := range []struct {
		at     float64
		works  bool
		rest   time.Duration // it is left out for so long from now on
		usable bool          // afterwards
	}{
		{0, false, 0, true},
		{1, false, 0, true},
		{6, false, 0, true}, // the first two are too old
		{7, false, 0, true},
		{7.5, true, 0, true}, // forgotten
		{8, false, 0, true},
		{8.1, false, 0, true},
		{8.2, false, 5 * time.Second, false},
		{9, false, 0, false}, // what was under way
		{13.3, false, 10 * time.Second, false},
		{24, false, 20 * time.Second, false},
		{45, false, 40 * time.Second, false},
		{86, false, time.Minute, false},
		{147, false, time.Minute, false},
		{208, true, 0, true},
		{209, false, 0, true},
		{209, false, 0, true},
		{209, false, 5 * time.Second, false},
		{210, true, 0, true}, // what was under way has worked
	} {
		if step.works {
			e.worked()
		} else if rest, _ := e.failed(at(step.at)); rest != step.rest {
			t.Errorf("step %d at %gs: left out for %v, want %v", i, step.at, rest, step.rest)
		}
		if usable := !e.ejectedAt(at(step.at) + 1); usable != step.usable {
			t.Errorf("step %d at %gs: usable %t", i, step.at, usable)
		}
	}
	if n := e.app.ejections.Load(); n != 7 {
		t.Errorf("it was left out 7 times, and %d were counted", n)
	}
}

func TestHalfRemain(t *testing.T) {
	for n, most := range []int{0, 0, 1, 1, 2, 2} {
		_, s := some(t, n, RoundRobin)
		for _, e := range s.ends {
			for range 5 {
				e.failed(at(1))
			}
		}
		out := 0
		for _, e := range s.ends {
			if e.ejectedAt(at(1)) {
				out++
			}
		}
		if out != most {
			t.Errorf("of %d, %d are left out, want %d", n, out, most)
		}
	}
}

func TestPick(t *testing.T) {
	_, s := some(t, 4, RoundRobin)
	count := func(now int64, tried ...*end) map[string]int {
		n := map[string]int{}
		for range 40 {
			if e := s.pick(choice{}, now, tried); e != nil {
				n[e.id]++
			}
		}
		return n
	}
	if n := count(at(1)); n["0"] != 10 || n["3"] != 10 {
		t.Errorf("in turns: %v", n)
	}
	for range 3 {
		s.ends[0].failed(at(1))
	}
	if n := count(at(2)); n["0"] != 0 || len(n) != 3 {
		t.Errorf("with one left out: %v", n)
	}
	if n := count(at(2), s.ends[1:]...); n["0"] != 40 {
		t.Errorf("with the others tried: %v", n)
	}
	if n := count(at(2), s.ends...); len(n) != 0 {
		t.Errorf("with all tried: %v", n)
	}
	if n := count(at(7)); n["0"] != 10 {
		t.Errorf("after its rest: %v", n)
	}
}

func TestStickyByAddressMovesFew(t *testing.T) {
	p, s := some(t, 10, Sticky)
	where := func(s *service) map[string]string {
		m := map[string]string{}
		for i := range 2000 {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			m[a.String()] = s.pick(choice{client: a}, at(1), nil).id
		}
		return m
	}
	before := where(s)
	each := map[string]int{}
	for _, id := range before {
		each[id]++
	}
	for id, n := range each {
		if n < 120 || n > 280 {
			t.Errorf("backend %s has %d of 2000", id, n)
		}
	}
	a := web()
	a.Balance = Sticky
	for _, e := range s.ends {
		a.Backends = append(a.Backends, Backend{ID: e.id, Ports: map[uint16]netip.AddrPort{80: e.addr}, Draining: e.id == "3"})
	}
	set(t, p, just(a))
	for client, id := range where(webOf(p)) {
		if before[client] != "3" && before[client] != id {
			t.Fatalf("%s was at %s and is at %s although %s is there", client, before[client], id, before[client])
		}
		if id == "3" {
			t.Fatalf("%s is at a backend that drains", client)
		}
	}
}

func TestRetryBudget(t *testing.T) {
	var b budget
	n := 0
	for b.take() {
		n++
	}
	if n != maxInARow {
		t.Errorf("%d in a row", n)
	}
	got := 0
	for range 1000 {
		b.earn()
		if b.take() {
			got++
		}
	}
	if got != 200 {
		t.Errorf("%d of 1000 requests were tried again", got)
	}
	for range 10_000 {
		b.earn()
	}
	n = 0
	for b.take() {
		n++
	}
	if n != maxInARow {
		t.Errorf("%d in a row after a long good time", n)
	}
}

// TestNothingBeginsAfterUpdate asks by a service from before the Update that has one
// backend drained and another removed.
func TestNothingBeginsAfterUpdate(t *testing.T) {
	p, old := some(t, 3, RoundRobin)
	a := web()
	for i, e := range old.ends[:2] {
		a.Backends = append(a.Backends, Backend{ID: e.id, Ports: map[uint16]netip.AddrPort{80: e.addr}, Draining: i == 0})
	}
	set(t, p, just(a))
	for range 10 {
		if e := old.enter(choice{}, at(1), nil); e == nil || e.id != "1" {
			t.Fatalf("something begins at %v", e)
		}
	}
	s := p.Stats()["web"]
	if b := s.Backends["0"]; b.Active != 0 || b.Requests != 0 {
		t.Errorf("at the one that drains: %+v", b)
	}
	a.Backends[0].Draining = false
	set(t, p, just(a))
	for range 10 {
		webOf(p).enter(choice{}, at(1), nil)
	}
	if b := p.Stats()["web"].Backends["0"]; b.Active != 5 {
		t.Errorf("at the one that no longer drains: %+v", b)
	}
	unset(t, p, "web")
	if e := old.enter(choice{}, at(1), nil); e != nil {
		t.Errorf("something begins at %s of an app that is gone", e.id)
	}
}
