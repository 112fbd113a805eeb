package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/state"
)

// fakeGPUs is an inventory that a test changes.
type fakeGPUs struct {
	ready chan struct{}

	mu      sync.Mutex // guards the rest
	machine gpu.Machine
	changed chan struct{}
}

func (f *fakeGPUs) Ready() <-chan struct{} { return f.ready }

func (f *fakeGPUs) Machine() gpu.Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machine
}

func (f *fakeGPUs) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeGPUs) set(change func(*gpu.Machine)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.machine.Devices = slices.Clone(f.machine.Devices)
	change(&f.machine)
	close(f.changed)
	f.changed = make(chan struct{})
}

// withGPUs gives a node so many GPUs whose nodes are there.
func withGPUs(t *testing.T, n *Node, count int) *fakeGPUs {
	t.Helper()
	f := &fakeGPUs{ready: make(chan struct{}), changed: make(chan struct{})}
	close(f.ready)
	n.cfg.GPURoot, n.cfg.CDIDirs = t.TempDir(), []string{t.TempDir()}
	dri := filepath.Join(n.cfg.GPURoot, "dev", "dri")
	if err := os.MkdirAll(dri, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		node := "renderD" + strconv.Itoa(128+i)
		if err := os.Symlink("/dev/null", filepath.Join(dri, node)); err != nil {
			t.Fatal(err)
		}
		f.machine.Devices = append(f.machine.Devices, gpu.Device{
			UUID: "GPU-0000000" + strconv.Itoa(i), Index: i, Vendor: gpu.Intel, Model: "Flex 170", PCI: "0000:0" + strconv.Itoa(i) + ":00.0",
			NUMANode: -1, Memory: 16 << 30, DRM: []string{node},
		})
	}
	n.cfg.GPUs = f
	return f
}

func (n *Node) gpuSpec(name string, w gpu.Wish) Spec {
	s := n.spec(name)
	s.GPUs = &w
	s.Restart = container.Restart{Policy: container.RestartAlways}
	return s
}

// has are the last digits of what a container holds.
func has(t *testing.T, n *Node, name string) string {
	t.Helper()
	c, err := n.Container(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range c.GPUs {
		out = append(out, strings.TrimPrefix(h.UUID, "GPU-0000000"))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestGPUsAreHeldWhileWanted(t *testing.T) {
	n, shim := newNode(t)
	withGPUs(t, n, 2)
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		if err := n.Create(ctx, n.gpuSpec(name, gpu.Wish{})); err != nil {
			t.Fatal(err)
		}
	}
	err := n.Create(ctx, n.gpuSpec("c", gpu.Wish{}))
	if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "is container a's") || !strings.Contains(err.Error(), "is container b's") {
		t.Errorf("a third: %v", err)
	}
	if b, _ := n.find("a"); len(b.run.Devices) != 1 || b.run.Devices[0].Target != "/dev/dri/renderD128" {
		t.Errorf("a runs with %+v", b.run.Devices)
	}
	if err := n.Stop(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if got := has(t, n, "a"); got != "" {
		t.Errorf("a is stopped and holds %s", got)
	}
	if err := n.Create(ctx, n.gpuSpec("c", gpu.Wish{})); err != nil {
		t.Fatal(err)
	}
	if got := has(t, n, "c"); got != "0" {
		t.Errorf("c has %s", got)
	}
	err = n.Start(ctx, "a")
	if c, _ := n.Container("a"); !errors.Is(err, errs.Conflict) || c.Reason != reasonStartFailed || !strings.Contains(c.Message, "is container c's") || len(c.GPUs) > 0 {
		t.Errorf("a without a GPU: %v, %+v", err, c)
	}
	if err := n.Delete(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx, "a"); err != nil || has(t, n, "a") != "1" {
		t.Errorf("a has %s, %v", has(t, n, "a"), err)
	}
	if _, held := n.GPUs(); len(held) != 2 || held[0].Owner != "a" || held[1].UUID != "GPU-00000000" {
		t.Errorf("GPUs = %v", held)
	}
	for _, name := range []string{"a", "c"} {
		if err := n.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	nothing(t, n, shim, "GPUs")
}

// A start that fails holds nothing, whatever it failed of.
func TestGPUsOfAFailedStart(t *testing.T) {
	n, shim := newNode(t)
	withGPUs(t, n, 1)
	shim.ask(func(op shimapi.Op, id string) error {
		if op == shimapi.OpRun && id == "a" {
			return errs.E(errs.Invalid, "no such program")
		}
		return nil
	})
	if err := n.Create(t.Context(), n.gpuSpec("a", gpu.Wish{})); err == nil {
		t.Fatal("it starts")
	}
	if err := n.Create(t.Context(), n.gpuSpec("b", gpu.Wish{})); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.cfg.GPURoot, "dev/dri/renderD128")); err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "renderD128: no such file") {
		t.Errorf("without its node: %v", err)
	}
	if got := has(t, n, "b"); got != "" {
		t.Errorf("b could not be started and holds %s", got)
	}
}

// Many who ask at once get what there is, each once.
func TestGPUsOfManyAtOnce(t *testing.T) {
	n, _ := newNode(t)
	withGPUs(t, n, 4)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			err := n.Create(t.Context(), n.gpuSpec("c"+strconv.Itoa(i), gpu.Wish{}))
			if err != nil && !errors.Is(err, errs.Conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_, held := n.GPUs()
	seen := map[string]bool{}
	for _, h := range held {
		seen[h.UUID] = true
	}
	if len(held) != 4 || len(seen) != 4 {
		t.Errorf("held: %v", held)
	}
}

// next is the node as a daemon after this one has it.
func next(t *testing.T, n *Node, rebooted bool) *Node {
	t.Helper()
	cfg := n.cfg
	var err error
	if err = n.cfg.DB.Close(); err == nil {
		cfg.DB, err = state.Open(t.Context(), filepath.Join(cfg.Data, "node.db"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cfg.DB.Close() })
	after, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := after.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	after.rebooted = rebooted
	return after
}

// bootAll starts what a booted machine should run.
func bootAll(t *testing.T, n *Node) {
	t.Helper()
	for _, b := range n.loaded {
		n.boot(t.Context(), b)
		b.unlock()
	}
	n.loaded = nil
	t.Cleanup(n.stopTimers)
}

func TestGPUsAfterAReboot(t *testing.T) {
	n, _ := newNode(t)
	f := withGPUs(t, n, 3)
	ctx := t.Context()
	for _, one := range []struct {
		name string
		wish gpu.Wish
	}{{"a", gpu.Wish{Devices: []string{"2"}}}, {"b", gpu.Wish{}}, {"stopped", gpu.Wish{}}} {
		s := n.gpuSpec(one.name, one.wish)
		s.Restart = container.Restart{Policy: container.RestartUnlessStopped}
		if err := n.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Stop(ctx, "stopped"); err != nil {
		t.Fatal(err)
	}
	// The cards are numbered otherwise after the boot, and b's is gone.
	f.set(func(m *gpu.Machine) {
		m.Devices = m.Devices[1:]
		slices.Reverse(m.Devices)
		for i := range m.Devices {
			m.Devices[i].Index, m.Devices[i].PCI = i, "0000:2"+strconv.Itoa(i)+":00.0"
		}
	})
	after := next(t, n, true)
	if got := has(t, after, "a") + has(t, after, "b") + has(t, after, "stopped"); got != "20" {
		t.Errorf("before anything is started, held: %s", got)
	}
	bootAll(t, after)
	if c, _ := after.Container("a"); c.Status != Running || has(t, after, "a") != "2" {
		t.Errorf("a is %s (%s) and has %s", c.Status, c.Message, has(t, after, "a"))
	}
	c, _ := after.Container("b")
	if c.Status != Restarting || c.Reason != reasonStartFailed || !strings.Contains(c.Message, "GPU GPU-00000000 (Flex 170) is not there any more") {
		t.Errorf("b is %s: %s", c.Status, c.Message)
	}
	// Whoever stops and starts it has it given another one.
	if err := errors.Join(after.Stop(ctx, "b"), after.Start(ctx, "b")); err != nil || has(t, after, "b") != "1" {
		t.Errorf("b has %s, %v", has(t, after, "b"), err)
	}
}

// What was being stopped when the machine went down holds nothing after it.
func TestGPUsOfAnInterruptedStop(t *testing.T) {
	n, _ := newNode(t)
	withGPUs(t, n, 1)
	if err := n.Create(t.Context(), n.gpuSpec("a", gpu.Wish{})); err != nil {
		t.Fatal(err)
	}
	b, _ := n.find("a")
	if err := n.cfg.DB.Put(t.Context(), b.set(func() { b.rec.Wanted, b.rec.Person = state.Halt, true })); err != nil {
		t.Fatal(err)
	}
	b.spec.Restart.Policy = container.RestartUnlessStopped
	b.set(b.respec)
	if err := n.cfg.DB.Put(t.Context(), b.set(func() {})); err != nil {
		t.Fatal(err)
	}
	after := next(t, n, true)
	if got := has(t, after, "a"); got != "0" {
		t.Errorf("it may still run, and holds %q", got)
	}
	bootAll(t, after)
	if got := has(t, after, "a"); got != "" {
		t.Errorf("it does not run, and holds %s", got)
	}
}

// watched has a node look after lost GPUs.
func watched(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { n.watchGPUs(ctx) })
	close(n.ready)
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestLostGPU(t *testing.T) {
	n, shim := runNode(t)
	f := withGPUs(t, n, 4)
	ctx := t.Context()
	watched(t, n)
	once := n.gpuSpec("once", gpu.Wish{Devices: []string{"1"}})
	once.Restart = container.Restart{Policy: container.RestartNo}
	for _, s := range []Spec{n.gpuSpec("any", gpu.Wish{Devices: nil}), once, n.gpuSpec("named", gpu.Wish{Devices: []string{"2"}})} {
		if err := n.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	f.set(func(m *gpu.Machine) { m.Trouble = "the library hangs" })
	f.set(func(m *gpu.Machine) {
		m.Trouble = ""
		for i := range 3 {
			m.Devices[i].Broken, m.Devices[i].Lost = "XID 79: it fell off the bus", true
		}
	})
	c := await(t, n, "once", func(c Container) bool { return c.Status == Halted && strings.Contains(c.Message, ";") })
	if c.Reason != reasonGPULost || !strings.Contains(c.Message, "GPU GPU-00000001 (Flex 170) is lost: XID 79: it fell off the bus; ") || len(c.GPUs) != 0 {
		t.Errorf("once is halted: %s, %s, %v", c.Reason, c.Message, c.GPUs)
	}
	c = await(t, n, "any", func(c Container) bool { return c.Status == Running && c.Restarts == 1 })
	if got := has(t, n, "any"); got != "3" {
		t.Errorf("any has %s: %+v", got, c)
	}
	c = await(t, n, "named", func(c Container) bool { return c.Status == Restarting && c.Reason == reasonStartFailed })
	if !strings.Contains(c.Message, "cannot be given: XID 79: it fell off the bus") {
		t.Errorf("named: %s", c.Message)
	}
	if shim.has("once") || shim.has("named") || !shim.has("any") {
		t.Error("what runs is not what should")
	}
	f.set(func(m *gpu.Machine) { m.Devices[2].Broken, m.Devices[2].Lost = "", false })
	if err := n.Start(ctx, "named"); err != nil || has(t, n, "named") != "2" {
		t.Errorf("named has %s, %v", has(t, n, "named"), err)
	}
}

// A library that hangs takes nobody's GPU away.
func TestTroubleIsNoLoss(t *testing.T) {
	n, _ := newNode(t)
	f := withGPUs(t, n, 1)
	if err := n.Create(t.Context(), n.gpuSpec("a", gpu.Wish{})); err != nil {
		t.Fatal(err)
	}
	f.set(func(m *gpu.Machine) {
		m.Trouble = "the library hangs"
		m.Devices[0].UUID, m.Devices[0].Index = m.Devices[0].PCI, -1
	})
	n.findLost(f.Machine()) // it would wait for somebody to do it
	if err := n.Create(t.Context(), n.gpuSpec("b", gpu.Wish{})); !errors.Is(err, errs.Conflict) {
		t.Errorf("the same card by its address: %v", err)
	}
	if err := n.Restart(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func TestGPUsNotKnownYet(t *testing.T) {
	n, _ := newNode(t)
	withGPUs(t, n, 1).ready = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Create(ctx, n.gpuSpec("a", gpu.Wish{})); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "not known yet") {
		t.Errorf("Create = %v", err)
	}
}

const cdiSpec = `{"cdiVersion":"0.7.0","kind":"KIND","containerEdits":{"env":["LD_LIBRARY_PATH=/driver","SPEC=1"]},"devices":[{"name":"NAME","containerEdits":{
	"deviceNodes":[{"path":"/dev/nvidia0","hostPath":"/dev/null","permissions":"rw","fileMode":438}],
	"mounts":[{"hostPath":"/etc","containerPath":"/host/etc","options":["ro","nosuid"]},{"hostPath":"/etc","containerPath":"/mine"}],
	"hooks":[{"hookName":"createContainer","path":"/bin/sh","args":["sh","-c","true"]}],"additionalGids":[0,44,44]}}]}`

func writeSpec(t *testing.T, n *Node, kind, name string) {
	t.Helper()
	text := strings.NewReplacer("KIND", kind, "NAME", name).Replace(cdiSpec)
	if err := os.WriteFile(filepath.Join(n.cfg.CDIDirs[0], "spec.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCDI(t *testing.T) {
	n, _ := newNode(t)
	withGPUs(t, n, 0)
	writeSpec(t, n, "vendor.com/card", "one")
	s := n.spec("a")
	s.CDI = []string{"vendor.com/card=one"}
	s.Run.Env = []string{"LD_LIBRARY_PATH=/mine"}
	s.Run.Mounts = []container.Mount{{Type: container.Bind, Source: "/tmp", Target: "/mine"}}
	if err := n.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b, _ := n.find("a")
	run := b.run
	if !slices.Contains(run.Env, "LD_LIBRARY_PATH=/driver:/mine") || !slices.Contains(run.Env, "SPEC=1") {
		t.Errorf("env %v", run.Env)
	}
	if d := run.Devices[0]; d.Path != "/dev/null" || d.Target != "/dev/nvidia0" || d.Permissions != "rw" || *d.Mode != 0o666 {
		t.Errorf("device %+v", d)
	}
	if m := run.Mounts; len(m) != 2 || m[0].Source != "/tmp" || m[1].Target != "/host/etc" || !slices.Contains(m[1].Options, "ro") {
		t.Errorf("mounts %+v", m)
	}
	if len(run.Hooks) != 1 || !slices.Equal(run.Groups, []uint32{44}) {
		t.Errorf("hooks %+v, groups %v", run.Hooks, run.Groups)
	}
	for name, c := range map[string]struct{ device, want string }{
		"unknown":  {"vendor.com/card=two", "there is no CDI device vendor.com/card=two on this machine: of that kind there are one"},
		"no name":  {"vendor.com/card", "is not vendor.com/class=name"},
		"no spec":  {"nvidia.com/gpu=0", "no spec describes any of that kind"}, // and no such GPU is known
		"a number": {"vendor.com/card=1 2", "is not vendor.com/class=name"},
	} {
		s := n.spec("b")
		s.CDI = []string{c.device}
		if err := n.Create(t.Context(), s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A GPU that is asked for as a device of CDI is given out like others.
func TestCDIOfAGPU(t *testing.T) {
	n, _ := newNode(t)
	f := withGPUs(t, n, 2)
	f.set(func(m *gpu.Machine) {
		for i := range m.Devices {
			m.Devices[i].Vendor, m.Devices[i].Minor = gpu.NVIDIA, i
		}
	})
	writeSpec(t, n, "nvidia.com/gpu", "0")
	a := n.spec("a")
	a.CDI = []string{"nvidia.com/gpu=0"}
	if err := n.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if b, _ := n.find("a"); has(t, n, "a") != "0" || !slices.Contains(b.run.Env, "SPEC=1") {
		t.Errorf("a has %q and the environment %v", has(t, n, "a"), b.run.Env)
	}
	if err := n.Create(t.Context(), n.gpuSpec("b", gpu.Wish{Devices: []string{"0"}})); !errors.Is(err, errs.Conflict) {
		t.Errorf("twice: %v", err)
	}
	both := n.gpuSpec("b", gpu.Wish{})
	both.CDI = a.CDI
	if err := n.Create(t.Context(), both); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "asked for twice") {
		t.Errorf("both ways: %v", err)
	}
	// The other one has no spec, nor a driver.
	if err := n.Create(t.Context(), n.gpuSpec("b", gpu.Wish{})); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "has made no") {
		t.Errorf("without a driver: %v", err)
	}
	// A spec by index that means another card by now is not followed.
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	f.set(func(m *gpu.Machine) { m.Devices[0].Minor, m.Devices[1].Minor = 1, 0 })
	if err := n.Create(t.Context(), n.gpuSpec("b", gpu.Wish{Devices: []string{"0"}})); err == nil || !strings.Contains(err.Error(), "has made no") {
		t.Errorf("a spec of another card: %v", err)
	}
}

func TestCDISpecOutOfDate(t *testing.T) {
	n, _ := newNode(t)
	withGPUs(t, n, 0)
	file := filepath.Join(n.cfg.CDIDirs[0], "spec.json")
	text := `{"cdiVersion":"0.6.0","kind":"vendor.com/card","devices":[{"name":"one","containerEdits":{"mounts":[{"hostPath":"/nowhere/libcuda.so.1","containerPath":"/x"}]}}]}`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s := n.spec("a")
	s.CDI = []string{"vendor.com/card=one"}
	if err := n.Create(t.Context(), s); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "the CDI spec of vendor.com/card=one is out of date: stat /nowhere/libcuda.so.1") {
		t.Errorf("Create = %v", err)
	}
}
