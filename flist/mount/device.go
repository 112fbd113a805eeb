package mount

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// device is the FUSE connection. Requests are read here; go-fuse decodes and answers all but READ and INTERRUPT.
//
// Taking over: the kernel is asked for its settings once, by INIT, whose request and answer are in StateDir/init. A server
// that finds them gives the request to go-fuse again, throws the answer away, and then has the kernel send again what the
// dead one had taken (FUSE_NOTIFY_RESEND, Linux 6.9). Older kernels cannot; for them, requests are read into a mapped file
// (inflight.go) and the next server finds them there.
type device struct {
	m    *Mount
	fd   int
	file *os.File // of fd; its Fd would make it block
	ps   *fuse.ProtocolServer
	kept *inflight // nil: the kernel sends again
	init *settings // what is agreed; set, as kept is, before more than one goroutine reads
	wg   sync.WaitGroup

	readers atomic.Int32  // goroutines that read or are about to
	taken   atomic.Int64  // requests
	stop    atomic.Bool   // nothing is answered any more
	gone    chan struct{} // closed by the first that hears it
	goneOne sync.Once
}

// settings is what a connection was told at its start.
type settings struct {
	In  []byte `json:"in"`  // the kernel's INIT
	Out []byte `json:"out"` // our answer
}

const (
	// requestRoom is the least that the kernel accepts; no request to a file system without writing is longer.
	requestRoom = 8192
	headerSize  = 16 // of an answer

	opRead        = 15
	opInit        = 26
	opReadDir     = 28
	opInterrupt   = 36
	opReadDirPlus = 44

	notifyResend = 7
	resentBit    = 1 << 63 // in the number of a request that is sent again

	// errRestart in an answer means that there is none: the next server gives it.
	errRestart = fuse.Status(512)
)

// Offsets in INIT's answer, after the header.
const (
	initMaxWrite = 20
	initSize     = 64
)

func newDevice(m *Mount, fd int) (*device, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	d := &device{m: m, fd: fd, gone: make(chan struct{})}
	d.ps = fuse.NewProtocolServer(newTree(m), &fuse.MountOptions{
		MaxBackground: 64, MaxWrite: 1 << 20, RememberInodes: true, DisableXAttrs: true, EnableSymlinkCaching: true,
		ExplicitDataCacheControl: true, IDMappedMount: true, MaxStackDepth: 1,
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HAS_RESEND,
		DisabledCapabilities: d.disabled(),
		Logger:               slog.NewLogLogger(m.cfg.Log.Handler(), slog.LevelDebug),
	})
	if err := d.takeUp(); err != nil {
		return nil, err
	}
	d.file = os.NewFile(uintptr(fd), "/dev/fuse")
	return d, nil
}

func (d *device) disabled() (caps uint64) {
	if d.m.cfg.NoPassthrough {
		caps |= fuse.CAP_PASSTHROUGH
	}
	return caps
}

func (d *device) close() {
	d.file.Close()
	if d.kept != nil {
		d.kept.close()
	}
}

func (d *device) initFile() string { return filepath.Join(d.m.cfg.StateDir, "init") }

// takeUp reads what a server before this one has agreed with the kernel, if there was one.
func (d *device) takeUp() error {
	raw, err := os.ReadFile(d.initFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s settings
	if err := json.Unmarshal(raw, &s); err != nil || len(s.In) < 40 || len(s.Out) < headerSize+initSize {
		return fmt.Errorf("%s is damaged; the mount has to be made anew", d.initFile())
	}
	scratch := make([]byte, requestRoom)
	if _, status := d.ps.HandleRequest([][]byte{s.In}, [][]byte{scratch}); !status.Ok() {
		return fmt.Errorf("take over the mount: %s", status)
	}
	return d.agreed(&s)
}

// agreed is called when both sides know the settings.
func (d *device) agreed(s *settings) (err error) {
	flags := binary.NativeEndian.Uint32(s.Out[headerSize+12:])
	flags2 := binary.NativeEndian.Uint32(s.Out[headerSize+32:])
	if flags&fuse.CAP_INIT_EXT == 0 {
		flags2 = 0
	}
	both := uint64(flags) | uint64(flags2)<<32
	d.m.open.usePassthrough(both&fuse.CAP_PASSTHROUGH != 0)
	if d.kept == nil && (both&fuse.CAP_HAS_RESEND == 0 || d.m.cfg.NoResend) {
		if d.kept, err = openInflight(filepath.Join(d.m.cfg.StateDir, "inflight")); err != nil {
			return err
		}
	}
	d.init = s
	return nil
}

// serve answers until ctx ends or the connection does.
func (d *device) serve(ctx context.Context) error {
	// Requests end after stop is set, never before: what they end with then would be an answer.
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stopped := context.AfterFunc(ctx, func() {
		d.stop.Store(true)
		d.m.calls.endAll()
		end()
		_ = d.file.SetReadDeadline(time.Unix(1, 0))
	})
	defer stopped()
	if d.init != nil {
		d.recover(work)
	} else if err := d.agree(); err != nil {
		return d.why(ctx, err)
	}
	close(d.m.ready)
	d.readers.Add(1)
	d.wg.Go(func() { d.loop(work) })
	d.wg.Wait()
	return d.why(ctx, errUnread)
}

var errUnread = errors.New("the FUSE connection cannot be read")

// why is the reason for the end of serve; err if there is no better one.
func (d *device) why(ctx context.Context, err error) error {
	select {
	case <-d.gone:
		return ErrGone
	default:
	}
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// recover gets back the requests that the server before this one took and did not answer.
func (d *device) recover(ctx context.Context) {
	if d.kept == nil {
		msg := make([]byte, headerSize)
		binary.NativeEndian.PutUint32(msg, headerSize)
		binary.NativeEndian.PutUint32(msg[4:], notifyResend)
		if _, err := unix.Write(d.fd, msg); err != nil {
			d.m.cfg.Log.Error("have requests sent again", "error", err)
		}
		return
	}
	for _, req := range d.kept.left() {
		d.wg.Go(func() {
			d.handle(ctx, req)
			if !d.stop.Load() {
				d.kept.release(req)
			}
		})
	}
}

// maxIdle readers wait for requests at once; those above it end when they have answered.
const maxIdle = 2

// loop reads and answers. Whoever takes a request sees to it that somebody else reads.
func (d *device) loop(ctx context.Context) {
	buf := make([]byte, requestRoom)
	for {
		n, slot, ok := d.next(buf)
		if d.readers.Add(-1) == 0 && ok {
			d.readers.Add(1)
			d.wg.Go(func() { d.loop(ctx) })
		}
		if !ok {
			return
		}
		d.taken.Add(1)
		if slot != nil {
			d.handle(ctx, slot[:n])
			if !d.stop.Load() {
				d.kept.release(slot)
			}
		} else {
			d.handle(ctx, buf[:n])
		}
		if d.readers.Add(1) > maxIdle {
			d.readers.Add(-1)
			return
		}
	}
}

// next reads a request into a slot of the mapped file, or else into buf; false: there is none any more.
func (d *device) next(buf []byte) (n int, slot []byte, ok bool) {
	if d.kept != nil {
		if slot = d.kept.take(); slot != nil {
			buf = slot
		}
	}
	for {
		n, err := d.file.Read(buf)
		switch {
		case err == nil && n >= 40:
			return n, slot, true
		case err == nil, errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
			continue // the caller was killed before we had read it
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if _, why := unix.Read(d.fd, buf); !ended(err) && !ended(why) { // epoll only knows that it is over
				d.m.cfg.Log.Error("read a FUSE request", "error", err)
				break
			}
			d.goneOne.Do(func() { close(d.gone) })
		}
		if slot != nil {
			d.kept.release(slot)
		}
		return 0, nil, false
	}
}

// ended is what the kernel says when the file system is unmounted, or the connection aborted.
func ended(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNABORTED) }

// handle answers one request.
func (d *device) handle(ctx context.Context, req []byte) {
	d.m.busy.Add(1)
	defer d.m.busy.Add(-1)
	defer func() {
		if r := recover(); r != nil { // only our own bug could do that; the mount shall survive it
			d.m.cfg.Log.Error("BUG: a request made the server panic", "opcode", opcode(req), "panic", r)
			d.answer(errorAnswer(unique(req), unix.EIO))
		}
	}()
	switch opcode(req) {
	case opRead:
		d.m.read(ctx, req, d.answer)
	case opInterrupt:
		d.interrupt(ctx, req)
	case opInit:
		d.repeat(req)
	case opReadDir, opReadDirPlus:
		clampDir(req)
		fallthrough
	default:
		room := answers.Get().(*[]byte)
		defer answers.Put(room)
		n, status := d.ps.HandleRequest([][]byte{req}, [][]byte{*room})
		if !status.Ok() {
			d.answer(errorAnswer(unique(req), unix.EIO))
		} else if n > 0 {
			d.answer((*room)[:n])
		}
	}
}

// maxDir is how much of a directory is told at once. overlayfs asks for 1 MiB, and again for what it does not get.
const maxDir = 128 << 10

// clampDir asks for less.
func clampDir(req []byte) {
	if len(req) < 60 {
		return // go-fuse refuses it
	}
	size := req[56:60]
	binary.NativeEndian.PutUint32(size, min(binary.NativeEndian.Uint32(size), maxDir))
}

// answers have room for maxDir and a header.
var answers = sync.Pool{New: func() any { b := make([]byte, maxDir+8<<10); return &b }}

func opcode(req []byte) uint32 { return binary.NativeEndian.Uint32(req[4:]) }
func unique(req []byte) uint64 { return binary.NativeEndian.Uint64(req[8:]) }

// answer sends one. The kernel refuses those to requests that nobody waits for any more: fine.
func (d *device) answer(b []byte) {
	if d.stop.Load() && int32(binary.NativeEndian.Uint32(b[4:])) == -int32(errRestart) {
		return
	}
	for {
		_, err := unix.Write(d.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV):
			d.m.cfg.Log.Error("answer a FUSE request", "error", err)
			if len(b) > headerSize || int32(binary.NativeEndian.Uint32(b[4:])) != -int32(unix.EIO) {
				b = errorAnswer(unique(b), unix.EIO) // or somebody waits for ever
				continue
			}
		}
		return
	}
}

func errorAnswer(unique uint64, errno unix.Errno) []byte {
	b := make([]byte, headerSize)
	putHeader(b, unique, headerSize, int32(errno))
	return b
}

func putHeader(b []byte, unique uint64, size int, errno int32) {
	binary.NativeEndian.PutUint32(b, uint32(size))
	binary.NativeEndian.PutUint32(b[4:], uint32(-errno))
	binary.NativeEndian.PutUint64(b[8:], unique)
}

// agree answers the first request, which is INIT. What is agreed is on the disk before the kernel hears it.
func (d *device) agree() error {
	req := make([]byte, requestRoom)
	n, _, ok := d.next(req)
	if !ok {
		return errUnread
	}
	req = req[:n]
	out := make([]byte, requestRoom)
	n, status := d.ps.HandleRequest([][]byte{req}, [][]byte{out})
	if opcode(req) != opInit || !status.Ok() || n < headerSize+initSize {
		d.answer(errorAnswer(unique(req), unix.EPROTO))
		return fmt.Errorf("the kernel's first request (%d) is not understood: %s", opcode(req), status)
	}
	// Nothing is written, so requests are short, and buffers for them may be.
	binary.NativeEndian.PutUint32(out[headerSize+initMaxWrite:], 4096)
	s := &settings{In: req, Out: out[:n]}
	raw, err := json.Marshal(s)
	if err == nil {
		err = atomicfile.Write(d.initFile(), raw, 0o600)
	}
	if err == nil {
		err = d.agreed(s)
	}
	if err != nil {
		d.answer(errorAnswer(unique(req), unix.EIO))
		return fmt.Errorf("keep what was agreed with the kernel: %w", err)
	}
	d.answer(s.Out)
	return nil
}

// repeat answers an INIT that the server before this one could not answer any more.
func (d *device) repeat(req []byte) {
	out := append([]byte(nil), d.init.Out...)
	binary.NativeEndian.PutUint64(out[8:], unique(req))
	d.answer(out)
}

// interrupt: a signal has come to somebody who waits.
func (d *device) interrupt(ctx context.Context, req []byte) {
	target := binary.NativeEndian.Uint64(req[40:])
	if d.m.calls.interrupt(target) {
		return
	}
	// It is answered already, or nearly, or not yet known. The kernel is to say it again if it still matters.
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
	d.answer(errorAnswer(unique(req), unix.EAGAIN))
}
