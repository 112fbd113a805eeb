package app

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const mib = 1 << 20

// hostOf is an open host with labels "zone=a".
func hostOf(id string, milliCPU, memory int64, labels ...string) Node {
	attr := map[string]string{"id": id, "name": id, "arch": "amd64", "os": "Debian GNU/Linux 12"}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		attr["label."+k] = v
	}
	return Node{ID: id, Name: id, Attr: attr, Total: Resources{MilliCPU: milliCPU, Memory: memory}, Open: true}
}

func appOf(name string, milliCPU, memory int64, change ...func(s *Spec)) *Spec {
	s := &Spec{Name: name, Kind: Service, Container: buoy.CreateRequest{Limits: buoy.Limits{MilliCPU: milliCPU, Memory: memory}}}
	for _, f := range change {
		f(s)
	}
	return s
}

func where(c Constraint) func(s *Spec) {
	return func(s *Spec) { s.Placement.Constraints = append(s.Placement.Constraints, c) }
}

func affine(a Affinity) func(s *Spec) {
	return func(s *Spec) { s.Placement.Affinity = append(s.Placement.Affinity, a) }
}

func spreadOver(attribute string) func(s *Spec) {
	return func(s *Spec) { s.Placement.Spread = attribute }
}

func TestPlaceSaysWhyNot(t *testing.T) {
	is := func(attribute, op string, values ...string) *Constraint {
		return &Constraint{Attribute: attribute, Op: op, Values: values}
	}
	drains := hostOf("h", 4000, 1024*mib)
	drains.Open, drains.Why = false, "drains: maintenance"
	closed := hostOf("h", 4000, 1024*mib)
	closed.Open = false
	taken := hostOf("h", 4000, 1024*mib)
	taken.Ports = []uint32{HostPort("http", 8080), HostPort("udp", 53)}
	zone := hostOf("h", 4000, 130*mib, "zone=a", "cores=4")
	for _, tt := range []struct {
		name string
		host Node
		spec *Spec
		on   []*Spec // there already
		want string  // empty: it fits
	}{
		{"memory", zone, appOf("web", 0, 512*mib), nil, "memory: 512 MiB wanted, 130 MiB free"},
		{"memory by a hair", hostOf("h", 1, 512*mib-1), appOf("web", 0, 512*mib), nil, "memory: 536870912 B wanted, 536870911 B free"},
		{"memory taken", zone, appOf("web", 0, 100*mib), []*Spec{appOf("db", 0, 50*mib)}, "memory: 100 MiB wanted, 80 MiB free"},
		{"no memory asked for", hostOf("h", 4000, 0), appOf("web", 0, 0), nil, ""},
		{"more given than there is", hostOf("h", 500, mib), appOf("web", 1, 0), []*Spec{appOf("db", 800, 0)}, "CPU: 0.001 wanted, 0 free"},
		{"cpu", hostOf("h", 250, mib), appOf("web", 1500, 0), nil, "CPU: 1.5 wanted, 0.25 free"},
		{"gpus", zone, appOf("web", 0, 0, func(s *Spec) { s.GPUs = 2 }), nil, "GPUs: 2 wanted, 0 free"},
		{"drained", drains, appOf("web", 0, 0), nil, "drains: maintenance"},
		{"closed", closed, appOf("web", 0, 0), nil, "takes nothing new"},

		{"=", zone, appOf("web", 0, 0, where(*is("label.zone", "=", "b"))), nil, `label zone is "a", not "b"`},
		{"= holds", zone, appOf("web", 0, 0, where(*is("label.zone", "=", "a"))), nil, ""},
		{"= missing", zone, appOf("web", 0, 0, where(*is("label.rack", "=", "b"))), nil, `label rack is missing, not "b"`},
		{"!=", zone, appOf("web", 0, 0, where(*is("label.zone", "!=", "a"))), nil, `label zone is "a", which is ruled out`},
		{"!= missing holds", zone, appOf("web", 0, 0, where(*is("label.rack", "!=", "a"))), nil, ""},
		{"in", zone, appOf("web", 0, 0, where(*is("label.zone", "in", "b", "c"))), nil, `label zone is "a", not one of "b", "c"`},
		{"in holds", zone, appOf("web", 0, 0, where(*is("label.zone", "in", "b", "a"))), nil, ""},
		{"not in", zone, appOf("web", 0, 0, where(*is("label.zone", "not in", "a", "c"))), nil, `label zone is "a", which is ruled out`},
		{"not in missing holds", zone, appOf("web", 0, 0, where(*is("label.rack", "not in", "a", "c"))), nil, ""},
		{"exists", zone, appOf("web", 0, 0, where(*is("gpu.model", "exists"))), nil, "GPU model is missing"},
		{"exists holds", zone, appOf("web", 0, 0, where(*is("label.zone", "exists"))), nil, ""},
		{"not exists", zone, appOf("web", 0, 0, where(*is("label.zone", "not exists"))), nil, `label zone is "a", which is ruled out`},
		{"not exists holds", zone, appOf("web", 0, 0, where(*is("gpu.model", "not exists"))), nil, ""},
		{">", zone, appOf("web", 0, 0, where(*is("label.cores", ">", "8"))), nil, `label cores is "4", not > 8`},
		{"> is of numbers", zone, appOf("web", 0, 0, where(*is("label.cores", ">", "3.5"))), nil, ""},
		{">=", zone, appOf("web", 0, 0, where(*is("label.cores", ">=", "4.1"))), nil, `label cores is "4", not >= 4.1`},
		{">= holds", zone, appOf("web", 0, 0, where(*is("label.cores", ">=", "4"))), nil, ""},
		{"<", zone, appOf("web", 0, 0, where(*is("label.cores", "<", "4"))), nil, `label cores is "4", not < 4`},
		{"<= holds", zone, appOf("web", 0, 0, where(*is("label.cores", "<=", "4"))), nil, ""},
		{"no number", zone, appOf("web", 0, 0, where(*is("label.zone", "<", "4"))), nil, `label zone is "a", not < 4`},
		{"~", zone, appOf("web", 0, 0, where(*is("name", "~", "^db"))), nil, `name is "h", not like "^db"`},
		{"~ holds", zone, appOf("web", 0, 0, where(*is("os", "~", "Debian.*1[2-9]"))), nil, ""},
		{"no expression", zone, appOf("web", 0, 0, where(*is("name", "~", "("))), nil, "the constraint on name is no regular expression: missing closing ): `(`"},
		{"no operator", zone, appOf("web", 0, 0, where(*is("name", "like", "x"))), nil, `the constraint on name has the operator "like"; it must be =, !=, in, not in, exists, not exists, <, <=, >, >= or ~`},

		{"required", zone, appOf("web", 0, 0, affine(Affinity{Constraint: is("label.zone", "=", "b"), Required: true})), nil, `label zone is "a", not "b"`},
		{"required against", zone, appOf("web", 0, 0, affine(Affinity{Constraint: is("label.zone", "=", "a"), Weight: -1, Required: true})), nil, `label zone is "a", which is ruled out`},
		{"required app", zone, appOf("web", 0, 0, affine(Affinity{App: "db", Required: true})), nil, `app "db" is not there, and it needs that`},
		{"required app holds", zone, appOf("web", 0, 0, affine(Affinity{App: "db", Required: true})), []*Spec{appOf("db", 0, 0)}, ""},
		{"against an app", zone, appOf("web", 0, 0, affine(Affinity{App: "db", Weight: -1, Required: true})), []*Spec{appOf("db", 0, 0)}, `app "db" is there, and they do not share a host`},
		{"an app against it", zone, appOf("web", 0, 0), []*Spec{appOf("db", 0, 0, affine(Affinity{App: "web", Weight: -1, Required: true}))}, `app "db" is there, and they do not share a host`},
		{"with itself, the first", zone, appOf("web", 0, 0, affine(Affinity{App: "web", Required: true})), nil, ""},
		{"against itself", zone, appOf("web", 0, 0, affine(Affinity{App: "web", Weight: -100, Required: true})), []*Spec{appOf("web", 0, 0)}, `app "web" is there, and they do not share a host`},
		{"weights rule nothing out", zone, appOf("web", 0, 0, affine(Affinity{App: "web", Weight: -100})), []*Spec{appOf("web", 0, 0)}, ""},

		{"most on a host", zone, appOf("web", 0, 0, func(s *Spec) { s.Placement.MaxPerHost = 2 }), []*Spec{appOf("web", 0, 0), appOf("web", 0, 0)}, "has 2 of its replicas; 2 may be on a host"},
		{"daemon", zone, appOf("web", 0, 0, func(s *Spec) { s.Kind = Daemon }), []*Spec{appOf("web", 0, 0)}, "has its replica already"},
		{"port", taken, appOf("web", 0, 0, func(s *Spec) { s.Ports = []Port{{Container: 80, Proto: "tcp", Host: 8080}} }), nil, "port 8080/tcp is taken"},
		{"port of udp", taken, appOf("web", 0, 0, func(s *Spec) { s.Ports = []Port{{Container: 80, Proto: "udp", Host: 8080}} }), nil, ""},
		{
			"port of a replica", zone, appOf("dns", 0, 0, func(s *Spec) { s.Ports = []Port{{Container: 53, Proto: "udp", Host: 53}} }),
			[]*Spec{appOf("old", 0, 0, func(s *Spec) { s.Ports = []Port{{Container: 5353, Proto: "udp", Host: 53}} })},
			"port 53/udp is taken",
		},
		{"port in the host's network", taken, appOf("web", 0, 0, func(s *Spec) {
			s.Container.HostNetworking = true
			s.Ports = []Port{{Container: 53, Proto: "udp"}}
		}), nil, "port 53/udp is taken"},
		{"port inside alone", taken, appOf("web", 0, 0, func(s *Spec) { s.Ports = []Port{{Container: 8080, Proto: "tcp"}} }), nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCluster([]Node{tt.host})
			for _, s := range tt.on {
				c.Take("h", s)
			}
			if got := c.Explain(tt.spec); len(got) != 1 || got[0].Reason != tt.want {
				t.Errorf("Explain = %+v, want the reason %q", got, tt.want)
			}
			hosts, why := c.Place(tt.spec, 1, nil)
			switch {
			case tt.want == "" && (len(hosts) != 1 || len(why) != 0):
				t.Errorf("Place = %v, %v; want it to fit", hosts, why)
			case tt.want != "" && tt.name != "daemon" && (len(hosts) != 0 || len(why) != 1 || why[0] != WhyNot{Host: "h", Name: "h", Reason: tt.want}):
				t.Errorf("Place = %v, %v; want %q", hosts, why, tt.want)
			}
		})
	}
}

func TestPlaceWithoutHosts(t *testing.T) {
	hosts, why := NewCluster(nil).Place(appOf("web", 0, 0), 1, nil)
	if want := []WhyNot{{Reason: "there is no host"}}; hosts != nil || !cmp.Equal(why, want) {
		t.Errorf("Place = %v, %v, want %v", hosts, why, want)
	}
}

// TestPlaceGroupsReasons has more hosts than are told of one by one.
func TestPlaceGroupsReasons(t *testing.T) {
	var nodes []Node
	for i := range 350 {
		n := hostOf(fmt.Sprintf("h%03d", i), 1000, int64(i)*mib, fmt.Sprintf("zone=%c", 'a'+i%2))
		if i == 349 {
			n.Open, n.Why = false, "has not reported for 40s"
		}
		nodes = append(nodes, n)
	}
	c := NewCluster(nodes)
	hosts, why := c.Place(appOf("web", 100, 1024*mib, where(Constraint{"label.zone", "=", []string{"b"}})), 3, nil)
	if len(hosts) != 0 || len(why) != 103 {
		t.Fatalf("Place = %v and %d reasons, want none and 103", hosts, len(why))
	}
	want := []WhyNot{
		{Name: "125 more hosts", Reason: `label zone is not "b"`},
		{Name: "124 more hosts", Reason: "memory: 1 GiB wanted, at most 347 MiB free"},
		{Name: "1 more host", Reason: "has not reported for 40s"},
	}
	if diff := cmp.Diff(want, why[100:]); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if got, want := why[1], (WhyNot{Host: "h001", Name: "h001", Reason: "memory: 1 GiB wanted, 1 MiB free"}); got != want {
		t.Errorf("the second is %+v, want %+v", got, want)
	}
}

// TestPlaceSummarizes has so many hosts of a kind that they are told of together.
func TestPlaceSummarizes(t *testing.T) {
	for name, tt := range map[string]struct {
		host func(i int, n *Node)
		spec *Spec
		on   *Spec // on each host
		want string
	}{
		"cpu":  {func(i int, n *Node) { n.Total.MilliCPU = int64(i) }, appOf("web", 4000, 0), nil, "CPU: 4 wanted, at most 0.101 free"},
		"gpus": {func(i int, n *Node) { n.Total.GPUs = 1 }, appOf("web", 0, 0, func(s *Spec) { s.GPUs = 2 }), nil, "GPUs: 2 wanted, at most 1 free"},
		"port": {
			func(i int, n *Node) { n.Ports = []uint32{HostPort("udp", 53)} },
			appOf("web", 0, 0, func(s *Spec) { s.Ports = []Port{{Container: 1, Proto: "udp", Host: 53}} }), nil, "port 53/udp is taken",
		},
		"closed":      {func(i int, n *Node) { n.Open = false }, appOf("web", 0, 0), nil, "takes nothing new"},
		"drained":     {func(i int, n *Node) { n.Open, n.Why = false, "drains" }, appOf("web", 0, 0), nil, "drains"},
		"silent":      {func(i int, n *Node) { n.Open, n.Why = false, fmt.Sprintf("silent for %d s", i) }, appOf("web", 0, 0), nil, "takes nothing new, for instance: silent for 100 s"},
		"crowded":     {nil, appOf("web", 0, 0, func(s *Spec) { s.Placement.MaxPerHost = 1 }), appOf("web", 0, 0), "as many of its replicas as may be on a host are there"},
		"in":          {nil, appOf("web", 0, 0, where(Constraint{"label.zone", "in", []string{"a", "b"}})), nil, `label zone is not one of "a", "b"`},
		"exists":      {nil, appOf("web", 0, 0, where(Constraint{"label.zone", "exists", nil})), nil, "label zone is missing"},
		"ruled out":   {nil, appOf("web", 0, 0, where(Constraint{"arch", "!=", []string{"amd64"}})), nil, "arch is ruled out"},
		"broken":      {nil, appOf("web", 0, 0, where(Constraint{"arch", ">", []string{"x"}})), nil, `the constraint on arch compares numbers, and "x" is none`},
		"affinity":    {nil, appOf("web", 0, 0, affine(Affinity{Constraint: &Constraint{"arch", "=", []string{"arm64"}}, Required: true})), nil, `arch is not "arm64"`},
		"against":     {nil, appOf("web", 0, 0, affine(Affinity{Constraint: &Constraint{"arch", "=", []string{"amd64"}}, Required: true, Weight: -1})), nil, "arch is ruled out"},
		"app":         {nil, appOf("web", 0, 0, affine(Affinity{App: "db", Required: true})), nil, `app "db" is not there, and it needs that`},
		"against app": {nil, appOf("web", 0, 0, affine(Affinity{App: "db", Required: true, Weight: -1})), appOf("db", 0, 0), `app "db" is there, and they do not share a host`},
		"foe":         {nil, appOf("web", 0, 0), appOf("db", 0, 0, affine(Affinity{App: "web", Required: true, Weight: -1})), `app "db" is there, and they do not share a host`},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewCluster(nil)
			for i := range 102 {
				n := hostOf(fmt.Sprintf("h%03d", i), 1000, 0)
				if tt.host != nil {
					tt.host(i, &n)
				}
				c.Set(n)
				if tt.on != nil {
					c.Take(n.ID, tt.on)
				}
			}
			_, why := c.Place(tt.spec, 1, nil)
			if want := (WhyNot{Name: "2 more hosts", Reason: tt.want}); len(why) != 101 || why[100] != want {
				t.Errorf("%d reasons, the last %+v, want %+v", len(why), why[len(why)-1], want)
			}
		})
	}
}

func TestPlacePrefers(t *testing.T) {
	three := []Node{hostOf("h1", 4000, 4096*mib, "zone=a"), hostOf("h2", 4000, 4096*mib, "zone=a"), hostOf("h3", 4000, 4096*mib, "zone=b")}
	zoneA := &Constraint{"label.zone", "=", []string{"a"}}
	for _, tt := range []struct {
		name  string
		nodes []Node
		on    map[string]*Spec
		spec  *Spec
		n     int
		avoid map[string]bool
		want  map[string]int
	}{
		{name: "a replica for each host", nodes: three, spec: appOf("web", 100, 64*mib), n: 3, want: map[string]int{"h1": 1, "h2": 1, "h3": 1}},
		{name: "also without limits", nodes: three, spec: appOf("web", 0, 0), n: 6, want: map[string]int{"h1": 2, "h2": 2, "h3": 2}},
		{
			name: "also if hosts are unlike", nodes: []Node{hostOf("h1", 64000, 1<<40), hostOf("h2", 1000, 1024*mib)},
			spec: appOf("web", 100, 64*mib), n: 4, want: map[string]int{"h1": 2, "h2": 2},
		},
		{name: "the emptiest", nodes: three, on: map[string]*Spec{"h1": appOf("a", 1000, 0), "h3": appOf("b", 0, 2048*mib)}, spec: appOf("web", 100, 64*mib), n: 1, want: map[string]int{"h2": 1}},
		{
			name: "the fullest", nodes: three, on: map[string]*Spec{"h1": appOf("a", 1000, 0), "h3": appOf("b", 0, 2048*mib)},
			spec: appOf("web", 100, 64*mib, func(s *Spec) { s.Placement.Strategy = BinPack }), n: 3, want: map[string]int{"h3": 3},
		},
		{name: "equal shares of zones", nodes: three, spec: appOf("web", 100, 64*mib, spreadOver("label.zone")), n: 4, want: map[string]int{"h1": 1, "h2": 1, "h3": 2}},
		{
			name: "hosts without a zone last", nodes: append(slices.Clone(three), hostOf("h4", 400000, 1<<40)),
			spec: appOf("web", 100, 64*mib, spreadOver("label.zone")), n: 4, want: map[string]int{"h1": 1, "h2": 1, "h3": 2},
		},
		{
			name: "hosts although packed", nodes: three,
			spec: appOf("web", 100, 64*mib, spreadOver("host"), func(s *Spec) { s.Placement.Strategy = BinPack }), n: 6, want: map[string]int{"h1": 2, "h2": 2, "h3": 2},
		},
		{name: "affinity", nodes: three, spec: appOf("web", 100, 64*mib, affine(Affinity{Constraint: zoneA, Weight: 100})), n: 4, want: map[string]int{"h1": 2, "h2": 2}},
		{name: "little affinity", nodes: three, spec: appOf("web", 100, 64*mib, affine(Affinity{Constraint: zoneA, Weight: 30})), n: 6, want: map[string]int{"h1": 3, "h2": 2, "h3": 1}},
		{name: "anti-affinity", nodes: three, spec: appOf("web", 100, 64*mib, affine(Affinity{Constraint: zoneA, Weight: -100})), n: 3, want: map[string]int{"h3": 3}},
		{name: "an app", nodes: three, on: map[string]*Spec{"h2": appOf("db", 3000, 2048*mib)}, spec: appOf("web", 100, 64*mib, affine(Affinity{App: "db", Weight: 100})), n: 1, want: map[string]int{"h2": 1}},
		{name: "itself", nodes: three, spec: appOf("web", 100, 64*mib, affine(Affinity{App: "web", Weight: 100})), n: 3, want: nil},
		{name: "avoids", nodes: three, spec: appOf("web", 100, 64*mib), n: 4, avoid: map[string]bool{"h1": true, "h2": false}, want: map[string]int{"h2": 2, "h3": 2}},
		{name: "avoids as long as possible", nodes: three[:1], spec: appOf("web", 100, 64*mib), n: 2, avoid: map[string]bool{"h1": true}, want: map[string]int{"h1": 2}},
		{
			name: "daemon", nodes: three, on: map[string]*Spec{"h2": appOf("agent", 1, 0)},
			spec: appOf("agent", 1, 0, func(s *Spec) { s.Kind = Daemon }), n: 1000, want: map[string]int{"h1": 1, "h3": 1},
		},
		{name: "what fits", nodes: three, spec: appOf("web", 1500, 0), n: 10, want: map[string]int{"h1": 2, "h2": 2, "h3": 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCluster(tt.nodes)
			for id, s := range tt.on {
				c.Take(id, s)
			}
			hosts, _ := c.Place(tt.spec, tt.n, tt.avoid)
			got := counted(hosts)
			if tt.name == "itself" { // wherever the first is
				if len(got) != 1 {
					t.Errorf("Place = %v, want one host", got)
				}
				return
			}
			if tt.name == "little affinity" { // which of h1 and h2 has more is up to the hash
				if got["h3"] != 1 {
					t.Errorf("Place = %v, want one on h3", got)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Place (-want +got):\n%s", diff)
			}
		})
	}
}

func counted(hosts []string) map[string]int {
	n := map[string]int{}
	for _, h := range hosts {
		n[h]++
	}
	return n
}

// TestPlaceTies has many apps of one replica on equal hosts: they must not all
// be on the same ones.
func TestPlaceTies(t *testing.T) {
	var nodes []Node
	for i := range 10 {
		nodes = append(nodes, hostOf(fmt.Sprintf("h%d", i), 0, 0)) // as full as each other, whatever they have
	}
	c := NewCluster(nodes)
	n := map[string]int{}
	for i := range 1000 {
		hosts, _ := c.Place(appOf(fmt.Sprintf("app-%d", i), 0, 0), 1, nil)
		n[hosts[0]]++
	}
	for _, h := range nodes {
		if n[h.ID] < 50 || n[h.ID] > 150 {
			t.Errorf("%d of 1000 apps are on %s of 10 hosts", n[h.ID], h.ID)
		}
	}
}

// TestPlaceTogether has an affinity that only the first replica makes hold.
func TestPlaceTogether(t *testing.T) {
	c := NewCluster([]Node{hostOf("h1", 1000, 0), hostOf("h2", 1000, 0)})
	spec := appOf("web", 300, 0, affine(Affinity{App: "web", Required: true}))
	hosts, why := c.Place(spec, 5, nil)
	if len(hosts) != 3 || len(counted(hosts)) != 1 {
		t.Errorf("Place = %v, want three on one host", hosts)
	}
	reasons := []string{why[0].Reason, why[1].Reason}
	slices.Sort(reasons)
	if want := []string{"CPU: 0.3 wanted, 0.1 free", `app "web" is not there, and it needs that`}; !cmp.Equal(reasons, want) {
		t.Errorf("why = %q, want %q", reasons, want)
	}
}

func TestSpreadForgetsLeavingHosts(t *testing.T) {
	leaving := hostOf("h1", 1000, 0, "zone=a")
	leaving.Open, leaving.Leaving, leaving.Why = false, true, "drains"
	c := NewCluster([]Node{leaving, hostOf("h2", 1000, 0, "zone=a"), hostOf("h3", 1000, 0, "zone=b")})
	spec := appOf("web", 100, 0, spreadOver("label.zone"))
	c.Take("h1", spec)
	c.Take("h3", spec)
	if hosts, _ := c.Place(spec, 1, nil); !slices.Equal(hosts, []string{"h2"}) {
		t.Errorf("Place = %v, want h2: zone a is to be without the replica on h1", hosts)
	}
}

func TestExplainBestFirst(t *testing.T) {
	c := NewCluster([]Node{hostOf("h1", 1000, 1024*mib, "zone=a"), hostOf("h2", 1000, 1024*mib, "zone=a"), hostOf("h3", 1000, 1024*mib, "zone=b"), hostOf("h4", 10, 0), hostOf("h0", 10, 0)})
	spec := appOf("web", 100, 64*mib, spreadOver("label.zone"))
	c.Take("h1", spec)
	c.Take("h2", appOf("other", 500, 0))
	var got []string
	for _, w := range c.Explain(spec) {
		got = append(got, w.Name+" "+w.Reason)
	}
	want := []string{"h3 ", "h2 ", "h1 ", "h0 CPU: 0.1 wanted, 0.01 free", "h4 CPU: 0.1 wanted, 0.01 free"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Explain (-want +got):\n%s", diff)
	}
	if hosts, _ := c.Place(spec, 1, nil); hosts[0] != "h3" {
		t.Errorf("Place = %v, and Explain says h3", hosts)
	}
}

func TestEligibleAndMisplaced(t *testing.T) {
	paused, leaving := hostOf("h2", 1000, 0, "edge=1"), hostOf("h3", 1000, 0, "edge=1")
	paused.Open, leaving.Open, leaving.Leaving = false, false, true
	c := NewCluster([]Node{hostOf("h1", 0, 0, "edge=1"), paused, leaving, hostOf("h4", 1000, 0)})
	spec := appOf("agent", 100, 0, func(s *Spec) { s.Kind = Daemon }, where(Constraint{Attribute: "label.edge", Op: "exists"}))
	for _, id := range []string{"h2", "h3", "h4"} {
		c.Take(id, spec)
	}
	if got, want := c.Eligible(spec), []string{"h1", "h2"}; !slices.Equal(got, want) {
		t.Errorf("Eligible = %v, want %v", got, want)
	}
	for id, want := range map[string]string{"h2": "", "h3": "", "h4": "label edge is missing", "h5": ""} {
		if got := c.Misplaced(spec, id); got != want {
			t.Errorf("Misplaced(%s) = %q, want %q", id, got, want)
		}
	}
	hosts, why := c.Place(spec, 10, nil)
	if want := []WhyNot{{Host: "h1", Name: "h1", Reason: "CPU: 0.1 wanted, 0 free"}}; len(hosts) > 0 || !cmp.Equal(why, want) {
		t.Errorf("Place = %v, %v; want %v: nobody wants it on the others", hosts, why, want)
	}
}

// TestSetKeepsWhatWasTaken changes a host under its replicas.
func TestSetKeepsWhatWasTaken(t *testing.T) {
	c := NewCluster(nil)
	n := hostOf("h1", 1000, 1024*mib)
	c.Set(n)
	spec := appOf("web", 600, 0, func(s *Spec) { s.Ports = []Port{{Container: 80, Proto: "tcp", Host: 80}} })
	c.Take("h1", spec)
	n.Name, n.Total.MilliCPU, n.Ports = "renamed", 2000, []uint32{HostPort("tcp", 443)}
	c.Set(n)
	c.Set(hostOf("h0", 0, 0))
	for port, want := range map[uint16]string{80: "port 80/tcp is taken", 443: "port 443/tcp is taken", 81: ""} {
		got := c.Explain(appOf("other", 1400, 0, func(s *Spec) { s.Ports = []Port{{Container: 80, Proto: "tcp", Host: port}} }))
		i := slices.IndexFunc(got, func(w WhyNot) bool { return w.Host == "h1" })
		if got[i].Reason != want || got[i].Name != "renamed" {
			t.Errorf("port %d: %+v, want %q", port, got[i], want)
		}
	}
	n.Ports = nil
	c.Set(n)
	c.Give("h1", spec)
	c.Give("h1", spec) // once too often
	c.Give("gone", spec)
	c.Take("gone", spec)
	if got := c.Explain(appOf("other", 2000, 1024*mib, func(s *Spec) { s.Ports = []Port{{Container: 80, Proto: "tcp", Host: 80}} })); got[0].Host != "h1" || got[0].Reason != "" {
		t.Errorf("an empty host: %+v", got)
	}
	c.Take("h1", spec)
	c.Remove("h1")
	c.Remove("h1")
	c.Set(n)
	if got := c.Explain(appOf("other", 2000, 0)); got[0].Reason != "" {
		t.Errorf("a host that came anew: %+v", got)
	}
}

// yard makes hosts and specs by chance.
type yard struct {
	rnd   *rand.Rand
	nodes []Node
	specs []*Spec
}

func newYard(seed uint64, hosts, apps int) *yard {
	f := &yard{rnd: rand.New(rand.NewPCG(seed, 1))}
	for i := range hosts {
		n := hostOf(fmt.Sprintf("h%02d", i), int64(f.rnd.IntN(8000)), int64(f.rnd.IntN(8192))*mib)
		n.Total.GPUs = f.rnd.IntN(3)
		if f.rnd.IntN(5) > 0 {
			n.Attr["label.zone"] = string(rune('a' + f.rnd.IntN(3)))
		}
		n.Attr["label.cores"] = fmt.Sprint(f.rnd.IntN(64))
		n.Open = f.rnd.IntN(8) > 0
		f.nodes = append(f.nodes, n)
	}
	for i := range apps {
		f.specs = append(f.specs, f.spec(fmt.Sprintf("app-%d", i), apps))
	}
	return f
}

func (f *yard) spec(name string, apps int) *Spec {
	s := appOf(name, 0, 0)
	if f.rnd.IntN(4) > 0 {
		s.Container.Limits.MilliCPU, s.Container.Limits.Memory = int64(f.rnd.IntN(1500)), int64(f.rnd.IntN(1024))*mib
	}
	chance := func(n int) bool { return f.rnd.IntN(n) == 0 }
	if chance(6) {
		s.GPUs = 1
	}
	if chance(5) {
		s.Ports = []Port{{Container: 80, Proto: "tcp", Host: uint16(8000 + f.rnd.IntN(3))}}
	}
	if chance(4) {
		s.Placement.MaxPerHost = 1 + f.rnd.IntN(3)
	}
	if chance(3) {
		s.Placement.Strategy = BinPack
	}
	if chance(3) {
		s.Placement.Spread = []string{"label.zone", "host", "label.cores"}[f.rnd.IntN(3)]
	}
	if chance(3) {
		s.Placement.Constraints = append(s.Placement.Constraints, []Constraint{
			{"label.zone", "=", []string{"a"}}, {"label.zone", "in", []string{"a", "b"}}, {"label.zone", "!=", []string{"c"}}, {"label.cores", ">=", []string{"20"}}, {"name", "~", []string{"[0-6]$"}},
		}[f.rnd.IntN(5)])
	}
	for chance(3) {
		a := Affinity{App: fmt.Sprintf("app-%d", f.rnd.IntN(apps)), Weight: f.rnd.IntN(201) - 100, Required: chance(3)}
		if chance(2) {
			a.App, a.Constraint = "", &Constraint{"label.zone", "=", []string{"b"}}
		}
		s.Placement.Affinity = append(s.Placement.Affinity, a)
	}
	return s
}

// seeds runs a property for a number of seeds that differ from run to run; the
// failing one is in the name of the subtest.
func seeds(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	t.Helper()
	first := uint64(time.Now().UnixNano())
	for i := range n {
		seed := first + uint64(i)
		if ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { f(t, seed) }); !ok {
			return
		}
	}
}

func TestPlaceProperties(t *testing.T) {
	seeds(t, 300, func(t *testing.T, seed uint64) {
		f := newYard(seed, 1+int(seed%20), 8)
		c := NewCluster(f.nodes)
		byID := map[string]Node{}
		for _, n := range f.nodes {
			byID[n.ID] = n
		}
		on := map[string]map[string]int{} // by host and app
		for round := range 30 {
			spec := f.specs[f.rnd.IntN(len(f.specs))]
			want := 1 + f.rnd.IntN(12)
			shadow := NewCluster(shuffled(f.rnd, f.nodes)) // the same, built in another order
			replay(shadow, f.specs, on)
			hosts, why := c.Place(spec, want, nil)
			again, _ := shadow.Place(spec, want, nil)
			if !slices.Equal(hosts, again) {
				t.Fatalf("round %d: %v, and of the same cluster in another order %v", round, hosts, again)
			}
			for _, h := range hosts {
				if on[h] == nil {
					on[h] = map[string]int{}
				}
				if !byID[h].Open {
					t.Fatalf("round %d: %s is not open", round, h)
				}
				on[h][spec.Name]++
			}
			if len(hosts) < want {
				if one, _ := c.Place(spec, 1, nil); one != nil {
					t.Fatalf("round %d: %d of %d were placed, and then one more on %v", round, len(hosts), want, one)
				}
				if len(why) != len(f.nodes) {
					t.Fatalf("round %d: %d reasons for %d hosts", round, len(why), len(f.nodes))
				}
			} else if why != nil {
				t.Fatalf("round %d: all are placed, and yet %v", round, why)
			}
			checkYard(t, f, byID, on)
		}
		before := c.Explain(f.specs[0])
		for _, h := range slices.Sorted(maps.Keys(on)) {
			for _, s := range f.specs {
				c.Take(h, s)
				c.Give(h, s)
			}
		}
		if diff := cmp.Diff(before, c.Explain(f.specs[0])); diff != "" {
			t.Errorf("Take and Give are not inverse (-before +after):\n%s", diff)
		}
	})
}

func shuffled(rnd *rand.Rand, nodes []Node) []Node {
	nodes = slices.Clone(nodes)
	rnd.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

func replay(c *Cluster, specs []*Spec, on map[string]map[string]int) {
	for h, apps := range on {
		for _, s := range specs {
			for range apps[s.Name] {
				c.Take(h, s)
			}
		}
	}
}

// checkYard sums up what is on hosts, knowing nothing of how it was placed.
func checkYard(t *testing.T, f *yard, nodes map[string]Node, on map[string]map[string]int) {
	t.Helper()
	for id, apps := range on {
		var used Resources
		ports := map[uint32]int{}
		for _, s := range f.specs {
			n := apps[s.Name]
			used.MilliCPU += int64(n) * s.Container.Limits.MilliCPU
			used.Memory += int64(n) * s.Container.Limits.Memory
			used.GPUs += n * s.GPUs
			if n == 0 {
				continue
			}
			for _, p := range s.Ports {
				ports[HostPort(p.Proto, p.Host)] += n
			}
			if most := s.Placement.MaxPerHost; most > 0 && n > most {
				t.Fatalf("%d replicas of %s on %s, at most %d may be", n, s.Name, id, most)
			}
			for _, one := range s.Placement.Constraints {
				if c := one.compile(); !c.holds(nodes[id].Attr) {
					t.Fatalf("%s is on %s, and %v does not hold", s.Name, id, one)
				}
			}
			for _, a := range s.Placement.Affinity {
				there := apps[a.App] > 0
				if a.App == s.Name {
					there = n > 1
				}
				if a.Constraint != nil {
					c := a.Constraint.compile()
					there = c.holds(nodes[id].Attr)
				}
				first := a.App == s.Name
				if a.Required && (a.Weight < 0 && there || a.Weight >= 0 && !there && !first) {
					t.Fatalf("%s is on %s, and the affinity %+v does not hold", s.Name, id, a)
				}
			}
		}
		has := nodes[id].Total
		if used.MilliCPU > has.MilliCPU || used.Memory > has.Memory || used.GPUs > has.GPUs {
			t.Fatalf("%s has %+v, and %+v is used", id, has, used)
		}
		for p, n := range ports {
			if n > 1 {
				t.Fatalf("port %d is used %d times on %s", p, n, id)
			}
		}
	}
}

// TestSpreadIsEqual has room everywhere, and then hosts of one zone without.
func TestSpreadIsEqual(t *testing.T) {
	seeds(t, 50, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var nodes []Node
		zones := 1 + rnd.IntN(6)
		room := map[string]int{}
		for i := range zones + rnd.IntN(20) {
			zone := fmt.Sprint("z", i%zones)
			slots := 1 + rnd.IntN(10)
			room[zone] += slots
			nodes = append(nodes, hostOf(fmt.Sprint("h", i), int64(slots)*100, 1<<40, "zone="+zone))
		}
		total := 0
		for _, n := range room {
			total += n
		}
		n := 1 + rnd.IntN(total)
		c := NewCluster(nodes)
		spec := appOf("web", 100, 0, spreadOver("label.zone"))
		got := map[string]int{}
		for left := n; left > 0; {
			some := 1 + rnd.IntN(left)
			hosts, _ := c.Place(spec, some, nil)
			if len(hosts) != some {
				t.Fatalf("%d of %d are placed, and there is room for all", len(hosts), some)
			}
			for _, h := range hosts {
				got[c.byID[h].Attr["label.zone"]]++
			}
			left -= some
		}
		most := 0
		for _, n := range got {
			most = max(most, n)
		}
		for zone, has := range room {
			if got[zone] < most-1 && got[zone] < has {
				t.Errorf("zone %s has %d replicas and room for %d; another has %d", zone, got[zone], has, most)
			}
		}
	})
}

// FuzzConstraint has constraints of strangers, who must not make it panic.
func FuzzConstraint(f *testing.F) {
	f.Add("label.zone", "=", "a", "b", "a", true)
	f.Add("label.cores", ">", "4", "x", "NaN", true)
	f.Add("name", "~", "^(a|b)+$", "", "aaaa", true)
	f.Add("os", "exists", "", "", "", false)
	f.Fuzz(func(t *testing.T, attribute, op, one, two, value string, there bool) {
		attr := map[string]string{}
		if there {
			attr[attribute] = value
		}
		for _, values := range [][]string{nil, {one}, {one, two}} {
			c := Constraint{attribute, op, values}.compile()
			if c.holds(attr) && c.broken != "" {
				t.Errorf("%v is broken and holds", c.Constraint)
			}
			for _, inverse := range []bool{false, true} {
				if c.why(attr, inverse) == "" || c.whyMany(inverse) == "" {
					t.Errorf("%v has no reason", c.Constraint)
				}
			}
		}
	})
}

// BenchmarkPlace plans what the fleet of docs/scale.md runs: 100 replicas of each
// of 1000 apps on 10,000 hosts.
func BenchmarkPlace(b *testing.B) {
	const apps, each, hosts = 1000, 100, 10_000
	var nodes []Node
	for i := range hosts {
		nodes = append(nodes, hostOf(fmt.Sprintf("h%05d", i), 8000, 32<<30, fmt.Sprint("zone=", i%7), fmt.Sprint("cores=", i%64)))
	}
	var specs []*Spec
	for i := range apps {
		s := appOf(fmt.Sprintf("app-%04d", i), int64(10+i%200), int64(16+i%256)*mib)
		switch i % 5 {
		case 1:
			where(Constraint{"label.zone", "in", []string{"1", "2", "3", "4"}})(s)
		case 2:
			where(Constraint{"label.cores", ">=", []string{"16"}})(s)
			spreadOver("label.zone")(s)
		case 3:
			affine(Affinity{Constraint: &Constraint{"label.zone", "=", []string{"5"}}, Weight: 50})(s)
			s.Placement.MaxPerHost = 2
		case 4:
			s.Ports = []Port{{Container: 80, Proto: "http", Host: uint16(8000 + i)}}
			s.Placement.Strategy = BinPack
		}
		specs = append(specs, s)
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		c := NewCluster(nodes)
		b.StartTimer()
		for _, s := range specs {
			if got, why := c.Place(s, each, nil); len(got) != each {
				b.Fatalf("%s: %d placed; %v", s.Name, len(got), why[0])
			}
		}
	}
	b.ReportMetric(float64(apps*each*b.N)/b.Elapsed().Seconds(), "placements/s")
}
