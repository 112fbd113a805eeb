package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is a network that machines are plugged into: a switch that learns, knows
// VLANs apart and lets every frame pass unless it is told not to.
type Wire struct {
	mu      sync.Mutex // guards what follows
	ports   map[*Machine]*port
	learned map[station]*port
	frames  map[int]int // by VLAN
	cut     map[*Machine]bool
	disturb func(frame []byte) (delay time.Duration, lost bool)

	wg sync.WaitGroup // the ports' goroutines
}

// station is who sends.
type station struct {
	vlan int
	mac  [6]byte
}

// port is a machine's end of the wire while it is on.
type port struct {
	conn  net.Conn // each Read and Write is a frame
	queue chan delayed
}

type delayed struct {
	frame []byte
	due   time.Time
}

const (
	queueLen = 1024    // frames on their way to a machine; more are lost
	maxFrame = 1 << 16 // what a datagram could hold
)

// NewWire returns a wire that ends with the test.
func NewWire(t testing.TB) *Wire {
	w := &Wire{ports: map[*Machine]*port{}, learned: map[station]*port{}, frames: map[int]int{}, cut: map[*Machine]bool{}}
	t.Cleanup(func() {
		w.mu.Lock()
		machines := make([]*Machine, 0, len(w.ports))
		for m := range w.ports {
			machines = append(machines, m)
		}
		w.mu.Unlock()
		for _, m := range machines {
			w.unplug(m)
		}
		w.wg.Wait()
	})
	return w
}

// Frames is how many frames with an 802.1Q tag of that id machines have sent; 0
// is those without a tag. What came from behind a cut does not count.
func (w *Wire) Frames(vlan int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frames[vlan]
}

// Cut cuts the cable of a machine: its frames and those for it are lost. The
// machine sees no change of its link.
func (w *Wire) Cut(m *Machine) { w.setCut(m, true) }

// Mend undoes Cut.
func (w *Wire) Mend(m *Machine) { w.setCut(m, false) }

func (w *Wire) setCut(m *Machine, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[m] = cut
}

// Disturb makes it a bad wire: f says of each frame how long it travels and
// whether it is lost. Frames to the same machine do not overtake each other.
// nil makes it a good one again.
func (w *Wire) Disturb(f func(frame []byte) (delay time.Duration, lost bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disturb = f
}

// plug makes the machine's end, of which it has one, and returns the file that QEMU is given.
func (w *Wire) plug(m *Machine) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "wire"), os.NewFile(uintptr(fds[1]), "machine")
	conn, err := net.FileConn(ours)
	if err := errors.Join(err, ours.Close()); err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	w.attach(m, conn)
	return theirs, nil
}

func (w *Wire) attach(m *Machine, conn net.Conn) {
	p := &port{conn: conn, queue: make(chan delayed, queueLen)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports[m] = p
	w.wg.Go(func() { w.receive(m, p) })
	w.wg.Go(p.send)
}

// unplug ends the machine's port. The cable stays cut if it is.
func (w *Wire) unplug(m *Machine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.ports[m]
	if p == nil {
		return
	}
	delete(w.ports, m)
	for s, at := range w.learned {
		if at == p {
			delete(w.learned, s)
		}
	}
	p.conn.Close()
	close(p.queue) // nobody forwards to it any more
}

// receive passes on what the machine sends, until its port is closed.
func (w *Wire) receive(m *Machine, p *port) {
	buf := make([]byte, maxFrame)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			return
		}
		w.forward(m, p, bytes.Clone(buf[:n]))
	}
}

// forward puts a frame into the queues of those whom it is for.
func (w *Wire) forward(m *Machine, from *port, frame []byte) {
	vlan, to, sender, ok := parse(frame)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut[m] || w.ports[m] != from {
		return
	}
	w.frames[vlan]++
	d := delayed{frame: frame}
	if w.disturb != nil {
		delay, lost := w.disturb(frame)
		if lost {
			return
		}
		d.due = time.Now().Add(delay)
	}
	w.learned[station{vlan, sender}] = from
	known := w.learned[station{vlan, to}]
	for other, p := range w.ports {
		if p == from || w.cut[other] || known != nil && known != p {
			continue
		}
		select {
		case p.queue <- d:
		default: // a machine that does not listen loses frames
		}
	}
}

// send writes the queue until it is closed.
func (p *port) send() {
	for d := range p.queue {
		time.Sleep(time.Until(d.due))
		_, _ = p.conn.Write(d.frame) // a machine that is going
	}
}

// parse reads the header of an Ethernet frame. Frames without a tag are in VLAN 0.
func parse(frame []byte) (vlan int, to, from [6]byte, ok bool) {
	const header, tagged, vlanTag = 14, 18, 0x8100
	if len(frame) < header {
		return 0, to, from, false
	}
	copy(to[:], frame)
	copy(from[:], frame[6:])
	if binary.BigEndian.Uint16(frame[12:]) != vlanTag {
		return 0, to, from, true
	}
	if len(frame) < tagged {
		return 0, to, from, false
	}
	return int(binary.BigEndian.Uint16(frame[14:]) & 0xfff), to, from, true
}
