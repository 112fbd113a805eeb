package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/testleak"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// fakeNode is a node and its API, without containers that run.
type fakeNode struct {
	ready chan struct{}

	mu      sync.Mutex // guards the rest
	changed chan struct{}
	all     map[string]*buoy.Container
	created map[string]int // by launch id
	starts  map[string]int // by name
	kills   int
	pulls   map[string]int
	lists   int
	looks   int
	usage   map[string]Usage
	figures Figures
	gpus    map[string][]string
	asked   map[string]*buoy.GPURequest // by name
	// refuse says why a container cannot be made: a status, a sentence. It is
	// called without mu, and may wait.
	refuse func(ctx context.Context, r buoy.CreateRequest) (int, string)
	remove func(ctx context.Context, name string) (int, string) // likewise
}

func newFakeNode() *fakeNode {
	n := &fakeNode{
		ready: make(chan struct{}), changed: make(chan struct{}), all: map[string]*buoy.Container{}, created: map[string]int{},
		asked: map[string]*buoy.GPURequest{}, starts: map[string]int{}, pulls: map[string]int{}, usage: map[string]Usage{},
		figures: Figures{CPUBusy: time.Hour, CPUTotal: 4 * time.Hour, NumCPU: 4, MemoryUsed: 4 << 30, MemoryAvailable: 12 << 30, RootFree: 80 << 30, DataFree: 80 << 30, DataTotal: 100 << 30},
	}
	close(n.ready)
	return n
}

func (n *fakeNode) Ready() <-chan struct{} { return n.ready }

func (n *fakeNode) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *fakeNode) Facts(context.Context) (hostapi.HostDetail, error) {
	d := hostapi.HostDetail{Name: "host", NumCPU: 4, Memory: 16 << 30, Arch: "amd64"}
	for uuid := range n.GPUs() {
		d.GPUs = append(d.GPUs, hostapi.GPU{UUID: uuid, Model: "T4"})
	}
	return d, nil
}

func (n *fakeNode) GPUs() map[string][]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.gpus)
}

func (n *fakeNode) Figures(context.Context) (Figures, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.figures, nil
}

func (n *fakeNode) Usage(context.Context) (map[string]Usage, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.usage), nil
}

// change changes something and says so.
func (n *fakeNode) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// read reads something.
func read[T any](n *fakeNode, f func() T) T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f()
}

func (n *fakeNode) have() []string {
	return read(n, func() []string {
		var ids []string
		for _, c := range n.all {
			if id := c.Labels[labelLaunch]; id != "" {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return ids
	})
}

// put adds a container that was there before.
func (n *fakeNode) put(c buoy.Container) {
	n.change(func() {
		if c.Created.IsZero() {
			c.Created = time.Now().UTC()
		}
		n.all[c.Name] = &c
	})
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes/n1/containers", n.list)
	mux.HandleFunc("POST /nodes/n1/containers", n.create)
	mux.HandleFunc("GET /nodes/n1/containers/{name}", n.get)
	mux.HandleFunc("DELETE /nodes/n1/containers/{name}", n.delete)
	mux.HandleFunc("POST /nodes/n1/containers/{name}/start", n.start)
	mux.HandleFunc("POST /nodes/n1/containers/{name}/processes/1", n.kill)
	mux.HandleFunc("POST /nodes/n1/images", n.pull)
	mux.ServeHTTP(w, r)
}

func sentence(w http.ResponseWriter, status int, format string, args ...any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": fmt.Sprintf(format, args...)})
}

func (n *fakeNode) list(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(read(n, func() []buoy.ContainerSummary {
		n.lists++
		list := []buoy.ContainerSummary{}
		for _, c := range n.all {
			list = append(list, buoy.ContainerSummary{
				Name: c.Name, State: c.State, Reason: c.Reason, Message: c.Message, Created: c.Created, Ports: c.Ports, Health: c.Health,
			})
		}
		return list
	}))
}

func (n *fakeNode) get(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looks++
	if c := n.all[r.PathValue("name")]; c != nil {
		_ = json.NewEncoder(w).Encode(c)
		return
	}
	sentence(w, http.StatusNotFound, "no container")
}

func (n *fakeNode) create(w http.ResponseWriter, r *http.Request) {
	var req buoy.CreateRequest
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		sentence(w, http.StatusBadRequest, "%v", err)
		return
	}
	n.mu.Lock()
	_, taken := n.all[req.Name]
	refuse := n.refuse
	if taken {
		n.mu.Unlock()
		sentence(w, http.StatusConflict, "container %q exists already on this node", req.Name)
		return
	}
	c := &buoy.Container{Name: req.Name, Flist: req.Flist, State: "creating", Labels: req.Labels, Ports: req.Ports, Created: time.Now().UTC(), Limits: req.Limits, Command: req.Command}
	n.all[req.Name] = c
	n.created[req.Labels[labelLaunch]]++
	n.asked[req.Name] = req.GPUs
	n.mu.Unlock()
	n.change(func() {})
	if refuse != nil {
		if status, why := refuse(r.Context(), req); status != 0 || r.Context().Err() != nil {
			n.change(func() {
				delete(n.all, req.Name)
				n.created[req.Labels[labelLaunch]]--
			})
			if status == 0 {
				status = http.StatusServiceUnavailable
			}
			sentence(w, status, "%s", why)
			return
		}
	}
	n.change(func() {
		c.State, c.Started, c.PID = "running", time.Now().UTC(), 1234
		if req.Standby {
			c.State = "standby"
		}
	})
	w.WriteHeader(http.StatusNoContent)
}

func (n *fakeNode) delete(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if remove := read(n, func() func(context.Context, string) (int, string) { return n.remove }); remove != nil {
		n.change(func() {
			if c := n.all[name]; c != nil {
				c.State = "stopping"
			}
		})
		if status, why := remove(r.Context(), name); status != 0 {
			sentence(w, status, "%s", why)
			return
		}
	}
	n.change(func() { delete(n.all, name) })
	w.WriteHeader(http.StatusNoContent)
}

func (n *fakeNode) start(w http.ResponseWriter, r *http.Request) {
	n.change(func() {
		n.starts[r.PathValue("name")]++
		if c := n.all[r.PathValue("name")]; c != nil {
			c.State = "running"
		}
	})
	w.WriteHeader(http.StatusCreated)
}

func (n *fakeNode) kill(w http.ResponseWriter, _ *http.Request) {
	n.change(func() { n.kills++ })
	w.WriteHeader(http.StatusNoContent)
}

func (n *fakeNode) pull(w http.ResponseWriter, r *http.Request) {
	var req struct{ Ref string }
	_ = json.NewDecoder(r.Body).Decode(&req)
	n.mu.Lock()
	n.pulls[req.Ref]++
	n.mu.Unlock()
	for i := range 3 {
		fmt.Fprintf(w, `{"ref":%q,"phase":"download","done":%d}`+"\n", req.Ref, i)
	}
	if strings.Contains(req.Ref, "bad") {
		fmt.Fprintln(w, `{"error":"no such image"}`)
		return
	}
	fmt.Fprintf(w, `{"ref":%q,"phase":"done","image":{"ref":%q}}`+"\n", req.Ref, req.Ref)
}

// fakeController is a controller. Its orders are repeated until a report shows
// that they were carried out, as those of a real one are.
type fakeController struct {
	*httptest.Server

	mu        sync.Mutex // guards the rest
	reports   []hostapi.HostStatus
	registers []hostapi.RegisterRequest
	tokens    []string // that registrations brought
	token     string   // of the host, now
	issued    int
	known     []hostapi.ContainerStatus // from the last full list
	base      uint64
	boot      string
	action    hostapi.HostAction // given again and again
	interval  float64
	foreign   bool
	seen      chan struct{} // closed and replaced at each report
	// before answers instead, if it returns true.
	before func(w http.ResponseWriter, r *http.Request) bool
}

const joinToken = "join-me"

func newFakeController(t testing.TB) *fakeController {
	c := &fakeController{seen: make(chan struct{}), interval: 3600, action: hostapi.HostAction{Mode: hostapi.Continue}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *fakeController) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	before := c.before
	c.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if r.URL.Path == "/host/register" {
		c.register(w, r, token)
		return
	}
	if token != c.token || token == "" {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(hostapi.ErrorBody{ErrorDetail: "the token is not known"})
		return
	}
	var s hostapi.HostStatus
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a := c.take(s)
	if r.Header.Get("Prefer") == "return=minimal" && a.Mode == hostapi.Continue && !a.Full && len(a.LaunchContainer)+len(a.TerminateContainer)+len(a.StartContainer)+len(a.PullDockerImages) == 0 {
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_ = json.NewEncoder(w).Encode(a)
}

func (c *fakeController) register(w http.ResponseWriter, r *http.Request, token string) {
	c.tokens = append(c.tokens, token)
	if token != joinToken && token != c.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var req hostapi.RegisterRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.registers = append(c.registers, req)
	c.issued++
	c.token = "host-token-" + strconv.Itoa(c.issued)
	a := c.take(*req.Status)
	id := req.Info.HostID
	if id == "" {
		id = "h" + strconv.Itoa(c.issued)
	}
	answer := hostapi.RegisterResponse{HostID: id, HostToken: c.token, Status: a}
	if !c.foreign {
		answer.ConfigProperties.ReportIntervalSeconds = c.interval
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(answer)
}

// take takes a report in. The caller holds mu.
func (c *fakeController) take(s hostapi.HostStatus) hostapi.HostAction {
	a := c.action
	c.reports = append(c.reports, s)
	switch {
	case s.Same == 0:
		c.known, c.base, c.boot = s.ContainerStatus, s.Sequence, s.Boot
	case s.Same != c.base || s.Boot != c.boot:
		a.Full = true
	}
	close(c.seen)
	c.seen = make(chan struct{})
	return a
}

// order sets what is answered from now on.
func (c *fakeController) order(a hostapi.HostAction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.Mode == "" {
		a.Mode = hostapi.Continue
	}
	c.action = a
}

func (c *fakeController) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// until waits for a report after which ok is true; it is asked with mu held.
func (c *fakeController) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		if ok() {
			c.mu.Unlock()
			return
		}
		seen := c.seen
		c.mu.Unlock()
		select {
		case <-seen:
		case <-timeout:
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Fatalf("the controller waits in vain for: %s; it has %+v", what, c.known)
		}
	}
}

// state is that of a container in the last full list; the caller holds mu.
func (c *fakeController) state(launch string) string {
	for _, s := range c.known {
		if s.LaunchID == launch {
			return s.State
		}
	}
	return ""
}

// has waits until a launch is reported in a state, "" for not at all.
func (c *fakeController) has(t testing.TB, launch, state string) hostapi.ContainerStatus {
	t.Helper()
	var s hostapi.ContainerStatus
	c.until(t, launch+" "+state, func() bool {
		i := slices.IndexFunc(c.known, func(s hostapi.ContainerStatus) bool { return s.LaunchID == launch })
		if i >= 0 {
			s = c.known[i]
		}
		return len(c.reports) > 0 && c.state(launch) == state
	})
	return s
}

// rig is an agent between a fake node and a fake controller.
type rig struct {
	t    testing.TB
	node *fakeNode
	ctl  *fakeController
	data string
	keys *seal.Keys
	*Agent
	stop func() error
	log  *logs
}

// logs keeps what is logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// newRig makes all but the agent.
func newRig(t testing.TB) *rig {
	t.Helper()
	testleak.Check(t)
	return &rig{t: t, node: newFakeNode(), ctl: newFakeController(t), data: t.TempDir(), keys: seal.New(), log: &logs{}}
}

func (r *rig) config() Config {
	local, err := Local(r.node, "n1")
	if err != nil {
		r.t.Fatal(err)
	}
	return Config{
		Controller: r.ctl.URL, JoinToken: func() (string, error) { return joinToken + "\n", nil }, Data: r.data, Keys: r.keys,
		Local: local, Node: r.node, Machine: r.node, NodeID: "n1", Log: slog.New(slog.NewTextHandler(r.log, nil)),
	}
}

// make makes an agent that does not run.
func (r *rig) make(change func(*Config)) *Agent {
	r.t.Helper()
	cfg := r.config()
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	a.ports.free = func(context.Context, uint16) bool { return true }
	return a
}

// start runs an agent until stop, or the test's end.
func (r *rig) start(change func(*Config)) {
	r.t.Helper()
	r.run(r.make(change))
}

func (r *rig) run(a *Agent) {
	r.Agent = a
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	var once sync.Once
	var err error
	r.stop = func() error {
		once.Do(func() { cancel(); err = <-ended })
		return err
	}
	r.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			r.t.Errorf("Run = %v", err)
		}
	})
}

// launchOrder is an order as our controller gives it.
func launchOrder(id string, change ...func(*hostapi.LaunchContainer)) hostapi.LaunchContainer {
	l := hostapi.LaunchContainer{
		LaunchID: id, EngineID: "web", BuildID: "web@1", Name: "web-" + id,
		Container: json.RawMessage(`{"name":"x","flist":"docker.io/library/nginx:1.27","nics":[{"type":"default","id":""}],"labels":{"buoy.replica":"1"}}`),
	}
	for _, f := range change {
		f(&l)
	}
	return l
}

func launchOrders(all ...hostapi.LaunchContainer) hostapi.HostAction {
	return hostapi.HostAction{Mode: hostapi.Continue, LaunchContainer: all}
}

func stopOrders(ids ...string) hostapi.HostAction {
	a := hostapi.HostAction{Mode: hostapi.Continue}
	for _, id := range ids {
		a.TerminateContainer = append(a.TerminateContainer, hostapi.TerminateContainer{LaunchID: id})
	}
	return a
}

func testLog(l *logs) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// unreached is a controller that nobody is to ask.
func unreached() *httptest.Server { return &httptest.Server{URL: "http://127.0.0.1:1"} }

// listenTCP takes a port that nobody else gets by chance, as from the kernel: it
// is to be free again afterwards.
func listenTCP(t *testing.T) func() (int, func() error) {
	return func() (int, func() error) {
		for n := 28000; n < 29000; n++ {
			if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", n)); err == nil {
				return n, l.Close
			}
		}
		t.Fatal("no port is free")
		return 0, nil
	}
}

func listenUDP(t *testing.T) func() (int, func() error) {
	return func() (int, func() error) {
		for n := 28000; n < 29000; n++ {
			if l, err := net.ListenPacket("udp", fmt.Sprint("127.0.0.1:", n)); err == nil {
				return n, l.Close
			}
		}
		t.Fatal("no port is free")
		return 0, nil
	}
}
