package gpu

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what an Inventory is made of.
type Config struct {
	Program string       // buoy-gpu; empty: there is none, so the kernel alone is asked
	Root    string       // where proc and sys are, and the driver's library; default "/"
	Log     *slog.Logger // default: none
}

// Inventory knows the GPUs of a machine. It asks the kernel, and where an
// NVIDIA driver is loaded, buoy-gpu, which asks the driver's library. Either may
// block for ever; that holds nobody up, and what was known stays known.
type Inventory struct {
	cfg   Config
	pace  pace
	asks  chan chan<- []Figures
	news  chan struct{} // a token: a device or a driver has come or gone
	ready chan struct{}
	over  chan struct{} // closed when Run returns

	mu      sync.Mutex // guards machine, changed, tell
	machine Machine
	changed chan struct{} // closed and replaced when machine becomes another one
	tell    func(context.Context, Change)

	// All below is Run's.
	kernel    kernelView
	looked    time.Time       // last
	soon      time.Time       // when to look at news; zero: there are none
	looking   chan kernelView // a look at the kernel that is not over
	helper    *helper         // nil: none runs
	stuck     <-chan struct{} // closed when the helper is gone that could not be killed
	since     time.Time       // when helper was started
	retry     time.Time       // when the next one may be
	pause     time.Duration   // after the last failure
	nv        *Machine        // what the library said last; nil: nothing, for the reason trouble
	trouble   string
	fallen    map[string]string // what XIDs say of GPUs, by UUID, until the helper is another one
	xids      map[string]int64  // the last of each GPU
	toldXID   map[XID]time.Time
	asking    chan []Figures // kernel's figures that are being read
	figures   []Figures
	figuresAt time.Time
}

// pace is how often things are done, and how long they may take.
type pace struct {
	tick     time.Duration // between looks at a machine with GPUs
	idle     time.Duration // and at one without
	settle   time.Duration // after news: devices come by the dozen
	kernel   time.Duration // for files of the kernel
	first    time.Duration // for the first answer: without persistence mode a driver takes seconds to wake each GPU
	machine  time.Duration
	figures  time.Duration
	fresh    time.Duration // figures are not asked for again within
	lost     time.Duration // after which the library is loaded anew, as it may see a lost GPU then
	pause    time.Duration // before a failed helper is started again; doubles
	maxPause time.Duration
}

func normal() pace {
	return pace{
		tick: 30 * time.Second, idle: time.Minute, settle: 200 * time.Millisecond, kernel: 5 * time.Second,
		first: time.Minute, machine: 20 * time.Second, figures: 5 * time.Second, fresh: time.Second,
		lost: 5 * time.Minute, pause: time.Second, maxPause: 5 * time.Minute,
	}
}

// NewInventory makes an Inventory, which knows nothing before Run.
func NewInventory(cfg Config) *Inventory {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Inventory{
		cfg: cfg, pace: normal(), asks: make(chan chan<- []Figures), news: make(chan struct{}, 1), ready: make(chan struct{}), over: make(chan struct{}), changed: make(chan struct{}),
		tell: func(context.Context, Change) {}, fallen: map[string]string{}, xids: map[string]int64{}, toldXID: map[XID]time.Time{},
	}
}

// Look looks at a machine once.
func Look(ctx context.Context, cfg Config) Machine {
	i := NewInventory(cfg)
	i.look(ctx)
	i.end()
	return i.Machine()
}

// Ready is closed when there has been a look at the machine.
func (i *Inventory) Ready() <-chan struct{} { return i.ready }

// Machine is what is known. It asks nobody. Its slices are shared: do not write.
func (i *Inventory) Machine() Machine {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.machine
}

// Changed is closed when Machine becomes another one. Ask for it first and then
// look.
func (i *Inventory) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// Tell says who is told of changes. f must return quickly.
func (i *Inventory) Tell(f func(context.Context, Change)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tell = f
}

// Figures are those of all GPUs that have some, not older than a second.
func (i *Inventory) Figures(ctx context.Context) ([]Figures, error) {
	ctx, cancel := context.WithTimeout(ctx, i.pace.figures+i.pace.kernel)
	defer cancel()
	reply := make(chan []Figures, 1)
	select {
	case i.asks <- reply:
	case <-i.over:
		return nil, errs.E(errs.Unavailable, "ask for figures of GPUs: buoyd is ending")
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "ask for figures of GPUs: %w", ctx.Err())
	}
	select {
	case all := <-reply:
		return all, nil
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "ask for figures of GPUs: %w", ctx.Err())
	}
}

// Run keeps the inventory until ctx ends.
func (i *Inventory) Run(ctx context.Context) error {
	defer close(i.over)
	defer i.end()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { i.follow(ctx) })
	i.look(ctx)
	close(i.ready)
	for {
		again := time.NewTimer(i.next())
		i.wait(ctx, again.C)
		again.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// follow hears of devices that come and go. Without that they are seen a little
// later.
func (i *Inventory) follow(ctx context.Context) {
	f, err := uevents()
	if err == nil {
		err = hearOfDevices(ctx, f, i.news)
	}
	if err != nil {
		i.cfg.Log.WarnContext(ctx, "GPUs that come or go are noticed late", "error", err)
	}
}

// next is how long it is to the next look.
func (i *Inventory) next() time.Duration {
	every := i.pace.idle
	if i.kernel.Loaded || len(i.Machine().Devices) > 0 {
		every = i.pace.tick
	}
	due := i.looked.Add(every)
	if !i.soon.IsZero() && i.soon.Before(due) {
		due = i.soon
	}
	if i.kernel.Loaded && i.helper == nil && i.stuck == nil && i.cfg.Program != "" && i.retry.Before(due) {
		due = i.retry
	}
	return max(time.Until(due), 0)
}

// wait waits for something to happen, and does what is to be done then.
func (i *Inventory) wait(ctx context.Context, again <-chan time.Time) {
	var said <-chan Message
	if i.helper != nil {
		said = i.helper.said
	}
	select {
	case <-ctx.Done():
	case <-again:
		i.look(ctx)
	case <-i.news:
		if i.soon.IsZero() {
			i.soon = time.Now().Add(i.pace.settle)
		}
	case <-i.stuck:
		i.cfg.Log.InfoContext(ctx, "the buoy-gpu that could not be killed has ended")
		i.stuck = nil
		i.look(ctx)
	case m, ok := <-said:
		if !ok {
			i.fail(ctx, i.helper.failure())
		} else {
			i.hear(ctx, m)
		}
		i.look(ctx)
	case reply := <-i.asks:
		i.answer(ctx, reply)
	}
}

// look looks at the machine.
func (i *Inventory) look(ctx context.Context) {
	before := i.kernel
	i.soon = time.Time{}
	defer func() { i.looked = time.Now() }()
	i.lookAtKernel(ctx)
	if i.helper != nil && (i.stale(before) || !i.kernel.Loaded) {
		i.end()
	}
	switch {
	case !i.kernel.Loaded:
		i.nv, i.trouble = nil, ""
	case i.cfg.Program == "":
		i.nv, i.trouble = nil, "buoy-gpu, which asks the NVIDIA driver, is not installed beside buoyd"
	default:
		i.lookAtDriver(ctx)
	}
	if ctx.Err() == nil {
		i.publish(ctx)
	}
}

// stale says whether the library has to be loaded anew to see what there is: it
// looks for GPUs at its start alone.
func (i *Inventory) stale(before kernelView) bool {
	type seen struct{ pci, driver string }
	list := func(k kernelView) (all []seen) {
		for _, d := range k.Devices {
			if d.Vendor == NVIDIA {
				all = append(all, seen{d.PCI, d.Kernel})
			}
		}
		return all
	}
	if !slices.Equal(list(before), list(i.kernel)) || before.Driver != i.kernel.Driver {
		return true
	}
	missing := slices.ContainsFunc(i.Machine().Devices, func(d Device) bool { return d.Vendor == NVIDIA && d.Lost })
	return missing && time.Since(i.since) > i.pace.lost
}

// lookAtKernel reads files of the kernel. Those of a GPU that hangs may block.
func (i *Inventory) lookAtKernel(ctx context.Context) {
	if i.looking == nil {
		i.looking = make(chan kernelView, 1)
		go func(done chan<- kernelView) { // lasts as long as the kernel takes
			var k kernelView
			root := os.DirFS(i.cfg.Root)
			k.Driver, k.Loaded = driver(root)
			k.Devices = scan(root)
			k.Links = pciLinks(root, k.Devices)
			done <- k
		}(i.looking)
	}
	late := time.NewTimer(i.pace.kernel)
	defer late.Stop()
	select {
	case i.kernel = <-i.looking:
		i.looking = nil
	case <-late.C:
		i.cfg.Log.WarnContext(ctx, "the kernel does not answer about GPUs; what was known is kept")
	case <-ctx.Done():
	}
}

// lookAtDriver asks the driver's library, if it can be asked.
func (i *Inventory) lookAtDriver(ctx context.Context) {
	patience := i.pace.machine
	if i.helper == nil {
		if i.stuck != nil || time.Now().Before(i.retry) {
			return
		}
		i.since = time.Now()
		h, err := startHelper(i.cfg.Program, i.cfg.Root)
		if err != nil {
			i.fail(ctx, err)
			return
		}
		i.helper, patience = h, i.pace.first
		clear(i.fallen)
	}
	var heard []Message
	m, err := i.helper.ask(ctx, AskMachine, patience, func(m Message) { heard = append(heard, m) })
	for _, m := range heard {
		i.hear(ctx, m)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		i.fail(ctx, err)
	case m.Machine == nil:
		i.fail(ctx, errors.New("buoy-gpu does not say what it was asked"))
	default:
		if i.trouble != "" {
			i.cfg.Log.InfoContext(ctx, "the NVIDIA driver answers")
		}
		i.nv, i.trouble = m.Machine, ""
	}
}

// fail gives a helper up, which is started again after a while.
func (i *Inventory) fail(ctx context.Context, err error) {
	i.end()
	i.nv = nil
	if i.trouble != err.Error() {
		i.trouble = err.Error()
		i.cfg.Log.WarnContext(ctx, "the NVIDIA driver cannot be asked", "error", err)
	}
	if time.Since(i.since) > i.pace.maxPause {
		i.pause = 0 // it was well for a while
	}
	i.pause = min(max(2*i.pause, i.pace.pause), i.pace.maxPause)
	i.retry = time.Now().Add(i.pause)
}

// end ends the helper, if one runs.
func (i *Inventory) end() {
	if i.helper == nil {
		return
	}
	if !i.helper.kill() {
		i.stuck = i.helper.ended
		i.cfg.Log.Error("buoy-gpu hangs in the NVIDIA driver and cannot be killed; it is left alone", "pid", i.helper.cmd.Process.Pid)
	}
	i.helper = nil
}

// quietXID is how long an error of a GPU is not told again: a program may cause
// hundreds a second.
const quietXID = 10 * time.Second

// hear takes in what the helper says unasked.
func (i *Inventory) hear(ctx context.Context, m Message) {
	x := m.XID
	if x == nil {
		return // a look follows
	}
	d := find(i.Machine().Devices, func(d Device) bool { return d.UUID == x.UUID })
	if d == nil {
		return
	}
	i.xids[x.UUID] = x.Code
	if x.Code == fellOff {
		i.fallen[x.UUID] = x.String()
	}
	if time.Since(i.toldXID[*x]) > quietXID {
		i.toldXID[*x] = time.Now()
		i.told()(ctx, Change{Kind: Failed, Device: *d, XID: *x})
	}
}

func (i *Inventory) told() func(context.Context, Change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tell
}

// publish makes what was seen what is known, and tells what has become of it.
func (i *Inventory) publish(ctx context.Context) {
	was := i.Machine()
	now := merge(i.kernel, i.nv, i.trouble, was.Devices)
	for n := range now.Devices {
		d := &now.Devices[n]
		for _, uuid := range []string{d.UUID, parent(*d)} {
			if why := i.fallen[uuid]; why != "" {
				d.Broken, d.Lost = why, true
			}
		}
	}
	if reflect.DeepEqual(was, now) {
		return
	}
	i.mu.Lock()
	i.machine = now
	close(i.changed)
	i.changed = make(chan struct{})
	tell := i.tell
	i.mu.Unlock()
	for _, c := range changes(was.Devices, now.Devices) {
		if c.Kind == Lost {
			i.cfg.Log.ErrorContext(ctx, "lost a GPU", "uuid", c.Device.UUID, "pci", c.Device.PCI, "why", c.Device.Broken)
		}
		tell(ctx, c)
	}
}

func parent(d Device) string {
	if d.Instance == nil {
		return ""
	}
	return d.Instance.Parent
}

// answer answers who asks for figures.
func (i *Inventory) answer(ctx context.Context, reply chan<- []Figures) {
	if i.figures != nil && time.Since(i.figuresAt) < i.pace.fresh {
		reply <- i.figures
		return
	}
	all := i.kernelFigures(ctx)
	if i.helper != nil {
		var heard []Message
		m, err := i.helper.ask(ctx, AskFigures, i.pace.figures, func(m Message) { heard = append(heard, m) })
		for _, m := range heard {
			i.hear(ctx, m)
		}
		if err != nil && ctx.Err() == nil {
			i.fail(ctx, err)
		}
		if err != nil || len(heard) > 0 {
			i.look(ctx)
		}
		all = append(all, m.Figures...)
	}
	for n := range all {
		all[n].XID = i.xids[all[n].UUID]
	}
	i.figures, i.figuresAt = all, time.Now()
	reply <- all
}

// kernelFigures are those of the GPUs that are not NVIDIA's.
func (i *Inventory) kernelFigures(ctx context.Context) []Figures {
	var others []Device
	for _, d := range i.Machine().Devices {
		if d.Vendor != NVIDIA && !d.Lost {
			others = append(others, d)
		}
	}
	if len(others) == 0 {
		return []Figures{}
	}
	if i.asking == nil {
		i.asking = make(chan []Figures, 1)
		go func(done chan<- []Figures) { // lasts as long as the kernel takes
			all := []Figures{}
			for _, d := range others {
				all = append(all, pciFigures(os.DirFS(i.cfg.Root), d))
			}
			done <- all
		}(i.asking)
	}
	late := time.NewTimer(i.pace.kernel)
	defer late.Stop()
	select {
	case all := <-i.asking:
		i.asking = nil
		return all
	case <-late.C:
	case <-ctx.Done():
	}
	return []Figures{}
}
