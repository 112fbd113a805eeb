package proxy

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

// many are apps with so many replicas each, and a rule for each of two hosts
// and a stream.
func many(apps, replicas int) (all []App) {
	for i := range apps {
		name := fmt.Sprintf("app-%05d", i)
		a := App{Name: name, Port: 80, Rules: []Rule{{Host: name}, {Host: name + ".localhost"}}}
		a.Streams = []Stream{{Proto: "tcp", Listen: netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(1000+i)), Port: 80}}
		for j := range replicas {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), uint16(1024+j))
			a.Backends = append(a.Backends, Backend{ID: fmt.Sprintf("%s-%d", name, j), Ports: map[uint16]netip.AddrPort{80: at}})
		}
		all = append(all, a)
	}
	return all
}

// BenchmarkUpdate changes one replica of one app. What it costs is to depend on
// that app alone, and not by the square of its replicas.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []struct{ apps, replicas int }{{10, 100}, {1000, 100}, {1, 1000}, {1, 4000}} {
		b.Run(fmt.Sprintf("%dx%d", n.apps, n.replicas), func(b *testing.B) {
			p, all := full(b, n.apps, n.replicas)
			one := all[n.apps/2]
			b.ReportAllocs()
			for b.Loop() {
				one.Backends[0].Draining = !one.Backends[0].Draining
				set(b, p, just(one))
			}
		})
	}
}

// BenchmarkComeAndGo adds an app and takes it away.
func BenchmarkComeAndGo(b *testing.B) {
	for _, apps := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(apps), func(b *testing.B) {
			p, all := full(b, apps, 1)
			for b.Loop() {
				unset(b, p, all[0].Name)
				set(b, p, all[:1])
			}
		})
	}
}

func full(t testing.TB, apps, replicas int) (*Proxy, []App) {
	t.Helper()
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	all := many(apps, replicas)
	set(t, p, all)
	return p, all
}

// TestUpdateLeavesOthersAlone: what an app has is not even made anew when
// another one changes, and neither is the table when replicas alone do.
func TestUpdateLeavesOthersAlone(t *testing.T) {
	p, all := full(t, 20, 3)
	versions := func() map[string]*version {
		m := map[string]*version{}
		for a := range p.table.Load().apps.all() {
			m[a.name] = a.now.Load()
		}
		return m
	}
	before, table := versions(), p.table.Load()
	one := all[7]
	one.Backends = one.Backends[1:]
	set(t, p, just(one))
	if p.table.Load() != table {
		t.Error("there is another table although only a replica has gone")
	}
	one.Rules = one.Rules[:1]
	set(t, p, just(one))
	if p.table.Load() == table {
		t.Error("the table is the same although a rule has gone")
	}
	unset(t, p, all[8].Name)
	after := versions()
	if len(after) != 19 || p.Len() != 19 {
		t.Errorf("%d apps are there, and %d are counted", len(after), p.Len())
	}
	for name, v := range after {
		if same := before[name] == v; same != (name != one.Name) {
			t.Errorf("app %s is the same: %v", name, same)
		}
	}
}

// TestUpdateTakesOver: what one app gives up another may take at once, and
// what would clash changes nothing.
func TestUpdateTakesOver(t *testing.T) {
	named := func(name, host string, stream netip.AddrPort, at netip.AddrPort) App {
		a := web(at)
		a.Name, a.Rules = name, []Rule{{Host: host}}
		a.Streams = []Stream{{Proto: "tcp", Listen: stream, Port: 80}}
		return a
	}
	one, two := echoing(t, "1"), echoing(t, "2")
	free := dead(t)
	all := netip.AddrPortFrom(netip.IPv4Unspecified(), free.Port())
	p := begin(t, Config{}, just(named("a", "x.example", all, one)), nil)
	first := func() string {
		b := make([]byte, 1)
		_, _ = dial(t, free).Read(b)
		return string(b)
	}
	owner := func(host string) string {
		if a := p.table.Load().owner([]byte(host), []byte("/")); a != nil {
			return a.name
		}
		return ""
	}
	b := named("b", "x.example", free, two)
	if err := p.Check(b); !errors.Is(err, errs.Conflict) {
		t.Errorf("Check: %v", err)
	}
	if err := p.Update(just(b)); !errors.Is(err, errs.Conflict) {
		t.Errorf("Update: %v", err)
	}
	if got := first() + owner("x.example"); got != "1a" {
		t.Errorf("after what was refused: %s", got)
	}
	a := named("a", "y.example", netip.AddrPortFrom(netip.IPv4Unspecified(), 0), one)
	set(t, p, just(b, a))
	if got := first() + owner("x.example") + owner("y.example"); got != "2ba" {
		t.Errorf("after b has taken over from a: %s", got)
	}
	a.Rules, a.Streams = b.Rules, b.Streams
	if err := p.Update(just(a), "b"); err != nil {
		t.Fatal(err)
	}
	if got := first() + owner("x.example") + owner("y.example"); got != "1a" {
		t.Errorf("after b is gone: %s", got)
	}
}

// TestUpdatesAmountToTheWhole makes changes by chance, most of which clash. It
// knows the rules by comparing all with all.
func TestUpdatesAmountToTheWhole(t *testing.T) {
	own := netip.MustParseAddrPort("127.0.0.1:7000")
	p, err := New(Config{HTTP: []string{own.String()}})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	hosts := []string{"", "a.example", "b.example", "*.example", "x.a.example", "*.a.example"}
	paths := []string{"", "/p", "/p/q", "/r"}
	ips := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified(), own.Addr(), netip.MustParseAddr("127.0.0.2")}
	pick := func(name string) App {
		a := App{Name: name, Port: 80}
		for range r.IntN(4) {
			a.Rules = append(a.Rules, Rule{Host: hosts[r.IntN(len(hosts))], Path: paths[r.IntN(len(paths))]})
		}
		if r.IntN(3) == 0 {
			listen := netip.AddrPortFrom(ips[r.IntN(len(ips))], uint16(6996+r.IntN(5)))
			a.Streams = []Stream{{Proto: []string{"tcp", "udp"}[r.IntN(2)], Listen: listen, Port: 80}}
		}
		return a
	}
	is := map[string]App{}
	done, refused := 0, 0
	for range 5000 {
		next := maps.Clone(is)
		var apps []App
		var gone []string
		for _, i := range r.Perm(12)[:1+r.IntN(3)] {
			name := string(rune('a' + i))
			if r.IntN(3) == 0 {
				gone = append(gone, name)
				delete(next, name)
				continue
			}
			a := pick(name)
			apps = append(apps, a)
			next[name] = a
		}
		clashes := anyClash(next, Stream{Proto: "tcp", Listen: own}.door(""))
		if len(apps) == 1 && len(gone) == 0 {
			if err := p.Check(apps[0]); (err != nil) != clashes {
				t.Fatalf("Check: %v, want a clash: %v", err, clashes)
			}
		}
		err := p.Update(apps, gone...)
		if errors.Is(err, errs.Conflict) != clashes || err != nil && !clashes {
			t.Fatalf("Update: %v, want a clash: %v", err, clashes)
		}
		if clashes {
			refused++
		} else {
			done++
			is = next
		}
		whole(t, p, is, hosts, paths)
	}
	if done < 500 || refused < 500 {
		t.Errorf("%d updates were done and %d refused: that shows little", done, refused)
	}
}

// anyClash compares all with all.
func anyClash(apps map[string]App, own door) bool {
	rules, doors := map[Rule]string{}, []owned{{door: own, app: &app{}}}
	for name, a := range apps {
		for _, r := range a.Rules {
			if other, ok := rules[r]; ok && other != name {
				return true
			}
			rules[r] = name
		}
		for _, s := range a.Streams {
			d := s.door(name)
			if slices.ContainsFunc(doors, func(o owned) bool { return d.meets(o.door) }) {
				return true
			}
			doors = append(doors, owned{door: d})
		}
	}
	return false
}

// whole wants a proxy to be as one that is given all at once.
func whole(t *testing.T, p *Proxy, apps map[string]App, hosts, paths []string) {
	t.Helper()
	fresh, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apps {
		set(t, fresh, just(a))
	}
	got, want := p.table.Load(), fresh.table.Load()
	name := func(s *service) string {
		if s == nil {
			return ""
		}
		return s.name
	}
	for _, host := range append(hosts, "c.example", "x.b.example", "other") {
		for _, path := range append(paths, "/p/q/z", "/other") {
			g, w := name(got.find([]byte(host), []byte(path))), name(want.find([]byte(host), []byte(path)))
			if g != w {
				t.Fatalf("%s%s is %q, want %q", host, path, g, w)
			}
		}
	}
	doors := func(of *table) (list []string) {
		for l := range of.streams.all() {
			for _, o := range l {
				list = append(list, fmt.Sprint(o.door, o.app.name, name(of.stream(o.door))))
			}
		}
		slices.Sort(list)
		return list
	}
	if g, w := doors(got), doors(want); !slices.Equal(g, w) {
		t.Fatalf("doors %v, want %v", g, w)
	}
}

// TestUpdateBesideReaders is for the race detector.
func TestUpdateBesideReaders(t *testing.T) {
	all := many(10, 5)
	for i := range all {
		all[i].Streams = []Stream{{Proto: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Port: 80}}
	}
	p := begin(t, Config{}, all, nil)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p.Stats()
				p.Addrs()
				_ = p.Check(all[3])
				if s := p.table.Load().find([]byte(all[3].Name), []byte("/")); s != nil {
					if e := s.enter(choice{}, p.now(), nil); e != nil {
						e.end()
					}
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range 100 {
				a := all[5*w+i%5]
				a.Backends = a.Backends[i%5:]
				if err := p.Update(just(a)); err != nil {
					t.Error(err)
				}
				if i%10 == 9 {
					if err := p.Update(nil, a.Name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	for name, s := range p.Stats() {
		if s.Active != 0 {
			t.Errorf("app %s has %d under way", name, s.Active)
		}
	}
}
