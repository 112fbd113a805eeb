package node

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// heard are the events since the last call, in short.
type heard struct {
	t   *testing.T
	log *events.Log
	r   *events.Reader
}

func listen(t *testing.T, n *Node) *heard {
	t.Helper()
	log, err := events.Open(events.Config{Dir: filepath.Join(n.cfg.Data, "events"), Source: "/nodes/n1"})
	if err != nil {
		t.Fatal(err)
	}
	n.cfg.Events = log
	return &heard{t, log, log.After(events.ID{})}
}

func (h *heard) all() (all []events.Event) {
	h.t.Helper()
	h.log.Flush()
	for {
		records, err := h.r.Read()
		if err != nil {
			h.t.Fatal(err)
		}
		if len(records) == 0 {
			return all
		}
		for _, r := range records {
			e, err := r.Event()
			if err != nil {
				h.t.Fatal(err)
			}
			all = append(all, e)
		}
	}
}

// wants compares the events since the last call: type, subject and reason.
func (h *heard) wants(what string, want ...string) []events.Event {
	h.t.Helper()
	all := h.all()
	var got []string
	for _, e := range all {
		got = append(got, strings.TrimSpace(string(e.Type)+" "+strings.TrimPrefix(e.Subject, "containers/")+" "+e.Data.Reason))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.t.Errorf("%s: -want +got\n%s", what, diff)
	}
	return all
}

func TestEventsOfALife(t *testing.T) {
	n, shim := newNode(t)
	h := listen(t, n)
	ctx := events.By(t.Context(), events.Actor{Kind: events.ByAPI, Request: "r1"})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	spec := n.spec("a")
	spec.Run.Mounts = []container.Mount{{Type: container.Volume, Source: "v", Target: "/v"}}
	must(n.Create(ctx, spec))
	all := h.wants("create", "volume.created volumes/v", "container.created a", "container.started a")
	if d := all[1].Data; d.Actor.Request != "r1" || d.Container != "a" || d.Image != spec.Image {
		t.Errorf("%+v", d)
	}
	must(n.Start(ctx, "a"))
	h.wants("a start of what runs")
	must(n.Stop(ctx, "a"))
	h.wants("stop", "container.stopped a Stopped")
	must(n.Start(ctx, "a"))
	h.wants("start", "container.started a")
	must(n.Restart(ctx, "a"))
	h.wants("restart", "container.stopped a Stopped", "container.started a", "container.restarted a Stopped")
	if _, err := n.Exec(ctx, "a", container.Command{Args: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if all := h.all(); len(all) != 1 || all[0].Type != events.JobStarted || all[0].Subject != "containers/a/jobs/"+all[0].Data.Attributes["job"] {
		t.Errorf("exec: %+v", all)
	}
	must(n.Update(ctx, "a", Change{Ports: &[]netcfg.Port{}}))
	h.wants("update", "container.updated a")
	must(n.Delete(ctx, "a"))
	h.wants("delete", "container.stopped a Stopped", "container.deleted a")
	must(n.DeleteVolume(ctx, "v"))
	h.wants("delete volume", "volume.deleted volumes/v")

	spec.Standby = true
	must(n.Create(ctx, spec))
	h.wants("standby", "volume.created volumes/v", "container.created a", "container.standby a")
	must(n.Start(ctx, "a"))
	h.wants("release", "container.started a")

	shim.ask(func(op shimapi.Op, id string) error {
		if op == shimapi.OpRun {
			return errs.E(errs.Invalid, "no such command")
		}
		return nil
	})
	if err := n.Create(ctx, n.spec("b")); err == nil {
		t.Fatal("it was created")
	}
	all = h.wants("a create that fails", "container.failed b StartFailed")
	if !strings.Contains(all[0].Data.Message, "no such command") {
		t.Errorf("%+v", all[0])
	}
	must(n.Stop(ctx, "a"))
	h.all()
	if err := n.Start(ctx, "a"); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	h.wants("a start that fails", "container.failed a StartFailed")
}

// TestEventsOfAnEnd: what the policy does about an end is told with it.
func TestEventsOfAnEnd(t *testing.T) {
	n, _ := newNode(t)
	defer close(n.closed) // nobody takes what its timers hand on
	h := listen(t, n)
	spec := n.spec("a")
	spec.Restart = container.Restart{Policy: container.RestartAlways}
	if err := n.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	b, err := n.find("a")
	if err != nil {
		t.Fatal(err)
	}
	h.all()
	end := shimapi.Exit{Code: 137, OOM: true, At: time.Now()}
	b.set(func() { b.exit = &end })
	n.ended(t.Context(), b)
	all := h.wants("the end", "container.oom a", "container.exited a OOMKilled")
	if d := all[1].Data; *d.ExitCode != 137 || d.Actor.Kind != events.ByNode || !strings.Contains(d.Message, "restart") {
		t.Errorf("%+v", d)
	}
	// A daemon that died after it had told does not tell twice.
	n.cancelTimer(b)
	n.ended(t.Context(), b)
	h.wants("the same end")
	n.cancelTimer(b)
	n.tryStart(events.ByItself(t.Context(), "restart policy"), b)
	all = h.wants("the restart", "container.started a", "container.restarted a OOMKilled")
	if all[0].Data.Attributes["restarts"] != "1" || all[1].Data.Actor.Name != "restart policy" {
		t.Errorf("%+v", all)
	}
}

// TestEventsOfNICs: what has come and gone is told, once.
func TestEventsOfNICs(t *testing.T) {
	n, _ := newNode(t)
	h := listen(t, n)
	b := newBox(n.spec("a"), state.Record{Name: "a"})
	n.mu.Lock()
	n.boxes["a"] = b
	n.mu.Unlock()
	eth := func(name, addr string) plug {
		return plug{Link: netcfg.Link{Name: name, Index: int(name[3] - '0'), NIC: netcfg.NIC{Type: netcfg.NICDefault}, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}
	}
	step := func(what string, plugs []plug, ports bool, want ...string) {
		t.Helper()
		b.set(func() {
			b.plugs, b.forward = plugs, nil
			if ports {
				p := netcfg.Port{Host: netip.MustParseAddrPort("127.0.0.1:80"), Guest: 8080}
				b.spec.Ports, b.forward = []netcfg.Port{p}, make([]netcfg.Forward, 1)
			}
		})
		n.tellNet(t.Context(), b)
		h.wants(what, want...)
	}
	port := netcfg.Port{Host: netip.MustParseAddrPort("127.0.0.1:80"), Guest: 8080}.String()
	one, two := eth("eth0", "10.0.0.2/24"), eth("eth1", "10.0.1.2/24")
	step("nothing", nil, false)
	step("start", []plug{one}, true, "nic.attached a/nics/eth0", "port.published a/ports/"+port)
	step("the same", []plug{one}, true)
	step("another", []plug{one, two}, true, "nic.attached a/nics/eth1")
	step("another address", []plug{eth("eth0", "10.0.0.3/24"), two}, false, "port.withdrawn a/ports/"+port, "nic.attached a/nics/eth0")

	for what, ours := range map[string]bool{
		"container a": true, "NIC 1 of container a": true, "NIC 7 of container a": true, "container none": true,
		"bridge buoy0": false, "rules": false, "messages of the kernel": false,
	} {
		if n.lostNIC(what) != ours {
			t.Errorf("%q: %v", what, !ours)
		}
	}
	b.set(func() { b.lost = []int{1, 7} })
	n.tellRestored(t.Context(), b)
	n.tellRestored(t.Context(), b)
	h.wants("put back", "nic.restored a/nics/eth1")
	step("the end", nil, false, "nic.detached a/nics/eth0", "nic.detached a/nics/eth1")
}

func TestEventsMissed(t *testing.T) {
	n, _ := newNode(t)
	h := listen(t, n)
	b := newBox(n.spec("a"), state.Record{Name: "a"})
	n.mu.Lock()
	n.boxes["a"] = b
	n.mu.Unlock()
	since := time.Now()
	at := func(d time.Duration) *shimapi.Exit { return &shimapi.Exit{Code: 3, At: since.Add(d)} }
	sync := []shimapi.Container{{ID: "a", Jobs: []shimapi.Job{
		{Job: "told", Exit: at(-1)}, {Job: "new", Exit: at(1)}, {Job: checkPrefix + "1", Exit: at(1)}, {Job: "runs"},
	}}, {ID: "gone", Jobs: []shimapi.Job{{Job: "new", Exit: at(1)}}}}
	n.tellMissed(t.Context(), sync, time.Time{})
	h.wants("of a log that is new")
	n.tellMissed(t.Context(), sync, since)
	all := h.wants("of the gap", "job.ended a/jobs/new")
	if *all[0].Data.ExitCode != 3 {
		t.Errorf("%+v", all[0])
	}
}

func TestEventsOfTheDisk(t *testing.T) {
	n, _ := newNode(t)
	h := listen(t, n)
	if n.watchDisk(context.Background(), false) {
		t.Error("a store without bounds is never too full")
	}
	h.wants("nothing")
	if n.watchDisk(context.Background(), true) {
		t.Error("it is still too full")
	}
	h.wants("relieved", "disk.relieved")
}
