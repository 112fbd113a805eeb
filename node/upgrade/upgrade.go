// Package upgrade replaces the programs of a node by those of a signed bundle,
// and puts the old ones back by itself when the new ones are not healthy.
//
// The programs that the machine was installed with stay where they are. Those
// of a bundle lie below the node's data, and one file, state.json, says which
// of them serve: it is replaced as a whole, so that whenever the power fails
// either the old ones serve or the new ones. A Launcher reads it each time that
// buoyd starts; a Manager writes it when a bundle has come.
package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// Config is what a Manager is made of.
type Config struct {
	Dir         string // required: of states and programs, below the node's data
	Run         string // required: the node's run directory
	Keys        string // required: directory of the public keys that are trusted, *.pem
	Version     string // required: of the programs that run
	NoDowngrade bool   // what is older than Version is refused

	Launched Launched                      // by a Launcher; the zero value is none
	Before   func() (running []Process)    // required: the containers that run
	Reached  func() (reached, wanted bool) // the controller; default: there is none
	Restart  func()                        // required: ends this daemon, and has a Launcher start the next
	Events   *events.Log                   // default: none
	Fail     func(at string)               // the tests' way to die at every step; default: none
	Log      *slog.Logger                  // required
}

// Bounds of the time in which new programs must have become healthy.
const (
	leastWindow   = 10 * time.Second
	defaultWindow = 5 * time.Minute
	mostWindow    = time.Hour
)

// Manager takes bundles.
type Manager struct {
	cfg   Config
	work  chan struct{} // there may be something to fetch
	swept chan struct{} // closed when Run has looked at what others left

	busy sync.Mutex // held by who changes what is below Dir

	mu     sync.Mutex // guards all below
	phase  string     // what goes on: "", or one of the phases
	got    int64      // bytes of what is being fetched
	total  int64      // of them; 0: not known
	cancel func()     // ends the fetch
	ending bool       // the daemon ends, for the new programs
}

// Phases of a Status.
const (
	idle       = "idle"
	fetching   = "fetching"
	unpacking  = "unpacking"
	restarting = "restarting"
	trying     = "trial"
)

// New makes a Manager. Nothing happens before Run.
func New(cfg Config) (*Manager, error) {
	if cfg.Dir == "" || cfg.Run == "" || cfg.Keys == "" || cfg.Version == "" || cfg.Before == nil || cfg.Restart == nil || cfg.Log == nil {
		return nil, errors.New("upgrade: Dir, Run, Keys, Version, Before, Restart or Log is missing")
	}
	if cfg.Fail == nil {
		cfg.Fail = func(string) {}
	}
	if cfg.Reached == nil {
		cfg.Reached = func() (bool, bool) { return false, false }
	}
	if cfg.Launched.Program == "" {
		own, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("upgrade: %w", err)
		}
		cfg.Launched = Launched{Program: own, Version: cfg.Version}
	}
	return &Manager{cfg: cfg, work: make(chan struct{}, 1), swept: make(chan struct{})}, nil
}

// Status is what goes on, and how the last upgrade went.
type Status struct {
	Version    string   `json:"version"`              // of the programs that run
	Installed  string   `json:"installed"`            // of those that the machine was installed with
	Phase      string   `json:"phase"`                // "idle", "fetching", "unpacking", "restarting" or "trial"
	Controller string   `json:"controller,omitempty"` // "reached" or "lost"; "": there is none
	Fetch      *Fetch   `json:"fetch,omitempty"`
	Trial      *Trial   `json:"trial,omitempty"`
	Last       *Outcome `json:"last,omitempty"`
}

// Status tells.
func (m *Manager) Status() (Status, error) {
	s := Status{Version: m.cfg.Version, Installed: m.cfg.Launched.Version}
	st, err := readState(m.cfg.Dir)
	if err != nil {
		return s, err
	}
	s.Trial, s.Last = st.Trial, st.Last
	if reached, wanted := m.cfg.Reached(); reached {
		s.Controller = "reached"
	} else if wanted {
		s.Controller = "lost"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Phase = cmp.Or(m.phase, idle)
	switch {
	case m.ending:
		s.Phase = restarting
	case st.Trial != nil:
		s.Phase = trying
	}
	if f, err := readFetch(m.cfg.Dir); err == nil && f != nil {
		f.Got, f.Total = m.got, m.total
		s.Fetch = f
	}
	return s, nil
}

// Run finishes what a former daemon has begun, and fetches, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	if st, err := readState(m.cfg.Dir); err == nil && st.Trial != nil {
		close(m.swept)
		<-ctx.Done() // the state is the launcher's, who watches us
		return nil
	}
	err := errors.Join(m.sweep(), m.tell(ctx))
	close(m.swept)
	if err != nil {
		m.cfg.Log.Warn("leftovers of upgrades stay", "error", err)
	}
	for {
		if f, err := readFetch(m.cfg.Dir); err != nil {
			m.cfg.Log.Warn("what was being fetched is not known any more", "error", err)
		} else if f != nil {
			m.fetch(ctx, *f)
		}
		select {
		case <-m.work:
		case <-ctx.Done():
			return nil
		}
	}
}

// tell adds to the events how the last upgrade went, once.
func (m *Manager) tell(ctx context.Context) error {
	st, err := readState(m.cfg.Dir)
	if err != nil || st.Last == nil || st.Last.Told {
		return err
	}
	e := events.Event{Type: events.NodeUpgraded, Data: events.Data{
		Actor: st.Last.Actor, Reason: st.Last.Reason, Message: st.Last.Message,
		Attributes: map[string]string{"version": st.Last.Version, "from": st.Last.From},
	}}
	if st.Last.Result != confirmed {
		e.Type = events.NodeUpgradeFailed
	}
	m.cfg.Events.Emit(ctx, e)
	m.cfg.Events.Flush()
	st.Last.Told = true
	return st.write(m.cfg.Dir)
}

// sweep removes what nobody needs: half a bundle, and programs that were left.
func (m *Manager) sweep() error {
	st, err := readState(m.cfg.Dir)
	if err != nil {
		return err
	}
	all := errors.Join(
		os.RemoveAll(filepath.Join(m.cfg.Dir, staging)), os.RemoveAll(filepath.Join(m.cfg.Dir, before)),
		os.RemoveAll(filepath.Join(m.cfg.Dir, before+".new")), atomicfile.RemoveParts(filepath.Join(m.cfg.Dir, stateFile)),
	)
	entries, err := os.ReadDir(filepath.Join(m.cfg.Dir, versions))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(all, err)
	}
	for _, e := range entries {
		if e.Name() != st.Current && (st.Trial == nil || e.Name() != st.Trial.ID) {
			all = errors.Join(all, os.RemoveAll(filepath.Join(m.cfg.Dir, versions, e.Name())))
		}
	}
	return all
}

// Window checks how long new programs have; 0 stands for the default.
func Window(d time.Duration) (time.Duration, error) {
	if d = cmp.Or(d, defaultWindow); d < leastWindow || d > mostWindow {
		return 0, errs.E(errs.Invalid, "window %v: new programs are given %v to %v to become healthy", d, leastWindow, mostWindow)
	}
	return d, nil
}

// Receive takes a bundle, whose programs are on trial from the Restart on that
// the caller owes. Its error says why they are not taken: Invalid, and nothing has changed; Conflict,
// another upgrade is under way or the node's own rules refuse it; Unavailable,
// there is no room.
func (m *Manager) Receive(ctx context.Context, r io.Reader, window time.Duration) error {
	window, err := Window(window)
	if err != nil {
		return err
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.busy.Unlock()
	return m.unpack(ctx, r, window)
}

// take makes the caller the only one; it unlocks busy.
func (m *Manager) take(ctx context.Context) error {
	select {
	case <-m.swept:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !m.busy.TryLock() {
		return errs.E(errs.Conflict, "another upgrade is under way")
	}
	err := m.free()
	if err != nil {
		m.busy.Unlock()
	}
	return err
}

// free says why no upgrade can begin now.
func (m *Manager) free() error {
	st, err := readState(m.cfg.Dir)
	switch {
	case err != nil:
		return err
	case st.Trial != nil:
		return errs.E(errs.Conflict, "version %s is on trial; wait until it has been confirmed or has failed", st.Trial.Version)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ending {
		return errs.E(errs.Conflict, "another upgrade is under way")
	}
	return reaperFits(m.cfg.Run)
}

// reaperFits says whether the reaper that runs lets a buoyd of another place
// bring its own shim along.
func reaperFits(run string) error {
	pid, err := os.ReadFile(filepath.Join(run, "reaper.lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none runs
	}
	args, aerr := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline"))
	if err := errors.Join(err, aerr); err != nil {
		return fmt.Errorf("look at buoy-reaper: %w", err)
	}
	if part := strings.Split(string(args), "\x00"); len(part) < 3 || part[2] != filepath.Join(run, "buoy-shim") {
		return errs.E(errs.Conflict, "the buoy-reaper that runs is of a version that knew no upgrades over the air; reboot the machine, or end its containers (systemctl stop buoy-halt, then start buoyd), and try again")
	}
	return nil
}

// unpack verifies a bundle and puts its programs on trial.
func (m *Manager) unpack(ctx context.Context, r io.Reader, window time.Duration) error {
	m.set(unpacking)
	defer m.set("")
	keys, err := readKeys(m.cfg.Keys)
	if err != nil {
		return err
	}
	b, err := open(r, keys)
	if err != nil {
		return err
	}
	dir := filepath.Join(m.cfg.Dir, staging)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return noRoom(fmt.Errorf("make room for the bundle: %w", err))
	}
	err = m.admit(b.Manifest)
	if err == nil {
		err = b.unpack(dir, m.cfg.Fail)
	}
	if err == nil {
		err = smoke(ctx, dir, b.Version)
	}
	if err != nil {
		return errors.Join(noRoom(err), os.RemoveAll(dir))
	}
	return noRoom(m.begin(ctx, b, dir, window))
}

// noRoom makes a sentence of a full disk.
func noRoom(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.E(errs.Unavailable, "the disk of the node's data has no room for the bundle: %w", err)
	}
	return err
}

// admit says why the node does not take programs that are genuine.
func (m *Manager) admit(b Manifest) error {
	if b.Version == m.cfg.Version {
		return errs.E(errs.Exists, "version %s runs already", b.Version)
	}
	if m.cfg.NoDowngrade {
		older, err := olderThan(b.Version, m.cfg.Version)
		if err != nil {
			return err
		}
		if older {
			return errs.E(errs.Conflict, "version %s is older than %s, which runs, and this node was told --no-downgrade", b.Version, m.cfg.Version)
		}
	}
	need := int64(32 << 20) // for states and logs of those who work meanwhile
	for _, f := range b.Files {
		need += f.Size
	}
	files, err := databases(m.cfg.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			need += st.Size()
		}
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(m.cfg.Dir, &fs); err != nil {
		return fmt.Errorf("ask for room in %s: %w", m.cfg.Dir, err)
	}
	if have := int64(fs.Bavail) * fs.Bsize; have < need {
		return errs.E(errs.Unavailable, "the disk of the node's data has no room for the bundle: it takes %d MiB and %d are free", need>>20, have>>20)
	}
	return nil
}

// smoke starts the new buoyd to see whether this machine can run it at all.
func smoke(ctx context.Context, dir, version string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, Program), "version").Output()
	if err != nil {
		return errs.E(errs.Invalid, "buoyd of the bundle does not run on this machine: %w", err)
	}
	if got := strings.TrimSpace(string(out)); got != Program+" "+version {
		return errs.E(errs.Invalid, "buoyd of the bundle calls itself %q, and its manifest version %s", got, version)
	}
	return nil
}

// begin makes the unpacked programs those on trial.
func (m *Manager) begin(ctx context.Context, b *bundle, dir string, window time.Duration) error {
	st, err := readState(m.cfg.Dir)
	if err != nil {
		return err
	}
	home := filepath.Join(m.cfg.Dir, versions, b.id)
	m.cfg.Fail("unpacked")
	err = errors.Join(os.RemoveAll(home), os.RemoveAll(filepath.Join(m.cfg.Dir, before)), os.MkdirAll(filepath.Dir(home), 0o700))
	if err == nil {
		err = errors.Join(os.Rename(dir, home), atomicfile.SyncDir(filepath.Dir(home)), atomicfile.SyncDir(m.cfg.Dir))
	}
	if err != nil {
		return fmt.Errorf("put the programs in place: %w", err)
	}
	m.cfg.Fail("placed")
	boot, err := bootID()
	if err != nil {
		return err
	}
	reached, _ := m.cfg.Reached()
	actor := events.ActorOf(ctx)
	st.Over = m.cfg.Launched.Version
	st.Trial = &Trial{
		ID: b.id, Version: b.Version, From: m.cfg.Version, Window: int64(window / time.Second), Asked: time.Now().UTC(), Actor: actor,
		Boot: boot, Running: running(m.cfg.Before()), Controller: reached,
	}
	if err := st.write(m.cfg.Dir); err != nil {
		return err
	}
	m.cfg.Fail("pending")
	if err := os.Remove(filepath.Join(m.cfg.Dir, fetchFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.cfg.Log.Warn("what was fetched stays", "error", err)
	}
	m.cfg.Events.Emit(ctx, events.Event{Type: events.NodeUpgrading, Data: events.Data{
		Message: fmt.Sprintf("version %s goes on trial for %v", b.Version, window), Attributes: map[string]string{"version": b.Version, "from": m.cfg.Version},
	}})
	m.cfg.Events.Flush()
	m.mu.Lock()
	m.ending = true
	m.mu.Unlock()
	return nil
}

// Restart ends the daemon for what Receive has taken: when whoever sent it has
// his answer, which may go by what ends with the daemon.
func (m *Manager) Restart() { m.cfg.Restart() }

func (m *Manager) set(phase string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = phase
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
