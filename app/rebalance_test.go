package app

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// settled is a cluster with replicas of which the test knows.
type settled struct {
	c        *Cluster
	specs    map[string]*Spec
	replicas []Replica
}

func (s *settled) add(spec *Spec, hosts ...string) {
	if s.specs == nil {
		s.specs = map[string]*Spec{}
	}
	s.specs[spec.Name] = spec
	for _, h := range hosts {
		n := len(s.replicas)
		s.replicas = append(s.replicas, Replica{ID: fmt.Sprintf("%s-%03d", spec.Name, n), App: spec.Name, Host: h, Created: noon.Add(time.Duration(n) * time.Second)})
		s.c.Take(h, spec)
	}
}

// carry carries moves out, one after the other, and fails if one does not fit.
func (s *settled) carry(t *testing.T, moves []Move) {
	t.Helper()
	for _, m := range moves {
		i := slices.IndexFunc(s.replicas, func(r Replica) bool { return r.ID == m.Replica })
		if i < 0 || s.replicas[i].Host != m.From || s.replicas[i].App != m.App {
			t.Fatalf("there is no replica for %+v", m)
		}
		spec := s.specs[m.App]
		s.c.Give(m.From, spec)
		d := s.c.demand(spec, 1)
		to := s.c.byID[m.To]
		if o := d.obstacle(to, d.home.on[to]); o.kind != fits {
			t.Fatalf("%+v: %s", m, d.sentence(to, d.home.on[to], o))
		}
		s.c.Take(m.To, spec)
		s.replicas[i].Host = m.To
	}
}

func TestRebalance(t *testing.T) {
	zones := []Node{hostOf("h1", 1000, 1024*mib, "zone=a"), hostOf("h2", 1000, 1024*mib, "zone=a"), hostOf("h3", 1000, 1024*mib, "zone=b")}
	for _, tt := range []struct {
		name  string
		nodes []Node
		set   func(s *settled)
		after func(s *settled) // all is placed
		limit int
		want  []string // "app from>to: reason"
	}{
		{
			name: "nothing to do", nodes: zones,
			set: func(s *settled) { s.add(appOf("web", 100, 100*mib), "h1", "h2", "h3") },
		},
		{
			name: "a new host", nodes: zones,
			set:  func(s *settled) { s.add(appOf("web", 100, 100*mib), "h1", "h1", "h1", "h2", "h2", "h2") },
			want: []string{"web h2>h3: h2 has 3 of its replicas, h3 has 0", "web h1>h3: h1 has 3 of its replicas, h3 has 1"},
		},
		{
			name: "a limit", nodes: zones, limit: 1,
			set:  func(s *settled) { s.add(appOf("web", 100, 100*mib), "h1", "h1", "h1", "h2", "h2", "h2") },
			want: []string{"web h2>h3: h2 has 3 of its replicas, h3 has 0"},
		},
		{
			name: "a label that has changed", nodes: zones,
			set: func(s *settled) {
				s.add(appOf("web", 100, 100*mib, where(Constraint{"label.zone", "=", []string{"a"}})), "h1")
			},
			after: func(s *settled) {
				s.c.Set(hostOf("h1", 1000, 1024*mib, "zone=c"))
			},
			want: []string{`web h1>h2: label zone is "c", not "a"`},
		},
		{
			name: "less memory than before", nodes: zones,
			set:   func(s *settled) { s.add(appOf("web", 100, 300*mib), "h1"); s.add(appOf("db", 100, 0), "h1") },
			after: func(s *settled) { s.c.Set(hostOf("h1", 1000, 200*mib, "zone=a")) },
			want:  []string{"web h1>h2: memory: more is given than there is, by 100 MiB"},
		},
		{
			name: "fewer CPUs than before", nodes: zones,
			set:   func(s *settled) { s.add(appOf("web", 300, 0), "h1"); s.add(appOf("db", 0, 10*mib), "h1") },
			after: func(s *settled) { s.c.Set(hostOf("h1", 250, 1024*mib, "zone=a")) },
			want:  []string{"web h1>h2: CPU: more is given than there is, by 0.05"},
		},
		{
			name: "a graphics card that is gone", nodes: append(slices.Clone(zones[:1]), func() Node { n := hostOf("h2", 1000, 1024*mib); n.Total.GPUs = 1; return n }()),
			set:  func(s *settled) { s.add(appOf("web", 10, 0, func(s *Spec) { s.GPUs = 1 }), "h1") },
			want: []string{"web h1>h2: GPUs: more are given than there are, by 1"},
		},
		{
			name: "shares", nodes: zones,
			set:  func(s *settled) { s.add(appOf("web", 10, 10*mib, spreadOver("label.zone")), "h1", "h1", "h2", "h2") },
			want: []string{`web h2>h3: label zone "a" has 4 of its replicas, "b" has 0`, `web h1>h3: label zone "a" has 3 of its replicas, "b" has 1`},
		},
		{
			name: "a host without a zone", nodes: append(slices.Clone(zones), hostOf("h4", 1000, 1024*mib)),
			set:  func(s *settled) { s.add(appOf("web", 10, 10*mib, spreadOver("label.zone")), "h1", "h4") },
			want: []string{"web h4>h3: label zone is missing, and the app is spread over it"},
		},
		{
			name: "affinity", nodes: zones,
			set: func(s *settled) {
				s.add(appOf("web", 10, 10*mib, affine(Affinity{Constraint: &Constraint{"label.zone", "=", []string{"b"}}, Weight: 100})), "h1")
			},
			want: []string{"web h1>h3: its affinities prefer h3 to h1"},
		},
		{
			name: "where another app wants it", nodes: zones,
			set: func(s *settled) {
				s.add(appOf("web", 10, 10*mib), "h1")
				s.add(appOf("db", 10, 10*mib, affine(Affinity{App: "web", Weight: 50}), where(Constraint{"id", "=", []string{"h2"}})), "h2")
			},
			want: []string{"web h1>h2: its affinities prefer h2 to h1"},
		},
		{
			name: "what another app needs stays", nodes: zones,
			set: func(s *settled) {
				s.add(appOf("web", 10, 10*mib, affine(Affinity{Constraint: &Constraint{"label.zone", "=", []string{"b"}}, Weight: 100})), "h1")
				s.add(appOf("db", 10, 10*mib, affine(Affinity{App: "web", Required: true})), "h1")
			},
		},
		{
			name: "a full host", nodes: zones,
			set: func(s *settled) {
				for i := range 8 {
					s.add(appOf(fmt.Sprint("app", i), 100, 100*mib), "h1")
				}
				s.add(appOf("db", 400, 400*mib), "h2")
			},
			want: []string{
				"app7 h1>h3: h1 is 79 % full, h3 is 0 %", "app6 h1>h3: h1 is 69 % full, h3 is 10 %", "app5 h1>h3: h1 is 59 % full, h3 is 20 %", "app4 h1>h3: h1 is 49 % full, h3 is 30 %",
			},
		},
		{
			name: "packed ones stay", nodes: zones,
			set: func(s *settled) {
				for i := range 8 {
					s.add(appOf(fmt.Sprint("app", i), 100, 100*mib, func(s *Spec) { s.Placement.Strategy = BinPack }), "h1")
				}
			},
		},
		{
			name: "daemons and jobs stay", nodes: zones,
			set: func(s *settled) {
				s.add(appOf("job", 100, 100*mib, func(s *Spec) { s.Kind = Job }), "h1", "h1", "h1", "h1")
				s.add(appOf("agent", 100, 100*mib, func(s *Spec) { s.Kind = Daemon }, where(Constraint{"id", "=", []string{"h2"}})), "h1")
			},
		},
		{
			name: "what is paused stays", nodes: zones,
			set: func(s *settled) { s.add(appOf("web", 100, 100*mib), "h1", "h1", "h1", "h1") },
			after: func(s *settled) {
				n := hostOf("h1", 1000, 1024*mib)
				n.Open = false
				s.c.Set(n)
			},
		},
		{
			name: "those that stand by are moved first", nodes: zones[:2],
			set: func(s *settled) {
				s.add(appOf("web", 10, 10*mib), "h1", "h1")
				s.replicas[0].Standby = true
			},
			want: []string{"web h1>h2: h1 has 2 of its replicas, h2 has 0"},
		},
		{
			name: "no room", nodes: zones[:2],
			set: func(s *settled) {
				s.add(appOf("big", 900, 0, where(Constraint{"id", "=", []string{"h2"}})), "h2")
				s.add(appOf("web", 200, 0), "h1", "h1")
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &settled{c: NewCluster(tt.nodes)}
			tt.set(s)
			if tt.after != nil {
				tt.after(s)
			}
			moves := s.c.Rebalance(s.specs, s.replicas, tt.limit)
			var got []string
			for _, m := range moves {
				got = append(got, fmt.Sprintf("%s %s>%s: %s", m.App, m.From, m.To, m.Reason))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Rebalance (-want +got):\n%s", diff)
			}
			if tt.name == "those that stand by are moved first" && moves[0].Replica != s.replicas[0].ID {
				t.Errorf("%s is moved, want %s", moves[0].Replica, s.replicas[0].ID)
			}
			if again := s.c.Rebalance(s.specs, s.replicas, tt.limit); !cmp.Equal(again, moves) {
				t.Errorf("asked twice: %v, then %v", moves, again)
			}
			if tt.limit > 0 {
				return
			}
			s.carry(t, moves)
			if more := s.c.Rebalance(s.specs, s.replicas, 0); len(more) > 0 {
				t.Errorf("and then %v", more)
			}
		})
	}
}

// TestRebalanceProperties has clusters by chance, of which hosts have come and
// changed: moves are possible, break nothing, and come to an end.
func TestRebalanceProperties(t *testing.T) {
	again := 0
	seeds(t, 300, func(t *testing.T, seed uint64) {
		f := newYard(seed, 2+int(seed%12), 6)
		s := &settled{c: NewCluster(f.nodes[:1+len(f.nodes)/2])}
		for _, spec := range f.specs {
			hosts, _ := s.c.Place(spec, 1+f.rnd.IntN(10), nil)
			for _, h := range hosts {
				s.c.Give(h, spec)
			}
			s.add(spec, hosts...)
		}
		for i, n := range f.nodes { // some are new, and some are not what they were
			if f.rnd.IntN(3) == 0 {
				n.Attr = map[string]string{"id": n.ID, "name": n.Name, "label.zone": string(rune('a' + f.rnd.IntN(3))), "label.cores": fmt.Sprint(f.rnd.IntN(64))}
				n.Total.Memory = int64(f.rnd.IntN(8192)) * mib
				f.nodes[i] = n
			}
			s.c.Set(n)
		}
		bad := s.bad()
		before := s.c.Explain(f.specs[0])
		moves := s.c.Rebalance(s.specs, s.replicas, 0)
		if diff := cmp.Diff(before, s.c.Explain(f.specs[0])); diff != "" {
			t.Fatalf("asking has changed the cluster (-before +after):\n%s", diff)
		}
		some := s.c.Rebalance(s.specs, s.replicas, 2)
		if len(some) > 2 {
			t.Errorf("%d moves, at most 2 were asked for", len(some))
		}
		s.carry(t, moves)
		for _, m := range moves {
			if m.Reason == "" || m.From == m.To || strings.Count(fmt.Sprint(moves), m.Replica) != 1 {
				t.Errorf("%+v among %v", m, moves)
			}
		}
		if now := s.bad(); now > bad {
			t.Errorf("%d replicas were where they must not be, and now %d are", bad, now)
		}
		if more := s.c.Rebalance(s.specs, s.replicas, 0); len(more) > 0 {
			again++
			t.Logf("a second call: %v", more)
			for range 20 {
				s.carry(t, more)
				if more = s.c.Rebalance(s.specs, s.replicas, 0); len(more) == 0 {
					return
				}
			}
			t.Errorf("and there is no end: %v", more)
		}
	})
	t.Logf("%d of 300 needed a second call", again)
}

// bad counts replicas that must not be where they are.
func (s *settled) bad() (n int) {
	for _, r := range s.replicas {
		if s.c.Misplaced(s.specs[r.App], r.Host) != "" {
			n++
		}
	}
	return n
}

// BenchmarkRebalance asks about a fleet as BenchmarkPlace leaves it, with a tenth
// of the hosts new.
func BenchmarkRebalance(b *testing.B) {
	const apps, each, hosts = 1000, 100, 10_000
	var nodes []Node
	for i := range hosts {
		nodes = append(nodes, hostOf(fmt.Sprintf("h%05d", i), 8000, 32<<30, fmt.Sprint("zone=", i%7)))
	}
	s := &settled{c: NewCluster(nodes[:hosts*9/10])}
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range apps {
		spec := appOf(fmt.Sprintf("app-%04d", i), int64(10+rnd.IntN(200)), int64(16+rnd.IntN(256))*mib)
		at, _ := s.c.Place(spec, each, nil)
		for _, h := range at {
			s.c.Give(h, spec)
		}
		s.add(spec, at...)
	}
	for _, n := range nodes {
		s.c.Set(n)
	}
	for b.Loop() {
		b.ReportMetric(float64(len(s.c.Rebalance(s.specs, s.replicas, 100))), "moves")
	}
}
