package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/lazy"
)

// launch is what is known of a start beyond the spec. It is kept beside the
// container's files as long as it runs, for the daemon that adopts it.
type launch struct {
	Image images.Image
	From  *lazy.Request `json:",omitempty"` // the mount of an flist
	Run   container.Spec
}

func (n *Node) launchFile(name string) string { return filepath.Join(n.runDir(name), "launch.json") }

// start makes everything that a run of the container needs and runs it. When it
// fails, nothing of that is left but the box. The caller holds the box; stored
// gives the outcome of writing the desired state, which may go on meanwhile but
// ends before anything runs.
func (n *Node) start(ctx context.Context, b *box, hold bool, stored <-chan error) (err error) {
	defer n.starts.took(time.Now(), &err)
	var ns *netcfg.Netns
	var l launch
	var dirs layout
	var release func()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return <-stored })
	g.Go(func() error { return n.checkPorts(b.spec) }) // a process of the node may have taken one since the last run
	g.Go(func() (err error) { ns, err = n.network(gctx, b); return err })
	g.Go(func() (err error) { l, dirs, release, err = n.prepare(gctx, b); return err })
	err = g.Wait()
	if ns != nil {
		defer func() { err = errors.Join(err, ns.Close()) }() // the container has it open by then
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	undo.Push(func() error {
		ctx, cancel := aside(ctx)
		defer cancel()
		return n.takeDown(ctx, b)
	})
	b.set(func() {
		b.release, b.digest, b.image, b.from, b.run = release, l.Image.Digest, l.Image, l.From, l.Run
		b.launch, b.ended, b.exit = rand.Text(), make(chan struct{}), nil
	})
	if err != nil {
		return err
	}
	if err := n.writeNames(b, l.Run.Hostname); err != nil {
		return err
	}
	begun := time.Now()
	if err := n.run(ctx, b, hold, l, dirs, ns); err != nil {
		return n.blameFlist(ctx, l.From, begun, err)
	}
	undo.Keep()
	n.alreadyComplete(l.From)
	return nil
}

// prepare has the image, held, says what runs in it, and makes the directories
// and files of the start.
func (n *Node) prepare(ctx context.Context, b *box) (l launch, dirs layout, release func(), err error) {
	if err := b.locked; err != nil {
		return l, dirs, nil, err
	}
	if l.Image, l.From, release, err = n.root(ctx, b); err != nil {
		return l, dirs, release, err
	}
	l.Run = resolve(b.spec, l.Image.Config)
	s := b.spec
	dirs, err = n.layOut(ctx, b, l.Run, l.Image.Config.Volumes)
	if err == nil {
		err = n.inject(ctx, b, &l.Run)
	}
	if err != nil {
		return l, dirs, release, err
	}
	raw, err := json.Marshal(l)
	if err == nil {
		err = os.WriteFile(n.launchFile(s.Name), raw, 0o600)
	}
	if err != nil {
		return l, dirs, release, noSpace(err)
	}
	return l, dirs, release, nil
}

// whole says whether all layers are there. A directory is not the store's to
// have, and the start says what is wrong with it.
func whole(img images.Image) bool {
	if img.Flist != "" && len(img.Layers) == 0 {
		_, err := os.Stat(filepath.Join(img.Base, img.Flist))
		return err == nil
	}
	for _, layer := range img.Layers {
		if img.Base == "" {
			return true
		}
		if _, err := os.Stat(filepath.Join(img.Base, layer)); err != nil {
			return false
		}
	}
	return true
}

// startTime is how long the shim may take for a start, on the slowest disk.
const startTime = time.Minute

// run hands the container to the shim.
func (n *Node) run(ctx context.Context, b *box, hold bool, l launch, dirs layout, ns *netcfg.Netns) error {
	req, err := n.request(b, l, dirs, ns)
	if err != nil {
		return err
	}
	req.Hold = hold
	// Not given up with the caller: a delete could overtake a start that the
	// shim has not heard of yet, and leave what it starts.
	limit := startTime
	if l.From != nil { // the shim reads from it, and so does the program's start
		limit += 3 * n.cfg.Flists.Timeout()
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	p, err := n.cfg.Runtime.Shim().Run(sctx, req)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	first := false
	b.set(func() {
		first = b.status == Creating
		b.process, b.status, b.forward = p, Running, n.forwards(b)
		if hold {
			b.status = Standby
		}
	})
	n.announce()
	n.keepLeases(ctx, b)
	if len(b.spec.Ports) > 0 {
		if err := n.setPorts(ctx); err != nil {
			return fmt.Errorf("publish ports: %w", err)
		}
	}
	n.tellStart(ctx, b, first)
	if hold {
		return nil
	}
	n.startChecks(ctx, b, time.Now())
	return n.startInitProcesses(ctx, b)
}

// request is what the shim is asked to run.
func (n *Node) request(b *box, l launch, dirs layout, ns *netcfg.Netns) (shimapi.RunRequest, error) {
	s, run := b.spec, l.Run
	host := container.Host{HostNet: s.HostNetworking, Cgroup: n.cfg.Runtime.CgroupOf(s.Name), Mounts: dirs.mounts, Hide: n.cfg.Hide}
	if ns != nil {
		host.NetNS = ns.Path()
	}
	var err error
	if run.Mounts, err = own(run.Mounts); err != nil {
		return shimapi.RunRequest{}, err
	}
	run.Env = b.withSecrets(b.addressed(run.Env))
	spec, err := container.Bundle(run, host)
	if err != nil {
		return shimapi.RunRequest{}, err
	}
	profile, err := n.cfg.Runtime.Seccomp(run)
	if err != nil {
		return shimapi.RunRequest{}, err
	}
	return shimapi.RunRequest{
		ID: s.Name, Launch: b.launch, Spec: spec, User: run.User, Seccomp: profile, Init: run.Init, Stdin: run.Stdin && !run.TTY,
		Rootfs:  n.rootfs(l, dirs),
		Volumes: dirs.volumes, Libraries: run.Libraries, Secrets: s.secretFiles(),
		Log: shimapi.Log{Path: n.logFile(s.Name), MaxBytes: run.Logs.MaxSize, Files: run.Logs.MaxFiles},
	}, nil
}

// rootfs is what the root is made of: the layers, or the mount of an flist.
func (n *Node) rootfs(l launch, dirs layout) shimapi.Rootfs {
	r := shimapi.Rootfs{Base: cmp.Or(l.Image.Base, "/"), Lower: l.Image.Layers, Upper: dirs.upper, Work: dirs.work}
	if l.From != nil {
		r.Base, r.Lower = n.cfg.Flists.Base(), []string{l.From.ID}
	}
	return r
}

// startInitProcesses starts the jobs that come with each start.
func (n *Node) startInitProcesses(ctx context.Context, b *box) error {
	for _, p := range b.spec.InitProcesses {
		cmd := container.Command{Args: p.Args, Env: p.Env, Cwd: p.Cwd, Stdin: []byte(p.Stdin)}
		if _, err := n.exec(ctx, b, cmd); err != nil {
			return fmt.Errorf("init process %s: %w", p.Args[0], err)
		}
	}
	if len(b.spec.InitProcesses) == 0 {
		return nil
	}
	return os.WriteFile(n.initMark(b.spec.Name), nil, 0o600)
}

// initMark is there when all init processes of a run have been started.
func (n *Node) initMark(name string) string { return filepath.Join(n.runDir(name), "initialised") }

// adopt takes over a container that the shim has and this daemon did not start,
// and asserts its network again.
func (n *Node) adopt(ctx context.Context, b *box, c shimapi.Container) error {
	var l launch
	raw, err := os.ReadFile(n.launchFile(b.spec.Name))
	if err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err != nil {
		return fmt.Errorf("read what was started: %w", err)
	}
	if _, err := os.Stat(n.initMark(b.spec.Name)); err != nil && len(b.spec.InitProcesses) > 0 && c.Status == shimapi.Running {
		return errors.New("the daemon ended before it had started all init processes")
	}
	release := n.cfg.Images.Hold(l.Image)
	if l.From != nil {
		release = both(n.useAgain(ctx, l), release)
	}
	b.set(func() {
		b.release, b.digest, b.image, b.from, b.run = release, l.Image.Digest, l.Image, l.From, l.Run
		b.launch, b.process, b.ended, b.exit = c.Launch, c.Process, make(chan struct{}), nil
		b.forward = n.forwards(b)
		b.status = Running
		if c.Status == shimapi.Held {
			b.status = Standby
		}
		if b.rec.Started.Before(c.Started) {
			b.rec.Started = c.Started
		}
	})
	n.alreadyComplete(l.From)
	err = n.assert(ctx, b)
	n.wired(b) // who started it has told
	return err
}

// fdPath names an open file for those who want a path.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
