package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/seal"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// bench is an agent whose loop is the test.
type bench struct {
	*Agent
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc
}

// still makes an agent that has looked at its node and does nothing by itself.
func (r *rig) still() *bench {
	b := &bench{Agent: r.make(nil), t: r.t}
	b.ctx, b.cancel = context.WithCancel(r.t.Context())
	b.gone = openTombstones(r.data, testLog(r.log))
	b.look()
	return b
}

func (b *bench) look() {
	b.t.Helper()
	if err := b.see(b.ctx, time.Now(), true); err != nil {
		b.t.Fatal(err)
	}
	b.tidy(b.ctx)
}

// finish waits for all jobs.
func (b *bench) finish() {
	for len(b.jobs) > 0 {
		b.settle(b.ctx, <-b.outcomes)
	}
}

// end is what the end of Run does.
func (b *bench) end() {
	b.cancel()
	b.wg.Wait()
	if err := b.gone.Close(); err != nil {
		b.t.Error(err)
	}
}

// Whatever orders come in whatever order, with agents that die at any time: a
// launch id has at most one container, and none after it was terminated.
func TestRandomOrders(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := &rig{t: t, node: newFakeNode(), ctl: &fakeController{}, data: t.TempDir(), keys: seal.New(), log: &logs{}}
		r.ctl.Server = unreached()
		r.node.refuse = func(ctx context.Context, req buoy.CreateRequest) (int, string) {
			switch h := len(req.Name) + int(seed); {
			case h%7 == 0:
				return http.StatusBadRequest, "no"
			case h%5 == 0:
				<-ctx.Done() // until the agent ends, or the launch is called off
			}
			return 0, ""
		}
		over := map[string]bool{}
		b := r.still()
		for range 60 {
			var o hostapi.HostAction
			o.Mode = []hostapi.Mode{hostapi.Continue, hostapi.Continue, hostapi.Continue, hostapi.Drain}[rnd.IntN(4)]
			id := func() string { return strings.Repeat("x", 1+rnd.IntN(12)) }
			for range rnd.IntN(5) {
				o.LaunchContainer = append(o.LaunchContainer, launchOrder(id()))
			}
			for range rnd.IntN(2) {
				d := id()
				over[d] = true
				o.TerminateContainer = append(o.TerminateContainer, hostapi.TerminateContainer{LaunchID: d, Force: rnd.IntN(2) == 0})
			}
			o.StartContainer = append(o.StartContainer, hostapi.StartContainer{LaunchID: id()})
			b.obey(b.ctx, o)
			switch rnd.IntN(8) {
			case 0:
				b.end()
				b = r.still()
			case 1:
				b.look()
			case 2:
				select {
				case out := <-b.outcomes:
					b.settle(b.ctx, out)
				default:
				}
			}
			made := map[string]int{}
			for _, id := range r.node.have() {
				if made[id]++; made[id] > 1 {
					t.Fatalf("seed %d: two containers of %s", seed, id)
				}
			}
		}
		b.end()
		r.node.refuse = nil
		b = r.still()
		b.finish()
		b.look()
		for id := range over {
			if slices.Contains(r.node.have(), id) {
				t.Errorf("seed %d: %s was terminated and is there", seed, id)
			}
		}
		for id, n := range r.node.created {
			if n > 1 {
				t.Errorf("seed %d: %s was made %d times", seed, id, n)
			}
		}
		b.end()
	}
}

// Orders may be anything.
func FuzzAction(f *testing.F) {
	for _, a := range []hostapi.HostAction{
		launchOrders(launchOrder("L1"), launchOrder("L1"), launchOrder("L2", func(l *hostapi.LaunchContainer) {
			l.Container, l.DockerImage, l.IsGPU, l.GPUType = nil, "x:1", true, "cuda"
		})),
		launchOrders(launchOrder("L3", func(l *hostapi.LaunchContainer) {
			l.Ports, l.Digest, l.Name = []hostapi.LaunchPort{{Container: 80}, {}}, "sha256:"+strings.Repeat("0", 64), "ä/.."
		})),
		stopOrders("L1", ""),
		{Mode: hostapi.Terminate},
		{Mode: hostapi.Pause, StartContainer: []hostapi.StartContainer{{LaunchID: "L1"}}},
		{Mode: hostapi.Continue, PullDockerImages: []hostapi.PullImage{{DockerImage: "bad"}, {DockerImage: ""}}},
	} {
		text, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"mode":"continue","launchContainer":[{"launchId":"L1","container":{"NAME":"a","ID":"b","Ports":5,"LABELS":{"a":"b"},"image":"y"}}]}`))
	f.Add([]byte(`{"mode":"continue","launchContainer":[{"launchId":"L1","container":[]}]}`))
	data := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		var o hostapi.HostAction
		if json.Unmarshal(text, &o) != nil || len(o.LaunchContainer) > 50 {
			return
		}
		r := &rig{t: t, node: newFakeNode(), ctl: &fakeController{}, data: data, keys: seal.New(), log: &logs{}}
		r.ctl.Server = unreached()
		b := r.still()
		b.gone.ids = map[string]struct{}{} // of earlier runs
		defer b.end()
		var terminated []string
		for _, s := range o.TerminateContainer {
			terminated = append(terminated, s.LaunchID)
		}
		for range 2 {
			b.obey(b.ctx, o)
			b.finish()
			b.look()
		}
		seen := map[string]bool{}
		for _, id := range r.node.have() {
			if seen[id] || slices.Contains(terminated, id) || !validLaunch(id) {
				t.Errorf("container of %q, after %q", id, text)
			}
			seen[id] = true
		}
		for _, s := range b.compose(time.Now(), true).ContainerStatus {
			if !validLaunch(s.LaunchID) || len(s.DockerContainerID) > maxName {
				t.Errorf("reported %+v", s)
			}
		}
	})
}

func FuzzPort(f *testing.F) {
	for _, s := range []string{"8080:80", "127.0.0.1:53:53/udp", "[fd00::1]:80:80", "10.0.0.0/8:80:80/udp", "eth0:8000-8003:80", "[fd00::/8]:1:1", "0:80", "80", "1-0:5", "a:b:c/sctp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parsePort(s)
		if ok && (p.first == 0 || p.last < p.first || p.guest == 0) {
			t.Errorf("%q is %+v", s, p)
		}
		_ = p.at("10.0.0.1")
	})
}

func TestParsePort(t *testing.T) {
	for s, want := range map[string]port{
		"8080:80":                {first: 8080, last: 8080, guest: 80},
		"8080:80/tcp":            {first: 8080, last: 8080, guest: 80},
		"127.0.0.1:53:5353/udp":  {where: "127.0.0.1", first: 53, last: 53, guest: 5353, udp: true},
		"[fd00::1]:80:81":        {where: "fd00::1", first: 80, last: 80, guest: 81},
		"[fd00::/8]:80:81":       {where: "fd00::/8", first: 80, last: 80, guest: 81},
		"10.0.0.0/8:1:2":         {where: "10.0.0.0/8", first: 1, last: 1, guest: 2},
		"10.0.0.0/8:1:2/udp":     {where: "10.0.0.0/8", first: 1, last: 1, guest: 2, udp: true},
		"eth0:8000-8003:80-83":   {where: "eth0", first: 8000, last: 8003, guest: 80},
		"0.0.0.0:8000-8003:8000": {where: "0.0.0.0", first: 8000, last: 8003, guest: 8000},
	} {
		if got, ok := parsePort(s); !ok || got != want {
			t.Errorf("parsePort(%q) = %+v, %v, want %+v", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "80", ":", "a:b", "0:80", "80:0", "2-1:5", "70000:1", "1:2/sctp"} {
		if got, ok := parsePort(s); ok {
			t.Errorf("parsePort(%q) = %+v", s, got)
		}
	}
	for where, want := range map[string]string{"": "10.0.0.7:80", "0.0.0.0": "10.0.0.7:80", "127.0.0.1": "127.0.0.1:80", "eth0": "10.0.0.7:80", "fd00::1": "[fd00::1]:80"} {
		if got := (port{where: where, first: 80}).at("10.0.0.7"); got != want {
			t.Errorf("at %q: %q, want %q", where, got, want)
		}
	}
}

func TestPinned(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for image, want := range map[string]string{
		"nginx":                     "nginx@" + digest,
		"nginx:1.27":                "nginx@" + digest,
		"docker://nginx:1.27":       "nginx@" + digest,
		"reg.local:5000/a/b:v1":     "reg.local:5000/a/b@" + digest,
		"reg.local:5000/a/b":        "reg.local:5000/a/b@" + digest,
		"nginx@" + digest:           "nginx@" + digest,
		"/srv/x.flist":              "/srv/x.flist",
		"./rootfs.tar":              "./rootfs.tar",
		"https://hub/x.flist":       "https://hub/x.flist",
		"hub:user/name":             "hub:user/name",
		"oci:/srv/layout:tag":       "oci:/srv/layout:tag",
		"docker-archive:/x.tar:a:b": "docker-archive:/x.tar:a:b",
		"file:///x":                 "file:///x",
		"":                          "",
	} {
		if got := pinned(image, digest); got != want {
			t.Errorf("pinned(%q) = %q, want %q", image, got, want)
		}
	}
	if got := pinned("nginx:1", "md5:abc"); got != "nginx:1" {
		t.Errorf("pinned by md5: %q", got)
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("n", 100)
	for name, want := range map[string]string{"web-1": "web-1", "a/b c": "a-b-c", "..x": "x", long: long[:maxName], "": "launch-", "---": "launch-"} {
		l := hostapi.LaunchContainer{LaunchID: "L", Name: name}
		if got := containerName(l); got != want && !(want == "launch-" && strings.HasPrefix(got, want)) {
			t.Errorf("containerName(%q) = %q, want %q", name, got, want)
		}
		if got := fallbackName(l); len(got) > maxName || got == fallbackName(hostapi.LaunchContainer{LaunchID: "M", Name: name}) {
			t.Errorf("fallbackName(%q) = %q", name, got)
		}
	}
}

// The document is what the order has, in whatever case its keys are, with what
// is ours to say.
func TestDocument(t *testing.T) {
	doc, err := document(hostapi.LaunchContainer{
		LaunchID: "L1", EngineID: "web", BuildID: "web@2", Digest: "sha256:" + strings.Repeat("00", 32),
		Container: json.RawMessage(`{"ID":"x","Name":"x","PORTS":["1:1"],"Image":"nginx:1","Labels":{"buoy.launch":"L9","buoy.revision":"2","a":"b"},"future":{"x":[1]}}`),
	}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"future":{"x":[1]},"image":"nginx@sha256:` + strings.Repeat("00", 32) + `","labels":{"a":"b","buoy.app":"web","buoy.launch":"L1","buoy.revision":"2"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, bad := range []string{`[]`, `"x"`, `{`, `{"labels":5}`, `{"flist":7}`} {
		l := hostapi.LaunchContainer{LaunchID: "L1", Container: json.RawMessage(bad), Digest: "x"}
		if doc, err := document(l, "", ""); err == nil {
			t.Errorf("%s is read as %v", bad, doc)
		}
	}
}

// A real port that a program has is left alone.
func TestBindable(t *testing.T) {
	for network, listen := range map[string]func() (int, func() error){"tcp": listenTCP(t), "udp": listenUDP(t)} {
		n, done := listen()
		if bindable(t.Context(), uint16(n)) {
			t.Errorf("%s port %d is free although it is not", network, n)
		}
		if err := done(); err != nil {
			t.Fatal(err)
		}
		if !bindable(t.Context(), uint16(n)) {
			t.Errorf("%s port %d is not free although it is", network, n)
		}
	}
}

// Launches at the same time do not get the same port.
func TestClaims(t *testing.T) {
	p := ports{first: 20000, last: 20009, claimed: map[uint16]bool{}, free: func(_ context.Context, n uint16) bool { return n != 20003 }}
	wants := []hostapi.LaunchPort{{Container: 80}, {Container: 53, UDP: true}, {Container: 443, Host: 20005}}
	has := []buoy.ContainerSummary{{Ports: []string{"20000-20001:80"}}}
	seen := map[string]bool{}
	var releases []func()
	for i := range 3 {
		got, release, err := p.claim(t.Context(), fmt.Sprint("L", i), wants, has, map[uint16]bool{})
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
		for _, g := range got[:2] {
			if host, _, _ := strings.Cut(g, ":"); seen[host] || host == "20003" || host == "20005" || host < "20002" {
				t.Errorf("%v beside %v", got, seen)
			} else {
				seen[host] = true
			}
		}
		if !strings.HasSuffix(got[1], ":53/udp") || got[2] != "20005:443" {
			t.Errorf("got %v", got)
		}
	}
	if got, _, err := p.claim(t.Context(), "L", wants, has, map[uint16]bool{}); err == nil {
		t.Errorf("got %v although all are taken", got)
	}
	for _, release := range releases {
		release()
	}
	if len(p.claimed) != 0 {
		t.Errorf("still claimed: %v", p.claimed)
	}
}

// The node's states become those of the protocol. What it has not looked after
// yet since it started is no failure.
func TestStateOf(t *testing.T) {
	ended := time.Now()
	for _, c := range []struct {
		one  buoy.Container
		want string
	}{
		{buoy.Container{State: "running"}, "running"},
		{buoy.Container{State: "standby"}, "standby"},
		{buoy.Container{State: "creating"}, "creating"},
		{buoy.Container{State: "restarting", Reason: "Exited", Finished: ended}, "restarting"},
		{buoy.Container{State: "halted", Reason: "Exited", Finished: ended}, "halted"},
		{buoy.Container{State: "halted", Reason: "Stopped"}, "halted"},
		{buoy.Container{State: "halted"}, "restarting"},
		{buoy.Container{State: "stopping"}, "stopping"},
		{buoy.Container{State: "deleting"}, "stopping"},
		{buoy.Container{State: "dreaming"}, "stopping"},
	} {
		if got := stateOf(c.one); got != c.want {
			t.Errorf("%+v is %q, want %q", c.one, got, c.want)
		}
	}
}

// A report that hardly differs is the same; one that does is not.
func TestCalm(t *testing.T) {
	at := time.Now()
	old := hostapi.ContainerStatus{
		LaunchID: "L", CPUUtilization: 50, MemoryUsed: 100 << 20, Throttled: 10, State: "running",
		Health: &hostapi.Health{Status: "healthy", LastCheck: at, ResponseTime: 0.002},
	}
	with := func(f func(*hostapi.ContainerStatus)) hostapi.ContainerStatus {
		s := old
		h := *old.Health
		s.Health = &h
		f(&s)
		return s
	}
	for name, s := range map[string]hostapi.ContainerStatus{
		"noise": with(func(s *hostapi.ContainerStatus) {
			s.CPUUtilization, s.MemoryUsed, s.Throttled = 54, 101<<20, 10.5
			s.Health.LastCheck, s.Health.ResponseTime = at.Add(time.Minute), 0.009
		}),
	} {
		if got := calm(old, s); !cmp.Equal(got, old) {
			t.Errorf("%s: %s", name, cmp.Diff(old, got))
		}
	}
	for name, s := range map[string]hostapi.ContainerStatus{
		"cpu":      with(func(s *hostapi.ContainerStatus) { s.CPUUtilization = 60 }),
		"memory":   with(func(s *hostapi.ContainerStatus) { s.MemoryUsed = 110 << 20 }),
		"health":   with(func(s *hostapi.ContainerStatus) { s.Health.Status = "unhealthy" }),
		"failures": with(func(s *hostapi.ContainerStatus) { s.Health.Failures = 1 }),
		"state":    with(func(s *hostapi.ContainerStatus) { s.State = "halted" }),
		"none":     with(func(s *hostapi.ContainerStatus) { s.Health = nil }),
	} {
		if got := calm(old, s); !cmp.Equal(got, s) {
			t.Errorf("%s: %s", name, cmp.Diff(s, got))
		}
	}
	first := with(func(s *hostapi.ContainerStatus) { s.MemoryUsed = 0 })
	if got := calm(first, with(func(s *hostapi.ContainerStatus) { s.MemoryUsed = 4096 })); got.MemoryUsed != 4096 {
		t.Errorf("the first measurement is noise: %+v", got)
	}
}

// A container that was seen while its start was tried, and is gone because that
// failed, has been deleted by nobody.
func TestMissedAfterFailure(t *testing.T) {
	before := newLookout()
	for _, id := range []string{"L1", "L2"} {
		before.ours[id], before.all["web-"+id] = "web-"+id, seen{}
	}
	a := &Agent{lookout: newLookout(), gone: &tombstones{}, absent: map[string]hostapi.ContainerStatus{"L1": {LaunchID: "L1", Reason: "NotMade"}}}
	a.missed(before)
	if got := a.absent["L1"].Reason + " " + a.absent["L2"].Reason; got != "NotMade Deleted" {
		t.Errorf("absent for %q", got)
	}
}
