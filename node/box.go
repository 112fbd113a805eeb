package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/lazy"
	"github.com/buoy-edge/buoy/node/probe"
	"github.com/buoy-edge/buoy/node/state"
)

// promise is what is a container's: nobody else gets it.
type promise struct {
	spec  Spec
	given []given
}

// promises are what the container has, and what it goes back to. The caller
// holds b.mu.
func (b *box) promises() []promise {
	all := []promise{{b.spec, b.given}}
	if b.fallback != nil {
		all = append(all, *b.fallback)
	}
	return all
}

// box is a container and everything the node knows of it.
type box struct {
	name string // of the container, for ever

	// busy holds a token while something is being done with the container.
	busy chan struct{}

	mu       sync.Mutex // guards all below
	rec      state.Record
	spec     Spec
	locked   error      // why its secrets cannot be read: it is not started
	given    []given    // what its NICs have, as in rec
	gpus     []gpu.Hold // that it was given, as in rec; see holds
	fallback *promise   // while it is updated: what it goes back to should that fail
	doubted  bool       // its network is about to be looked at
	status   Status
	run      container.Spec // what runs: the spec with what the image adds
	launch   string         // of the run, empty when none
	process  shimapi.Process
	ended    chan struct{} // closed when the run has ended
	exit     *shimapi.Exit // how the last run ended
	parting  time.Time     // an end of the run before that is a stop by a person
	digest   string
	plugs    []plug             // the NICs of the run
	keeping  context.CancelFunc // ends the renewal of its leases
	netns    *os.File           // of the run, where a NIC has to be taken out of it
	forward  []netcfg.Forward
	release  func() // of the image of its run
	image    images.Image
	from     *lazy.Request      // the mount that the run reads an flist from
	kept     func()             // of the image that its kept layer was begun on
	sessions map[*Session]bool  // those that are attached to the run
	prober   *probe.Prober      // of the run's health
	probing  context.CancelFunc // ends it
	timer    *time.Timer        // of its next restart
	told     map[string]wire    // see tellNet
	lost     []int              // NICs of it that somebody took, by index
	gone     bool               // deleted from the database, so not to be written there again
}

func newBox(spec Spec, rec state.Record) *box {
	return &box{name: spec.Name, busy: make(chan struct{}, 1), sessions: map[*Session]bool{}, spec: spec, rec: rec, status: Halted}
}

// restore is the box of a container that the database knows; fresh: its spec is
// to be written.
func restore(rec state.Record, keys *seal.Keys) (b *box, fresh bool, err error) {
	var spec Spec
	if err := json.Unmarshal(rec.Spec, &spec); err != nil {
		return nil, false, fmt.Errorf("read its spec: %w", err)
	}
	fresh, locked := spec.unseal(keys)
	b = newBox(spec, rec)
	if b.locked = locked; fresh {
		b.respec()
	}
	if err := json.Unmarshal(rec.NICs, &b.given); err != nil {
		return nil, false, fmt.Errorf("read what its NICs were given: %w", err)
	}
	if len(rec.GPUs) > 0 {
		if err := json.Unmarshal(rec.GPUs, &b.gpus); err != nil {
			return nil, false, fmt.Errorf("read which GPUs it was given: %w", err)
		}
	}
	return b, fresh, nil
}

// lock waits until nothing is being done with the container. It may have been
// deleted meanwhile: see hold.
func (b *box) lock(ctx context.Context) error {
	select {
	case b.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.E(errs.Unavailable, "wait for container %s: %w", b.name, ctx.Err())
	}
}

func (b *box) unlock() { <-b.busy }

// view is the container as others may see it.
func (n *Node) view(b *box) Container {
	f := n.fetched(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	return Container{
		Fetch: f, Health: b.health(),
		Spec: b.spec, Status: b.status, Reason: b.rec.Reason, Message: b.rec.Message,
		Digest: b.digest, PID: b.process.PID, NICs: b.nics(), GPUs: b.holds(),
		Created: b.rec.Created, Started: b.rec.Started, Finished: b.rec.Finished,
		ExitCode: b.rec.ExitCode, OOM: b.rec.OOM, Restarts: b.rec.Restarts,
	}
}

// set changes the box and gives the record as it then is.
func (b *box) set(f func()) state.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	return b.rec
}

// get reads something of the box.
func get[T any](b *box, f func() T) T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f()
}

// find is the box of a container.
func (n *Node) find(name string) (*box, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, ok := n.boxes[name]
	if !ok {
		return nil, errs.E(errs.NotFound, "no container %q on this node", name)
	}
	return b, nil
}

// hold locks the box for the node's own work. False: there is nothing to do,
// the container has been deleted or ctx has ended.
func (n *Node) hold(ctx context.Context, b *box) bool {
	if ctx.Err() != nil || b.lock(ctx) != nil {
		return false
	}
	if now, err := n.find(b.name); err != nil || now != b {
		b.unlock()
		return false
	}
	return true
}

// acquire is the box of a container, locked for its caller.
func (n *Node) acquire(ctx context.Context, name string) (*box, error) {
	b, err := n.find(name)
	if err != nil {
		return nil, err
	}
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	if now, err := n.find(name); err != nil || now != b {
		b.unlock()
		return nil, errs.E(errs.NotFound, "no container %q on this node", name)
	}
	return b, nil
}

// all are the boxes of this moment.
func (n *Node) all() []*box {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*box, 0, len(n.boxes))
	for _, b := range n.boxes {
		out = append(out, b)
	}
	return out
}

// Containers are all containers of the node, by name.
func (n *Node) Containers() []Container {
	var out []Container
	for _, b := range n.all() {
		out = append(out, n.view(b))
	}
	slices.SortFunc(out, func(a, b Container) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return out
}

// Container is one of them.
func (n *Node) Container(name string) (Container, error) {
	b, err := n.find(name)
	if err != nil {
		return Container{}, err
	}
	return n.view(b), nil
}
