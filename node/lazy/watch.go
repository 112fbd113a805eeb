package lazy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/programs"
	"github.com/buoy-edge/buoy/internal/version"
)

// startTime bounds the wait for a new buoy-flist: it takes 20 ms, on a loaded
// single-board computer a hundred times that.
const startTime = 10 * time.Second

// ensure makes sure that a buoy-flist of this version answers. Another one is
// replaced; its mounts wait for the next.
func (f *Flists) ensure(ctx context.Context) error {
	select {
	case f.starting <- struct{}{}:
		defer func() { <-f.starting }()
	case <-ctx.Done():
		return errs.E(errs.Unavailable, "wait for buoy-flist: %w", ctx.Err())
	}
	hello, err := f.client.Hello(ctx)
	switch {
	case err == nil && hello.Version == flistapi.Version && hello.Build == version.Version && f.same(hello.PID):
		return nil
	case err == nil:
		f.cfg.Log.Info("replacing the buoy-flist of another version or configuration", "old", hello.Build)
		if err := f.Quit(ctx); err != nil {
			return err
		}
	case !errors.Is(err, errs.Unavailable):
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return f.launch(ctx)
}

// args are how it is started.
func (f *Flists) args() []string {
	args := []string{"serve", "--run", f.cfg.Run, "--data", f.cfg.Data, "--timeout", f.cfg.Timeout.String(), "--reserve", strconv.FormatInt(f.cfg.Reserve, 10)}
	if f.cfg.Budget > 0 {
		args = append(args, "--budget", strconv.FormatInt(f.cfg.Budget, 10))
	}
	return args
}

// same says whether a buoy-flist was started as we would start it.
func (f *Flists) same(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	_, args, _ := strings.Cut(string(raw), "\x00")
	return err == nil && args == strings.Join(f.args(), "\x00")+"\x00"
}

func (f *Flists) logFile() string { return filepath.Join(f.cfg.Run, "flist.log") }

// launch starts buoy-flist, detached: it outlives us. It waits itself for one
// that is just ending.
func (f *Flists) launch(ctx context.Context) error {
	pid, ended, err := programs.Detach(f.logFile(), f.cfg.Program, f.args()...)
	if err != nil {
		return err
	}
	if err := f.cfg.Beside(pid); err != nil {
		f.cfg.Log.Warn("buoy-flist stays in our cgroup", "error", err)
	}
	return f.await(ctx, pid, ended)
}

// await polls until it answers, which it has no other way to say. One that is
// just ending may answer on a connection that is open.
func (f *Flists) await(ctx context.Context, pid int, ended <-chan error) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if hello, err := f.client.Hello(ctx); err == nil && hello.PID == pid {
			return nil
		}
		f.client.Close()
		select {
		case <-ctx.Done():
			return errs.E(errs.Unavailable, "buoy-flist does not answer; see %s", f.logFile())
		case err := <-ended:
			return errs.E(errs.Unavailable, "buoy-flist ended at once (%v); see %s", err, f.logFile())
		case <-tick.C:
		}
	}
}

// A buoy-flist that keeps dying within healthy of its start is given up after
// tries, some seconds: an flist or a disk it cannot live with would otherwise
// hang whoever reads.
const (
	healthy  = time.Second
	tries    = 10
	lostFor  = 20 * time.Millisecond // pause before the first new try; doubles
	mostLost = 2 * time.Second
)

// Run watches buoy-flist as long as there are mounts, until ctx ends. What it
// serves goes on without us.
func (f *Flists) Run(ctx context.Context, node Node) {
	bad, pause := 0, lostFor
	for {
		if f.used() == 0 {
			select {
			case <-ctx.Done():
				return
			case <-f.wake:
				continue
			}
		}
		since := time.Now()
		err := f.watch(ctx, node)
		if ctx.Err() != nil {
			return
		}
		if time.Since(since) > healthy {
			bad, pause = 0, lostFor
		}
		f.cfg.Log.Warn("lost buoy-flist, what reads from flists waits for the next one", "error", err)
		if bad++; bad >= tries {
			f.giveUp(ctx, node, fmt.Errorf("buoy-flist keeps failing: %w; see %s", err, f.logFile()))
			bad = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, mostLost)
	}
}

func (f *Flists) used() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mounts)
}

func (f *Flists) all() []*mount {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*mount
	for _, m := range f.mounts {
		if m.refs > 0 {
			all = append(all, m)
		}
	}
	return all
}

// watch has every mount served and hears of them until buoy-flist is lost.
func (f *Flists) watch(ctx context.Context, node Node) error {
	if err := f.ensure(ctx); err != nil {
		return err
	}
	var mounts errgroup.Group // one that cannot go on, as its stores are away, does not keep the others waiting
	for _, m := range f.all() {
		mounts.Go(func() error { return f.reassert(ctx, node, m) })
	}
	if err := mounts.Wait(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { f.ask(ctx, node) })
	return f.client.Events(ctx, f.hear)
}

// pace is how often mounts are asked for that are not whole yet.
const pace = time.Second

// ask keeps the states of mounts as long as something about them changes.
func (f *Flists) ask(ctx context.Context, node Node) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
		}
		for f.refresh(ctx, node) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pace):
			}
		}
	}
}

// refresh asks for the states of all mounts, and says whether they will change.
func (f *Flists) refresh(ctx context.Context, node Node) (changing bool) {
	all, err := f.client.Mounts(ctx)
	if err != nil {
		return false // what was known stays; the next watch asks again
	}
	for _, s := range all {
		f.mu.Lock()
		m, ok := f.mounts[s.ID]
		whole := false
		if ok {
			whole = s.Complete && !m.status.Complete && m.layer == ""
			m.status = s
		}
		f.mu.Unlock()
		if whole {
			node.Complete(s.ID)
		}
		changing = changing || ok && !s.Complete
		if ok && (s.Stuck || s.Gone) && m.lock(ctx) == nil {
			why := errs.E(errs.Unavailable, "buoy-flist died with reads that this kernel cannot repeat (Linux 6.9 can)")
			if s.Gone {
				why = errs.E(errs.Unavailable, "the kernel has ended its connection: it was unmounted, or aborted")
			}
			f.lose(ctx, node, m, why)
			m.unlock()
		}
	}
	return changing
}

// reassert is assert for a mount that may have been released meanwhile.
func (f *Flists) reassert(ctx context.Context, node Node, m *mount) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	f.mu.Lock()
	gone := m.refs == 0
	f.mu.Unlock()
	if gone {
		return nil
	}
	err := f.assert(ctx, m)
	if errors.Is(err, errs.Unavailable) {
		return err // buoy-flist or the shim has died; both come back
	}
	if err != nil { // this one will not be better next time
		f.lose(ctx, node, m, err)
	}
	return nil
}

func (f *Flists) giveUp(ctx context.Context, node Node, why error) {
	for _, m := range f.all() {
		if m.lock(ctx) != nil {
			return
		}
		f.lose(ctx, node, m, why)
		m.unlock()
	}
}

// lose gives a mount up: what reads from it gets an error at once. The caller
// holds the mount.
func (f *Flists) lose(ctx context.Context, node Node, m *mount, why error) {
	f.cfg.Log.Error("mount of an flist given up", "mount", m.req.ID, "error", why)
	if err := f.drop(ctx, m.req.ID, true); err != nil {
		f.cfg.Log.Error("mount of an flist not removed", "mount", m.req.ID, "error", err)
	}
	m.made = false
	node.Lost(m.req.ID, why)
}

// hear takes in what buoy-flist says. The state that follows says the rest.
func (f *Flists) hear(e flistapi.Event) {
	if e.Kind == flistapi.EventError {
		f.cfg.Log.Warn("read from an flist failed", "mount", e.Mount, "path", e.Path, "error", e.Message)
	}
	f.poke()
}

// Clear ends all mounts, whoever reads from them, and buoy-flist.
func (f *Flists) Clear(ctx context.Context) error {
	have, err := f.cfg.Shim.Mounts(ctx)
	for _, at := range have {
		err = errors.Join(err, f.drop(ctx, at.ID, true))
	}
	return errors.Join(err, f.Quit(ctx))
}

// Quit ends buoy-flist. What it serves waits for the next.
func (f *Flists) Quit(ctx context.Context) error {
	if err := f.client.Quit(ctx); err != nil && !errors.Is(err, errs.Unavailable) {
		return err
	}
	return nil
}
