package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/seal"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func TestLaunchReportTerminate(t *testing.T) {
	r := newRig(t)
	r.ctl.order(launchOrders(launchOrder("L1", func(l *hostapi.LaunchContainer) {
		l.Ports = []hostapi.LaunchPort{{Container: 80}, {Container: 53, UDP: true, Host: 5353}}
		l.Digest = "sha256:" + strings.Repeat("ab", 32)
	})))
	r.start(func(c *Config) { c.Address = "10.0.0.7"; c.Labels = map[string]string{"zone": "a"} })
	s := r.ctl.has(t, "L1", "running")
	if s.DockerContainerID != "web-L1" || s.EngineID != "web" || s.Ports["53/udp"] != "10.0.0.7:5353" || !strings.HasPrefix(s.Ports["80"], "10.0.0.7:2") {
		t.Errorf("reported %+v", s)
	}
	c := read(r.node, func() buoy.Container { return *r.node.all["web-L1"] })
	wantLabels := map[string]string{labelLaunch: "L1", labelApp: "web", labelRevision: "web@1", "buoy.replica": "1"}
	if diff := cmp.Diff(wantLabels, c.Labels); diff != "" || c.Flist != "docker.io/library/nginx@sha256:"+strings.Repeat("ab", 32) {
		t.Errorf("made of %s, labels (-want +got)\n%s", c.Flist, diff)
	}
	r.ctl.do(func() {
		if i := r.ctl.registers[0].Info; i.HostID != "n1" || i.DockerHostID != "n1" || i.Labels["zone"] != "a" || i.Address != "10.0.0.7" || i.Name != "host" {
			t.Errorf("registered as %+v", i)
		}
		if s := r.ctl.reports[0]; s.NumCPU != 4 || s.VCPUAvailable != 3072 || s.CPUUtilized != 25 || s.MemoryAvailable != 12<<30 || s.Boot == "" || s.Sequence != 1 {
			t.Errorf("reported %+v", s)
		}
	})
	session, _ := r.Session()
	if session != (Session{HostID: "n1", Token: "host-token-1"}) {
		t.Errorf("session = %+v", session)
	}

	r.ctl.order(stopOrders("L1", "never-heard-of"))
	r.Poke()
	r.ctl.has(t, "L1", "")
	if got := r.node.have(); got != nil {
		t.Errorf("left: %v", got)
	}
}

// The same orders again and again, from several answers at once as far as an
// agent can tell, make one container each.
func TestLaunchOnce(t *testing.T) {
	r := newRig(t)
	slow := make(chan struct{})
	r.node.refuse = func(ctx context.Context, _ buoy.CreateRequest) (int, string) {
		select {
		case <-slow:
		case <-ctx.Done():
		}
		return 0, ""
	}
	var orders []hostapi.LaunchContainer
	for i := range 20 {
		l := launchOrder(fmt.Sprint("L", i))
		orders = append(orders, l, l)
	}
	r.ctl.order(launchOrders(orders...))
	r.start(nil)
	r.ctl.has(t, "L19", "creating") // although only eight at a time are made
	for range 10 {
		n := 0
		r.ctl.do(func() { n = len(r.ctl.reports) })
		r.Poke()
		r.ctl.until(t, "another report", func() bool { return len(r.ctl.reports) > n })
	}
	if n := len(r.node.have()); n > launchesAtOnce {
		t.Errorf("%d launches at once", n)
	}
	close(slow)
	for i := range 20 {
		r.ctl.has(t, fmt.Sprint("L", i), "running")
	}
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	for id, n := range r.node.created {
		if n != 1 {
			t.Errorf("%s was made %d times", id, n)
		}
	}
}

// What was ended is not launched again by an old order: not now, not by the
// next agent, not when the last one died in the middle of deleting.
func TestTombstones(t *testing.T) {
	r := newRig(t)
	r.ctl.order(launchOrders(launchOrder("L1"), launchOrder("L2")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	r.ctl.has(t, "L2", "running")

	// L2 refuses to go, and the agent dies meanwhile.
	r.node.mu.Lock()
	r.node.remove = func(ctx context.Context, name string) (int, string) {
		if name == "web-L2" {
			<-ctx.Done()
			return http.StatusServiceUnavailable, "cut off"
		}
		return 0, ""
	}
	r.node.mu.Unlock()
	r.ctl.order(stopOrders("L1", "L2"))
	r.Poke()
	r.ctl.has(t, "L1", "")
	r.ctl.has(t, "L2", "stopping")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := r.node.have(); !cmp.Equal(got, []string{"L2"}) {
		t.Fatalf("left: %v", got)
	}

	// An old answer comes again. Nothing is launched, and L2 goes without a word.
	r.node.mu.Lock()
	r.node.remove = nil
	r.node.mu.Unlock()
	r.ctl.order(launchOrders(launchOrder("L1"), launchOrder("L2"), launchOrder("L3")))
	r.start(nil)
	r.ctl.has(t, "L3", "running")
	r.ctl.has(t, "L2", "")
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	if diff := cmp.Diff(map[string]int{"L1": 1, "L2": 1, "L3": 1}, r.node.created); diff != "" {
		t.Errorf("made (-want +got)\n%s", diff)
	}
	r.ctl.do(func() {
		if got := r.ctl.tokens; !cmp.Equal(got, []string{joinToken, "host-token-1"}) {
			t.Errorf("registered with %v", got)
		}
	})
}

// A launch that cannot be is reported until it is terminated, and then it is over.
func TestAbsent(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	status := http.StatusServiceUnavailable
	r.node.refuse = func(_ context.Context, req buoy.CreateRequest) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		return status, "the registry is away"
	}
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(nil)
	s := r.ctl.has(t, "L1", "absent")
	if s.Reason != "Unavailable" || s.Message != "the registry is away" || s.EngineID != "web" {
		t.Errorf("reported %+v", s)
	}
	mu.Lock()
	status = 0 // it would work now
	mu.Unlock()
	for range 3 {
		n := 0
		r.ctl.do(func() { n = len(r.ctl.reports) })
		r.Poke()
		r.ctl.until(t, "another report", func() bool { return len(r.ctl.reports) > n })
	}
	if got := r.node.have(); got != nil {
		t.Errorf("launched in spite of its report: %v", got)
	}
	a := launchOrders(launchOrder("L1"), launchOrder("L2"), launchOrder("", func(l *hostapi.LaunchContainer) { l.Name = "none" }))
	a.TerminateContainer = stopOrders("L1").TerminateContainer
	r.ctl.order(a)
	r.Poke()
	r.ctl.has(t, "L2", "running")
	r.ctl.has(t, "L1", "")
	if got := r.node.have(); !cmp.Equal(got, []string{"L2"}) {
		t.Errorf("there are %v", got)
	}
	if r.log.count("without a usable launch id") != 1 {
		t.Error("an order without launch id is not logged once")
	}
}

// A terminate order ends a launch that is under way.
func TestTerminateUnderWay(t *testing.T) {
	r := newRig(t)
	r.node.refuse = func(ctx context.Context, _ buoy.CreateRequest) (int, string) {
		<-ctx.Done()
		return 0, ""
	}
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(nil)
	r.ctl.has(t, "L1", "creating")
	r.ctl.order(stopOrders("L1"))
	r.Poke()
	r.ctl.has(t, "L1", "")
	if got := r.node.have(); got != nil {
		t.Errorf("there are %v", got)
	}
}

func TestForce(t *testing.T) {
	r := newRig(t)
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	killed := make(chan struct{})
	r.node.mu.Lock()
	r.node.remove = func(ctx context.Context, _ string) (int, string) { // its grace is long
		for {
			changed := r.node.Changed()
			if read(r.node, func() int { return r.node.kills }) > 0 {
				close(killed)
				return 0, ""
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return http.StatusServiceUnavailable, "cut off"
			}
		}
	}
	r.node.mu.Unlock()
	r.ctl.order(stopOrders("L1"))
	r.Poke()
	r.ctl.has(t, "L1", "stopping")
	// Somebody loses patience.
	a := stopOrders("L1")
	a.TerminateContainer[0].Force = true
	r.ctl.order(a)
	r.Poke()
	r.ctl.has(t, "L1", "")
	<-killed
}

// Only what orders made is touched: neither a container with the name that an
// order wants, nor one that a controller names.
func TestOthersAreLeftAlone(t *testing.T) {
	r := newRig(t)
	r.node.put(buoy.Container{Name: "web-L1", State: "running", Limits: buoy.Limits{MilliCPU: 500, Memory: 1 << 30}})
	a := launchOrders(launchOrder("L1"))
	a.TerminateContainer = []hostapi.TerminateContainer{{DockerContainerID: "web-L1"}, {DockerContainerID: "web-L1", LaunchID: "L9", Force: true}}
	r.ctl.order(a)
	r.start(nil)
	s := r.ctl.has(t, "L1", "running")
	if s.DockerContainerID == "web-L1" || !strings.HasPrefix(s.DockerContainerID, "web-L1-") {
		t.Errorf("its name is %q", s.DockerContainerID)
	}
	r.ctl.do(func() {
		if got := r.ctl.reports[0]; got.NumContainers != 1 || got.Others != (hostapi.Reserved{MilliCPU: 500, Memory: 1 << 30}) {
			t.Errorf("reported %+v", got)
		}
	})
	r.ctl.order(hostapi.HostAction{TerminateContainer: []hostapi.TerminateContainer{{DockerContainerID: s.DockerContainerID}}})
	r.Poke()
	r.ctl.has(t, "L1", "")
	if read(r.node, func() *buoy.Container { return r.node.all["web-L1"] }) == nil {
		t.Error("a container of somebody else was deleted")
	}
	// Somebody deletes a container of ours.
	r.ctl.order(launchOrders(launchOrder("L2")))
	r.Poke()
	r.ctl.has(t, "L2", "running")
	r.node.change(func() { delete(r.node.all, "web-L2") })
	if s := r.ctl.has(t, "L2", "absent"); s.Reason != "Deleted" || s.EngineID != "web" {
		t.Errorf("reported %+v", s)
	}
}

// The controller hears at once which GPUs there are and whose they are.
func TestGPUs(t *testing.T) {
	r := newRig(t)
	r.node.gpus = map[string][]string{"GPU-1": nil, "GPU-2": {"other"}, "GPU-3": {"web-L1"}}
	r.node.put(buoy.Container{Name: "other", State: "running"})
	r.node.put(buoy.Container{Name: "web-L1", State: "running", Labels: map[string]string{labelLaunch: "L1"}})
	r.start(nil)
	reported := func(free, others int) {
		t.Helper()
		r.ctl.until(t, fmt.Sprintf("%d free GPUs and %d of others", free, others), func() bool {
			n := len(r.ctl.reports)
			return n > 0 && r.ctl.reports[n-1].GPUAvailable == free && r.ctl.reports[n-1].Others.GPUs == others
		})
	}
	reported(1, 1)
	r.node.change(func() { r.node.gpus["GPU-1"] = []string{"other"} })
	reported(0, 2)
	r.node.change(func() { delete(r.node.gpus, "GPU-2") }) // it fell off the bus
	reported(0, 1)
	r.ctl.until(t, "another registration", func() bool {
		return len(r.ctl.registers) == 2 && len(r.ctl.registers[1].Info.GPUs) == 2 && r.ctl.registers[1].Status.NumGPU == 2
	})
}

func TestPorts(t *testing.T) {
	r := newRig(t)
	r.node.put(buoy.Container{Name: "other", State: "running", Ports: []string{"30000:80", "127.0.0.1:30001:53/udp"}})
	var mu sync.Mutex
	var asked []string
	r.node.refuse = func(_ context.Context, req buoy.CreateRequest) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		if len(req.Ports) == 0 {
			return 0, ""
		}
		asked = append(asked, req.Ports[0])
		if host, _, _ := strings.Cut(req.Ports[0], ":"); host != "30004" {
			return http.StatusConflict, "port " + host + " is in use"
		}
		return 0, ""
	}
	any80 := func(l *hostapi.LaunchContainer) { l.Ports = []hostapi.LaunchPort{{Container: 80}} }
	r.ctl.order(launchOrders(launchOrder("L1", any80)))
	r.start(func(c *Config) { c.FirstPort, c.LastPort = 30000, 30005 })
	if s := r.ctl.has(t, "L1", "running"); s.Ports["80"] != ":30004" {
		t.Errorf("published at %v", s.Ports)
	}
	for _, a := range asked {
		if strings.HasPrefix(a, "30000:") || strings.HasPrefix(a, "30001:") {
			t.Errorf("asked for %v, of which the first two are taken", asked)
		}
	}
	// No port is left for this one, and a fixed one is taken for good.
	r.ctl.order(launchOrders(launchOrder("L1"), launchOrder("L2", any80), launchOrder("L3", func(l *hostapi.LaunchContainer) {
		l.Ports = []hostapi.LaunchPort{{Container: 80, Host: 8080}}
	})))
	r.Poke()
	if s := r.ctl.has(t, "L2", "absent"); !strings.Contains(s.Message, "30000 to 30005") {
		t.Errorf("reported %+v", s)
	}
	if s := r.ctl.has(t, "L3", "absent"); s.Reason != "Conflict" || !strings.Contains(s.Message, "8080") {
		t.Errorf("reported %+v", s)
	}
}

func TestStandbyAndPull(t *testing.T) {
	r := newRig(t)
	a := launchOrders(launchOrder("L1", func(l *hostapi.LaunchContainer) {
		l.Container = json.RawMessage(`{"flist":"x","nics":null,"standby":true}`)
	}))
	for range 3 {
		a.PullDockerImages = append(a.PullDockerImages, hostapi.PullImage{DockerImage: "good"}, hostapi.PullImage{DockerImage: "bad"})
	}
	r.ctl.order(a)
	r.start(nil)
	r.ctl.has(t, "L1", "standby")
	a.StartContainer = []hostapi.StartContainer{{LaunchID: "L1"}, {LaunchID: "unknown"}}
	r.ctl.order(a)
	r.Poke()
	r.ctl.has(t, "L1", "running")
	r.Poke()
	for read(r.node, func() int { return len(r.node.pulls) }) < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"good": 1, "bad": 1}, r.node.pulls); diff != "" {
		t.Errorf("pulled (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"web-L1": 1}, r.node.starts); diff != "" {
		t.Errorf("started (-want +got)\n%s", diff)
	}
}

// Drained and paused hosts launch nothing, and what runs stays.
func TestDrain(t *testing.T) {
	for _, mode := range []hostapi.Mode{hostapi.Drain, hostapi.Pause} {
		t.Run(string(mode), func(t *testing.T) {
			r := newRig(t)
			r.ctl.order(launchOrders(launchOrder("L1"), launchOrder("L2")))
			r.start(nil)
			r.ctl.has(t, "L1", "running")
			r.ctl.has(t, "L2", "running")
			a := launchOrders(launchOrder("L1"), launchOrder("L3"))
			a.Mode, a.TerminateContainer = mode, stopOrders("L2").TerminateContainer
			r.ctl.order(a)
			r.Poke()
			r.ctl.has(t, "L2", "")
			if got := r.node.have(); !cmp.Equal(got, []string{"L1"}) {
				t.Errorf("there are %v", got)
			}
			a.Mode = hostapi.Continue
			r.ctl.order(a)
			r.Poke()
			r.ctl.has(t, "L3", "running")
		})
	}
}

// A host that is told to terminate deletes what it launched, says so, and
// forgets the controller; when it comes back it is a new one.
func TestTerminateHost(t *testing.T) {
	r := newRig(t)
	r.node.put(buoy.Container{Name: "mine", State: "running"})
	r.ctl.order(launchOrders(launchOrder("L1"), launchOrder("L2")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	r.ctl.has(t, "L2", "running")
	a := launchOrders(launchOrder("L4"))
	a.Mode = hostapi.Terminate
	r.ctl.order(a)
	r.Poke()
	r.ctl.until(t, "a report without containers", func() bool { return len(r.ctl.known) == 0 })
	for r.log.count("has left its controller") == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := r.node.have(); got != nil || read(r.node, func() *buoy.Container { return r.node.all["mine"] }) == nil {
		t.Errorf("there are %v", got)
	}
	if _, err := os.Stat(keptFile(r.data)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the token is kept: %v", err)
	}
	if s, _ := r.Session(); s != (Session{}) {
		t.Errorf("session = %+v", s)
	}
	r.ctl.order(launchOrders(launchOrder("L1"), launchOrder("L5")))
	r.start(nil)
	r.ctl.has(t, "L5", "running")
	if got := r.node.have(); !cmp.Equal(got, []string{"L5"}) {
		t.Errorf("there are %v", got)
	}
	r.ctl.do(func() {
		if got := r.ctl.tokens; !cmp.Equal(got, []string{joinToken, joinToken}) {
			t.Errorf("registered with %v", got)
		}
	})
}

// A controller that has lost the host makes it register again; containers
// notice nothing.
func TestRegisterAgain(t *testing.T) {
	r := newRig(t)
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	r.ctl.do(func() { r.ctl.token, r.ctl.known = "another", nil })
	r.Poke()
	r.ctl.has(t, "L1", "running")
	r.ctl.do(func() {
		if diff := cmp.Diff([]string{joinToken, "host-token-1", joinToken}, r.ctl.tokens); diff != "" {
			t.Errorf("registered with (-want +got)\n%s", diff)
		}
		if r.ctl.registers[1].Info.HostID != "n1" {
			t.Errorf("registered as %+v", r.ctl.registers[1].Info)
		}
		r.ctl.before = func(w http.ResponseWriter, req *http.Request) bool {
			if strings.HasSuffix(req.URL.Path, "/updatestatus") {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			return false
		}
	})
	r.Poke()
	r.ctl.until(t, "a third registration", func() bool { return len(r.ctl.registers) == 3 })
	if n := read(r.node, func() int { return r.node.created["L1"] }); n != 1 {
		t.Errorf("L1 was made %d times", n)
	}
}

// An agent state that cannot be used is said to be so, and the host registers anew.
func TestKept(t *testing.T) {
	good := kept{Controller: "http://c:1", HostID: "h", Token: "t"}
	for text, want := range map[string]kept{
		`{"controller":"http://c:1","hostID":"h","token":"t"}`: good,
		`{"controller":"http://d:1","hostID":"h","token":"t"}`: {},
		`{"controller":"http://c:1","hostID":"h","token":""}`:  {},
		`{"controller":"http://c:1","hos`:                      {},
		"":                                                     {},
		"null":                                                 {},
	} {
		r := &rig{t: t, data: t.TempDir(), keys: seal.New(), log: &logs{}}
		if err := os.WriteFile(keptFile(r.data), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := readKept(r.data, "http://c:1", r.keys, testLog(r.log))
		if got != want {
			t.Errorf("%q is read as %+v", text, got)
		}
		if (r.log.count("registers anew") == 1) != (want == kept{}) {
			t.Errorf("%q: it is not said", text)
		}
		if err := got.write(r.data, r.keys); err != nil {
			t.Fatal(err)
		}
		if again := readKept(r.data, "http://c:1", r.keys, testLog(r.log)); again != got {
			t.Errorf("%+v is read as %+v", got, again)
		}
		if text, err := os.ReadFile(keptFile(r.data)); err == nil && strings.Contains(string(text), `"token":"t"`) {
			t.Errorf("the token is kept plain: %s", text)
		}
		if other := readKept(r.data, "http://c:1", seal.New(), testLog(r.log)); other != (kept{}) {
			t.Errorf("without its key it is read as %+v", other)
		}
		if st, err := os.Stat(keptFile(r.data)); err == nil && st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", st.Mode())
		}
	}
}

func TestTombstoneFile(t *testing.T) {
	r := &rig{t: t, data: t.TempDir(), keys: seal.New(), log: &logs{}}
	file := filepath.Join(r.data, "agent-ended")
	open := func() *tombstones { return openTombstones(r.data, testLog(r.log)) }
	ts := open()
	if err := errors.Join(ts.add("a", "b"), ts.add("b"), ts.add(`q"\`), ts.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil || string(raw) != "\"a\"\n\"b\"\n\"q\\\"\\\\\"\n" {
		t.Errorf("%q, %v", raw, err)
	}
	// A crash has cut the last line.
	if err := os.WriteFile(file, append(raw, "\"cu"...), 0o600); err != nil {
		t.Fatal(err)
	}
	ts = open()
	if err := errors.Join(ts.add("c"), ts.Close()); err != nil {
		t.Fatal(err)
	}
	ts = open()
	for _, id := range []string{"a", "b", `q"\`, "c"} {
		if !ts.has(id) {
			t.Errorf("%q is forgotten", id)
		}
	}
	if r.log.count("cannot be read") != 1 || ts.has("cu") {
		t.Error("a line that is cut is not told, or counts")
	}
	for i := range 3 * maxTombstones {
		ts.remember(fmt.Sprint("n", i))
	}
	if err := errors.Join(ts.rewrite(), ts.Close()); err != nil {
		t.Fatal(err)
	}
	ts = open()
	defer ts.Close()
	if len(ts.ids) != maxTombstones || len(ts.order) != maxTombstones || ts.has("a") || !ts.has(fmt.Sprint("n", 3*maxTombstones-1)) {
		t.Errorf("%d are remembered", len(ts.ids))
	}
}

// A list that changes often does not grow for ever, and a full disk is no
// reason to forget.
func TestTombstoneGrowth(t *testing.T) {
	r := &rig{t: t, data: t.TempDir(), keys: seal.New(), log: &logs{}}
	ts := openTombstones(r.data, testLog(r.log))
	defer ts.Close()
	ts.lines = 2 * maxTombstones
	if err := ts.add("one"); err != nil || ts.lines != 1 {
		t.Errorf("%d lines, %v", ts.lines, err)
	}
	if err := errors.Join(ts.f.Close(), os.RemoveAll(r.data)); err != nil {
		t.Fatal(err)
	}
	if err := ts.add("two"); err == nil || !ts.has("two") {
		t.Errorf("add = %v, has %v", err, ts.has("two"))
	}
	if err := os.Mkdir(r.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ts.add("three"); err != nil {
		t.Error(err)
	}
	if again := openTombstones(r.data, testLog(r.log)); !again.has("one") || !again.has("two") || !again.has("three") || again.Close() != nil {
		t.Error("what could not be written is not written with the next")
	}
}

// What does not come from a controller, or too much of it, changes nothing.
func TestBadAnswers(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"garbage": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
		"empty":   func(http.ResponseWriter) {},
		"null":    func(w http.ResponseWriter) { _, _ = io.WriteString(w, "null") },
		"no mode": func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"terminateContainer":[{"launchId":"L1"}]}`) },
		"odd mode": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"mode":"dance","terminateContainer":[{"launchId":"L1"}]}`)
		},
		"odd types": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"mode":"continue","terminateContainer":{"launchId":"L1"}}`)
		},
		"huge": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"mode":"continue","terminateContainer":[{"launchId":"L1"}],"x":"`)
			pad := strings.Repeat("x", 1<<20)
			for range 17 {
				_, _ = io.WriteString(w, pad)
			}
			_, _ = io.WriteString(w, `"}`)
		},
		"cut": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"mode":"continue","terminateContainer":[{"launchId":"L1"}]}`)
		},
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/host/n1/updatestatus")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"error": func(w http.ResponseWriter) { w.WriteHeader(500) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.ctl.order(launchOrders(launchOrder("L1")))
			r.start(nil)
			r.ctl.has(t, "L1", "running")
			bad := make(chan struct{}, 1)
			r.ctl.do(func() {
				r.ctl.before = func(w http.ResponseWriter, _ *http.Request) bool {
					answer(w)
					select {
					case bad <- struct{}{}:
					default:
					}
					return true
				}
			})
			r.Poke()
			<-bad
			for r.log.count("no orders from the controller") == 0 {
				time.Sleep(time.Millisecond)
			}
			if got := r.node.have(); !cmp.Equal(got, []string{"L1"}) {
				t.Errorf("there are %v", got)
			}
			r.ctl.do(func() { r.ctl.before = nil })
			r.ctl.order(stopOrders("L1"))
			r.Poke()
			r.ctl.has(t, "L1", "")
			if r.log.count("answers again") != 1 {
				t.Error("it is not said that the controller answers again")
			}
		})
	}
}

// An answer that comes after nobody waits for it any more is none.
func TestLateAnswer(t *testing.T) {
	r := newRig(t)
	r.ctl.order(launchOrders(launchOrder("L1")))
	a := r.make(nil)
	a.ctl.http.Timeout = 200 * time.Millisecond
	r.run(a)
	r.ctl.has(t, "L1", "running")
	release := make(chan struct{})
	asked := make(chan struct{}, 1)
	r.ctl.do(func() {
		r.ctl.before = func(w http.ResponseWriter, _ *http.Request) bool {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-release
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(stopOrders("L1"))
			return true
		}
	})
	r.Poke()
	<-asked
	for r.log.count("trouble=unreachable") == 0 {
		time.Sleep(time.Millisecond)
	}
	n := 0
	r.ctl.do(func() { r.ctl.before, n = nil, len(r.ctl.reports) })
	close(release)
	r.Poke()
	r.ctl.until(t, "another report", func() bool { return len(r.ctl.reports) > n })
	if got := r.node.have(); !cmp.Equal(got, []string{"L1"}) {
		t.Errorf("there are %v", got)
	}
}

// What a controller of aiWARE orders is made into a container, and a list that
// is left out would be an empty one to it.
func TestForeignController(t *testing.T) {
	r := newRig(t)
	r.ctl.foreign = true
	r.ctl.order(launchOrders(hostapi.LaunchContainer{
		LaunchID: "a b/c", EngineID: "engine", BuildID: "b7", DockerImage: "veritone/x:1", ContainerType: "engine",
		ContainerConfig: hostapi.ContainerConfig{CommandLine: []string{"/x", "-v"}}, Env: []hostapi.KeyValue{{Key: "A", Value: "1"}},
		GPUType: "none", SoftMinMemory: 1 << 30, SoftMinVCPU: 512,
	}, hostapi.LaunchContainer{LaunchID: "gpu", DockerImage: "x", IsGPU: true, GPUType: "cuda"},
		hostapi.LaunchContainer{LaunchID: "card", DockerImage: "x", IsGPU: true, GPUType: "matrox"}))
	r.start(nil)
	s := r.ctl.has(t, "a b/c", "running")
	if !strings.HasPrefix(s.DockerContainerID, "launch-") {
		t.Errorf("its name is %q", s.DockerContainerID)
	}
	c := read(r.node, func() buoy.Container { return *r.node.all[s.DockerContainerID] })
	if c.Flist != "veritone/x:1" || !cmp.Equal(c.Command, []string{"/x", "-v"}) || c.Limits != (buoy.Limits{CPUShares: 512}) ||
		!maps.Equal(c.Labels, map[string]string{labelLaunch: "a b/c", labelApp: "engine", labelRevision: "b7"}) {
		t.Errorf("made %+v", c)
	}
	s = r.ctl.has(t, "gpu", "running")
	if g := read(r.node, func() *buoy.GPURequest { return r.node.asked[s.DockerContainerID] }); g == nil || g.Count != 1 || g.Vendor != "nvidia" {
		t.Errorf("asked for the GPUs %+v", g)
	}
	if s := r.ctl.has(t, "card", "absent"); s.Reason != "Invalid" || !strings.Contains(s.Message, `type "matrox"; this host knows cuda`) {
		t.Errorf("reported %+v", s)
	}
	for range 3 {
		n := 0
		r.ctl.do(func() { n = len(r.ctl.reports) })
		r.Poke()
		r.ctl.until(t, "another report", func() bool { return len(r.ctl.reports) > n })
	}
	r.ctl.do(func() {
		for _, s := range r.ctl.reports {
			if s.Same != 0 {
				t.Errorf("a report leaves out containers: %+v", s)
			}
		}
	})
}

func TestPoke(t *testing.T) {
	r := newRig(t)
	r.start(nil)
	r.ctl.until(t, "a registration", func() bool { return len(r.ctl.registers) == 1 })
	poke := func(method, path string) int {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code
	}
	if got := poke("POST", hostapi.Poke); got != http.StatusNoContent {
		t.Errorf("POST = %d", got)
	}
	r.ctl.until(t, "a report", func() bool { return len(r.ctl.reports) == 2 })
	if got := poke("GET", hostapi.Poke); got != http.StatusMethodNotAllowed {
		t.Errorf("GET = %d", got)
	}
}

func TestNew(t *testing.T) {
	r := &rig{t: t, node: newFakeNode(), ctl: &fakeController{Server: &httptest.Server{URL: "http://127.0.0.1:1"}}, data: t.TempDir(), keys: seal.New(), log: &logs{}}
	for name, change := range map[string]func(*Config){
		"no controller":   func(c *Config) { c.Controller = "" },
		"ftp":             func(c *Config) { c.Controller = "ftp://x" },
		"relative socket": func(c *Config) { c.Controller = "unix://x" },
		"password":        func(c *Config) { c.Controller = "http://u:p@x" },
		"no join token":   func(c *Config) { c.JoinToken = nil },
		"no data":         func(c *Config) { c.Data = "" },
		"no ports":        func(c *Config) { c.FirstPort, c.LastPort = 5, 4 },
		"port 0":          func(c *Config) { c.FirstPort, c.LastPort = 0, 4 },
		"address":         func(c *Config) { c.Address = "host.example" },
	} {
		cfg := r.config()
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, c := range []string{"http://c", "https://c:1/edge/v1/", "unix:///run/c.sock"} {
		cfg := r.config()
		cfg.Controller = c
		if _, err := New(cfg); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
}

// BenchmarkStandby is from the poke that brings the order to start a container
// until the controller hears that it runs, after a while of quiet.
func BenchmarkStandby(b *testing.B) {
	r := newRig(b)
	r.node.put(buoy.Container{Name: "c", State: "standby", Labels: map[string]string{labelLaunch: "L"}})
	r.start(nil)
	for b.Loop() {
		b.StopTimer()
		r.ctl.order(hostapi.HostAction{})
		r.node.change(func() { r.node.all["c"].State = "standby" })
		r.ctl.has(b, "L", "standby")
		r.ctl.order(hostapi.HostAction{Mode: hostapi.Continue, StartContainer: []hostapi.StartContainer{{LaunchID: "L"}}})
		time.Sleep(burst * minGap)
		b.StartTimer()
		r.Poke()
		r.ctl.has(b, "L", "running")
	}
}
