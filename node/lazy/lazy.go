// Package lazy lets containers run from flists whose content comes while they
// run. It keeps buoy-flist running, which fetches and serves; has the shim
// mount, for containers to find; and counts who uses which mount.
//
// Every program may be killed at any moment. The shim's reaper keeps the
// descriptor of each mount, so the next buoy-flist takes it up again and what
// reads meanwhile waits. Only a mount that cannot be taken up is given up.
package lazy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what Flists is made of.
type Config struct {
	Run, Data string // required: directories: of what lasts until reboot, and of chunks and what was read
	Program   string // required: buoy-flist
	Shim      Shim   // required
	// Beside moves a process of ours out of our cgroup. Required.
	Beside func(pids ...int) error

	Stores   []string      // asked before an flist's own
	Mirrors  []string      // other nodes, asked before those
	DropSuid bool          // programs of flists do not run as another user
	Budget   int64         // bytes of the chunk cache; 0: buoy-flist's default
	Reserve  int64         // bytes of the disk that the cache leaves free
	Timeout  time.Duration // of a read, all stores together

	Log *slog.Logger // required
}

// Node runs what is mounted. Its methods return at once.
type Node interface {
	Lost(id string, why error) // the mount cannot go on: what runs from it must end
	Complete(id string)        // all content of the mount is here
}

// Shim is what of the shim is needed.
type Shim interface {
	Mount(ctx context.Context, id, dir string) (shimapi.Mount, error)
	Unmount(ctx context.Context, id string, force bool) error
	Mounts(ctx context.Context) ([]shimapi.Mount, error)
}

// Request is an flist as containers use it. Equal requests share a mount.
type Request struct {
	ID       string   // names the mount
	File     string   // the flist
	Digest   string   // of the file, in hexadecimal
	Stores   []string // asked before those of the configuration
	Prefetch flistapi.Prefetch
}

// Flists is all of them on this node.
type Flists struct {
	cfg    Config
	client *flistapi.Client

	starting chan struct{} // a token: one at a time looks after the process
	wake     chan struct{} // a token when there is a mount to watch
	news     chan struct{} // a token when a mount is not as last heard

	mu     sync.Mutex // guards mounts
	mounts map[string]*mount
}

// mount is one that containers use.
type mount struct {
	req  Request
	busy chan struct{} // a token: one at a time mounts or unmounts
	made bool          // guarded by busy

	refs   int                  // guarded by Flists.mu
	layer  string               // guarded by Flists.mu: a directory that has all of it
	status flistapi.MountStatus // as last heard
}

// New checks cfg. Nothing happens before the first use.
func New(cfg Config) (*Flists, error) {
	if cfg.Run == "" || cfg.Data == "" || cfg.Program == "" || cfg.Shim == nil || cfg.Beside == nil || cfg.Log == nil {
		return nil, errors.New("flists: Run, Data, Program, Shim, Beside and Log are required")
	}
	return &Flists{
		cfg: cfg, client: flistapi.NewClient(filepath.Join(cfg.Run, "flist.sock")),
		starting: make(chan struct{}, 1), wake: make(chan struct{}, 1), news: make(chan struct{}, 1), mounts: map[string]*mount{},
	}, nil
}

// Base is the directory that mounts are in, each under its id, as the shim sees
// it.
func (f *Flists) Base() string { return filepath.Join(f.cfg.Run, "flists") }

// Inspect is what an flist says about itself. stores are asked for what it keeps
// in files.
func (f *Flists) Inspect(ctx context.Context, file string, stores []string) (flistapi.Info, error) {
	if err := f.ensure(ctx); err != nil {
		return flistapi.Info{}, err
	}
	return f.client.Inspect(ctx, flistapi.InspectRequest{File: file, Stores: f.stores(stores), Mirrors: f.cfg.Mirrors})
}

func (f *Flists) stores(own []string) []string { return slices.Concat(own, f.cfg.Stores) }

// DropSuid says whether set-id bits of flists are dropped.
func (f *Flists) DropSuid() bool { return f.cfg.DropSuid }

// Unpack makes dir, which is empty, the whole tree of an flist.
func (f *Flists) Unpack(ctx context.Context, req Request, dir string, progress func(done, total int64)) error {
	if err := f.ensure(ctx); err != nil {
		return err
	}
	_, err := f.client.Unpack(ctx, flistapi.UnpackRequest{
		File: req.File, Dir: dir, Stores: f.stores(req.Stores), Mirrors: f.cfg.Mirrors, DropSuid: f.cfg.DropSuid,
	}, progress)
	return err
}

// Chunk is a chunk that is here, as a store has it. errs.NotFound: it is not.
func (f *Flists) Chunk(ctx context.Context, id string) ([]byte, error) {
	if err := f.ensure(ctx); err != nil {
		return nil, err
	}
	return f.client.Chunk(ctx, id)
}

// Stats is how the chunk cache is; nothing where no flist has been used.
func (f *Flists) Stats(ctx context.Context) (flistapi.Stats, error) {
	if _, err := os.Stat(f.cfg.Data); errors.Is(err, os.ErrNotExist) {
		return flistapi.Stats{}, nil
	}
	if err := f.ensure(ctx); err != nil {
		return flistapi.Stats{}, err
	}
	return f.client.Stats(ctx)
}

// Trim throws out chunks until it has freed so many bytes, and says how many it has. What runs fetches them again when it
// reads them.
func (f *Flists) Trim(ctx context.Context, bytes int64) (freed int64, err error) {
	if _, err := os.Stat(f.cfg.Data); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err := f.ensure(ctx); err != nil {
		return 0, err
	}
	return f.client.Trim(ctx, bytes)
}

// Use counts one more user of a mount that a daemon before us made; layer, if
// not empty, is a directory that has all of it. Run asserts it.
func (f *Flists) Use(req Request, layer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.entry(req)
	m.refs++
	m.layer = layer
	f.poke()
}

// entry is the mount of a request. The caller holds f.mu.
func (f *Flists) entry(req Request) *mount {
	m, ok := f.mounts[req.ID]
	if !ok {
		m = &mount{req: req, busy: make(chan struct{}, 1)}
		f.mounts[req.ID] = m
	}
	if m.req.File == "" { // of Sweep
		m.req = req
	}
	return m
}

// poke says that there is something to watch.
func (f *Flists) poke() {
	for _, c := range []chan struct{}{f.wake, f.news} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Mount counts one more user of a mount and returns when it can be read. Each
// user releases it once, also when Mount has failed.
func (f *Flists) Mount(ctx context.Context, req Request) error {
	f.mu.Lock()
	m := f.entry(req)
	m.refs++
	f.mu.Unlock()
	if err := f.ensure(ctx); err != nil {
		return err
	}
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	if !m.made {
		if err := f.assert(ctx, m); err != nil {
			return fmt.Errorf("mount the flist: %w", err)
		}
	}
	f.poke()
	return nil
}

// assert has the shim mount and buoy-flist serve, both of which may have done
// so already. The caller holds the mount.
func (f *Flists) assert(ctx context.Context, m *mount) error {
	at, err := f.cfg.Shim.Mount(ctx, m.req.ID, filepath.Join(f.Base(), m.req.ID))
	if err != nil {
		return err
	}
	f.mu.Lock()
	layer := m.layer
	f.mu.Unlock()
	err = f.client.Mount(ctx, flistapi.MountRequest{
		ID: m.req.ID, File: m.req.File, Stores: f.stores(m.req.Stores), Mirrors: f.cfg.Mirrors, DropSuid: f.cfg.DropSuid,
		Prefetch: m.req.Prefetch, OrderFile: filepath.Join(f.cfg.Data, "order", m.req.Digest),
		StateDir: f.stateDir(m.req.ID), PID: at.PID, FD: at.FD, Conn: at.Conn, Layer: layer,
	})
	m.made = err == nil
	return err
}

// Release takes back one use. The last one unmounts.
func (f *Flists) Release(ctx context.Context, id string) error {
	f.mu.Lock()
	m, ok := f.mounts[id]
	if ok {
		m.refs--
	}
	f.mu.Unlock()
	if !ok {
		return nil
	}
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	f.mu.Lock()
	if m.refs > 0 || f.mounts[id] != m {
		f.mu.Unlock()
		return nil
	}
	// Nobody finds it any more; who has it already waits for busy and makes it anew.
	f.mu.Unlock()
	err := f.drop(ctx, id, false)
	m.made = false
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.refs == 0 && err == nil {
		delete(f.mounts, id)
	}
	return err
}

// drop ends a mount, in whatever state it is.
func (f *Flists) drop(ctx context.Context, id string, force bool) error {
	err := f.client.Unmount(ctx, id)
	if errors.Is(err, errs.Unavailable) || errors.Is(err, errs.NotFound) {
		err = nil // who serves it has died, or has not heard of it
	}
	if err := errors.Join(err, f.cfg.Shim.Unmount(ctx, id, force)); err != nil {
		return err
	}
	return os.RemoveAll(f.stateDir(id)) // of no use to another connection
}

// stateDir is where buoy-flist keeps what its successor needs.
func (f *Flists) stateDir(id string) string { return filepath.Join(f.cfg.Run, "flist-state", id) }

// Sweep unmounts what nobody uses: a daemon before us made it.
func (f *Flists) Sweep(ctx context.Context) error {
	have, err := f.cfg.Shim.Mounts(ctx)
	if err != nil {
		return err
	}
	for _, at := range have {
		f.mu.Lock()
		_, used := f.mounts[at.ID]
		if !used { // as if it were its last user: somebody may want it just now
			f.entry(Request{ID: at.ID}).refs++
		}
		f.mu.Unlock()
		if !used {
			err = errors.Join(err, f.Release(ctx, at.ID))
		}
	}
	return err
}

// Begin comes before the first Mount. It removes what is kept of connections
// that are no more, after a reboot for one: it would mislead who serves the next.
func (f *Flists) Begin(ctx context.Context) error {
	have, err := f.cfg.Shim.Mounts(ctx)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(f.stateDir(""))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !slices.ContainsFunc(have, func(m shimapi.Mount) bool { return m.ID == e.Name() }) {
			err = errors.Join(err, os.RemoveAll(f.stateDir(e.Name())))
		}
	}
	return err
}

// Forget removes what was recorded of flists that are not kept any more.
func (f *Flists) Forget(kept func(digest string) bool) error {
	dir := filepath.Join(f.cfg.Data, "order")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !kept(e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// SetLayer says that all of a mount is in a directory: files are read there from
// now on.
func (f *Flists) SetLayer(ctx context.Context, id, dir string) error {
	f.mu.Lock()
	m, ok := f.mounts[id]
	if ok {
		m.layer = dir
	}
	f.mu.Unlock()
	if !ok {
		return nil // nobody uses it any more
	}
	return f.client.Complete(ctx, id, dir)
}

// Timeout is how long a read may take.
func (f *Flists) Timeout() time.Duration { return f.cfg.Timeout }

// Failed is the last read of a mount that failed, as of now.
func (f *Flists) Failed(ctx context.Context, id string) (flistapi.ReadError, bool) {
	all, err := f.client.Mounts(ctx)
	if err != nil {
		return flistapi.ReadError{}, false
	}
	for _, s := range all {
		if s.ID == id && s.LastError != nil {
			return *s.LastError, true
		}
	}
	return flistapi.ReadError{}, false
}

// Status is how a mount is doing, as last heard.
func (f *Flists) Status(id string) (flistapi.MountStatus, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.mounts[id]
	if !ok {
		return flistapi.MountStatus{}, false
	}
	return m.status, m.status.ID != ""
}

func (m *mount) lock(ctx context.Context) error {
	select {
	case m.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.E(errs.Unavailable, "wait for the mount of the flist: %w", ctx.Err())
	}
}

func (m *mount) unlock() { <-m.busy }
