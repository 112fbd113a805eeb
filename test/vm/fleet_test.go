package vm

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// fleet is a controller on shore and a node on a ship, each a machine, with a
// wire between them.
type fleet struct {
	t                *testing.T
	wire             *Wire
	shore, ship      *Machine
	controller, node *Node
	token            string
}

// newFleet starts one whose node counts as lost after three seconds of silence.
func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, wire: NewWire(t)}
	machine := func(name string) *Machine {
		return host(t, Config{
			Name: name, Wires: []*Wire{f.wire}, Disks: []*Disk{NewDisk(t, "data", 256)}, Modules: []string{"sch_netem"},
			Files: append(Program(t, "/usr/sbin/nft"), Program(t, "/usr/sbin/tc")...),
		})
	}
	f.shore, f.ship = machine("shore"), machine("ship")
	f.startController()
	f.token = f.shore.Must("cat", "/disk/data/buoy/join-token")
	f.startNode()
	f.await("the node is there", f.linked)
	return f
}

// Controllers answer at loopback alone: what the ship sends to port 7080 of its
// own goes over the wire to that of the shore.
const (
	plugIn   = "ip addr add %s/24 dev eth1 && ip link set eth1 up && echo 1 >/proc/sys/net/ipv4/conf/eth1/route_localnet && nft 'table ip wire { %s }'"
	ashore   = "chain in { type nat hook prerouting priority dstnat; iifname eth1 tcp dport 7080 dnat to 127.0.0.1; };"
	toShore  = "chain out { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport 7080 dnat to 10.9.0.1; };"
	fromShip = "chain post { type nat hook postrouting priority srcnat; oifname eth1 ip saddr 127.0.0.1 snat to 10.9.0.2; };"
)

func (f *fleet) startController() {
	f.t.Helper()
	f.shore.Must("sh", "-c", fmt.Sprintf(plugIn, "10.9.0.1", ashore))
	f.controller = f.shore.Buoyd("--data", "/disk/data/buoy", "--run", "/run/buoy", "--node-id", "shore",
		"--dev", "--listen", "127.0.0.1:7080", "--report-interval", "1s")
}

func (f *fleet) startNode() {
	f.t.Helper()
	f.ship.Must("sh", "-c", fmt.Sprintf(plugIn, "10.9.0.2", toShore+fromShip))
	f.node = f.ship.Buoyd("--data", "/disk/data/buoy", "--run", "/run/buoy", "--node-id", "ship",
		"--controller", "http://127.0.0.1:7080", "--join-token", f.token)
}

// await waits for what the controller says.
func (f *fleet) await(what string, ok func() bool) {
	f.t.Helper()
	f.shore.Await(what, ok)
}

// host is the node as its controller sees it.
func (f *fleet) host() (h buoy.Host) {
	h, _ = f.controller.FindHost(f.t.Context(), "ship") // which may not have registered yet
	return h
}

// linked says that the node reports, and answers through its tunnel.
func (f *fleet) linked() bool {
	_, err := f.controller.On("ship").Containers(f.t.Context())
	return err == nil && f.host().Liveness == "alive"
}

// reports waits for some more reports of the node: orders came with the answers.
func (f *fleet) reports() {
	f.t.Helper()
	for range 3 {
		last := f.host().LastSeen
		f.await("the node reports", func() bool { return f.host().LastSeen.After(last) })
	}
}

// logbook is an app on the ship whose replicas write down that they start.
const logbook = `
apiVersion: v1
kind: App
metadata: {name: logbook}
spec:
  image: ` + image + `
  ports: [{containerPort: 80}]
  environment: [{name: LAUNCH, source: sdk, key: instance.id}]
  command:
  - /bin/sh
  - -c
  - read boot </proc/sys/kernel/random/boot_id; echo "$boot $LAUNCH" >>/kept/starts; echo "$LAUNCH is up"; exec /bin/httpd -f -p 80 -h /www
  volumes: [{name: kept, mountPath: /kept}]
  placement: {constraints: [id == ship]}
  healthCheck: {path: /hello, periodSeconds: 1, timeoutSeconds: 20}
  termination: {drainSeconds: 1, terminationGracePeriodSeconds: 1}
`

func (f *fleet) apply() {
	f.t.Helper()
	if _, err := f.controller.ApplyApps(f.t.Context(), []byte(logbook)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) scale(n int) {
	f.t.Helper()
	if _, err := f.controller.ScaleApp(f.t.Context(), "logbook", n, buoy.AppWait{}); err != nil {
		f.t.Fatal(err)
	}
}

// up waits until the app is n replicas, which are well.
func (f *fleet) up(n int) (replicas []buoy.AppReplica) {
	f.t.Helper()
	f.await(fmt.Sprint(n, " replicas are well"), func() bool {
		a, err := f.controller.App(f.t.Context(), "logbook")
		replicas = a.Containers
		return err == nil && a.Status == "running" && a.Settled() && a.Replicas.Healthy == n && len(replicas) == n
	})
	return replicas
}

// life is what a container keeps while nobody disturbs it.
type life struct {
	Launch           string
	Created, Started time.Time
	PID, Restarts    int
}

// lives are the node's containers, by name.
func (f *fleet) lives() map[string]life {
	f.t.Helper()
	list, err := f.node.Containers(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	all := map[string]life{}
	for _, s := range list {
		c, err := f.node.Container(f.t.Context(), s.Name)
		if err != nil {
			f.t.Fatal(err)
		}
		all[c.Name] = life{c.Labels["buoy.launch"], c.Created, c.Started, c.PID, c.Restarts}
	}
	return all
}

// once says that the node has the replicas, and nothing else; that each has
// started once since the ship is on, and whatever else has, too; and that
// those are undisturbed that were there before.
func (f *fleet) once(replicas []buoy.AppReplica, before map[string]life) {
	f.t.Helper()
	after := f.lives()
	here, known := map[string]string{}, map[string]string{}
	for name, l := range after {
		here[name] = l.Launch
	}
	for _, r := range replicas {
		known[r.Container] = r.ID
	}
	if diff := cmp.Diff(known, here); diff != "" {
		f.t.Errorf("launches (-the controller knows +the node has):\n%s", diff)
	}
	for name, l := range before {
		if now, ok := after[name]; ok && now != l {
			f.t.Errorf("%s was disturbed: %+v, now %+v", name, l, now)
		}
	}
	boot := f.ship.Must("cat", "/proc/sys/kernel/random/boot_id")
	starts := map[string]int{}
	for line := range strings.Lines(f.ship.Must("cat", "/disk/data/buoy/volumes/logbook.kept/starts")) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), boot+" "); ok {
			starts[id]++
		}
	}
	for id := range maps.Values(here) {
		starts[id] += 0
	}
	for id, n := range starts {
		if n != 1 {
			f.t.Errorf("launch %s was started %d times", id, n)
		}
	}
}

// spoken waits until the controller has the logs of replicas, which the node has.
func (f *fleet) spoken(replicas []buoy.AppReplica) {
	f.t.Helper()
	for _, r := range replicas {
		f.await("the log of "+r.Container, func() bool {
			log, err := f.controller.On("ship").Logs(f.t.Context(), r.Container, buoy.LogOptions{})
			if err != nil {
				return false
			}
			defer log.Close()
			text, err := io.ReadAll(log)
			said := r.ID + " is up\n" // of each boot, as far as a power cut has left it
			return err == nil && strings.HasSuffix(string(text), said) && strings.ReplaceAll(string(text), said, "") == ""
		})
	}
}

// TestFleet has one app all along.
func TestFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.apply()
	f.up(1)
	f.badLink(t)
	f.powerCut(t)
}

// powerCut: a ship whose power fails while its controller is away runs what it
// ran. The controller finds it so when it returns, and lets it be.
func (f *fleet) powerCut(t *testing.T) {
	f.scale(1)
	replicas := f.up(1)
	name := replicas[0].Container
	first := f.lives()[name]
	f.shore.Kill()
	f.ship.Kill()

	f.ship.PowerOn()
	f.startNode()
	f.ship.Await(name+" is well", func() bool {
		c, err := f.node.Container(t.Context(), name)
		return err == nil && c.Health != nil && c.Health.Status == "healthy"
	})
	alone := f.lives()
	if l := alone[name]; l.Launch != first.Launch || !l.Created.Equal(first.Created) || len(alone) != 1 {
		t.Errorf("it ran %s as %+v; after the power cut it runs %+v", name, first, alone)
	}
	f.once(replicas, alone)

	f.shore.PowerOn()
	f.startController()
	f.await("the node is there again", f.linked)
	f.reports()
	if again := f.up(1); again[0].ID != replicas[0].ID {
		t.Errorf("the controller had %+v and has %+v", replicas, again)
	}
	f.once(replicas, alone)
	f.spoken(replicas)
}

// badLink: over a link that loses and delays much, and is cut and mended, a
// controller is obeyed, once, and disturbs nothing.
func (f *fleet) badLink(t *testing.T) {
	lives := f.lives()

	netem := func(args ...string) {
		for _, m := range []*Machine{f.shore, f.ship} { // there and back
			m.Must(append([]string{"tc", "qdisc", args[0], "dev", "eth1", "root"}, args[1:]...)...)
		}
	}
	netem("add", "netem", "delay", "200ms", "50ms", "loss", "10%")
	f.scale(3)
	replicas := f.up(3)
	f.spoken(replicas)
	f.reports()
	f.once(replicas, lives)

	lives = f.lives()
	f.wire.Cut(f.ship)
	f.await("the node is lost", func() bool { return f.host().Liveness == "lost" })
	f.scale(2)
	f.ship.Await("the node knows, too", func() bool {
		said, err := f.node.Daemon.Output(t.Context())
		return err == nil && strings.Contains(said, "no orders from the controller")
	})
	f.once(replicas, lives)

	f.wire.Mend(f.ship)
	f.await("the node is there again", f.linked)
	replicas = f.up(2)
	netem("del")
	f.reports()
	f.once(replicas, lives)
	f.spoken(replicas)
}
