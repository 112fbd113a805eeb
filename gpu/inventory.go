package gpu

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"
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
		i.lookIn(i.pace.settle)
	case <-i.stuck:
		i.cfg.Log.InfoContext(ctx, "the buoy-gpu that could not be killed has ended")
		i.stuck = nil
		i.look(ctx)
	case m, ok := <-said:
		if !ok {
			i.fail(ctx, i.helper.failure())
			i.lookIn(0)
			return
		}
		i.hear(ctx, m)
	case reply := <-i.asks:
		i.answer(ctx, reply)
	}
}

// quietXID is how long an error of a GPU is not told again: a program may cause
// hundreds a second.
const quietXID = 10 * time.Second

// maxXIDs bounds those that are remembered to have been told: there are some
// hundred, and a library that makes more up does not fill the memory.
const maxXIDs = 10000

// hear takes in what the helper says unasked.
func (i *Inventory) hear(ctx context.Context, m Message) {
	if m.Changed {
		i.lookIn(i.pace.settle)
	}
	x := m.XID
	if x == nil {
		return
	}
	d := find(i.Machine().Devices, func(d Device) bool { return d.UUID == x.UUID })
	if d == nil {
		return
	}
	i.xids[x.UUID] = x.Code
	if x.Code == fellOff && i.fallen[x.UUID] == "" {
		i.fallen[x.UUID] = x.String()
		i.lookIn(0)
	}
	if time.Since(i.toldXID[*x]) > quietXID {
		if len(i.toldXID) > maxXIDs {
			clear(i.toldXID)
		}
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
