//go:build linux && cgo

package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// logs moves what containers print from their pipes into their log files, all
// in one goroutine. What is in a pipe is copied out with tee(2), written, and
// only then taken from the pipe, so a shim that dies in between loses nothing;
// mark.go keeps it from writing anything twice.
type logs struct {
	epfd, wake int
	scratch    [2]int // the pipe that tee copies into
	mark       *mark
	in         []byte // what tee brought
	out        []byte // the same as records

	ready map[*stream]bool // may have more than one batch
	tails map[*stream]bool // have an unfinished line
	nap   time.Duration    // until they are looked at again
	taps  map[int32]*tap
	full  map[*logFile]bool // have lines to tell of that were lost

	mu      sync.Mutex // guards streams, asked; the loop owns all else, and all of a stream
	streams map[int32]*stream
	asked   []func()
	over    chan struct{} // closed when the loop has ended
}

// stream is one pipe of a task, or a terminal and the pipe behind it.
type stream struct {
	key  string // ID/JOB/stdout, for the reaper and the mark
	name string // stdout or stderr
	fd   int
	file *logFile
	tty  int // the master of a terminal, whose output is pumped into
	sink int // the writing end of the pipe; -1: the task writes to the pipe itself
	taps []*tap

	tail      int // bytes at the pipe's head that lack their newline
	tailSince time.Time
	hup       bool // no writer is left
	closed    bool
}

const (
	pipeSize = 64 << 10
	longLine = 16 << 10    // a longer line is cut into P records, as in the CRI format
	tailWait = time.Second // then a line without its end is logged as P
)

func newLogs(markPath string) (l *logs, err error) {
	l = &logs{
		in: make([]byte, pipeSize), ready: map[*stream]bool{}, tails: map[*stream]bool{}, taps: map[int32]*tap{}, full: map[*logFile]bool{},
		streams: map[int32]*stream{}, over: make(chan struct{}),
	}
	if l.epfd, l.wake, err = newEpoll(); err != nil {
		return nil, err
	}
	if err := unix.Pipe2(l.scratch[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	l.mark, err = openMark(markPath)
	return l, err
}

// add starts reading st. Its pipe's description becomes non-blocking, which
// only readers share.
func (l *logs) add(st *stream) error {
	if err := unix.SetNonblock(st.fd, true); err != nil {
		return err
	}
	fds := []int{st.fd}
	if st.tty >= 0 {
		fds = append(fds, st.tty)
	}
	for _, fd := range fds {
		l.mu.Lock()
		l.streams[int32(fd)] = st
		l.mu.Unlock()
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return fmt.Errorf("watch the output of %s: %w", st.key, err)
		}
	}
	return nil
}

// drain returns when what was in the pipes is in the files, or after limit.
// The task has ended.
func (l *logs) drain(limit time.Duration, streams ...*stream) {
	if len(streams) == 0 {
		return
	}
	l.ask(limit, func() {
		for _, st := range streams {
			l.empty(st)
		}
	})
}

// remove drains and closes.
func (l *logs) remove(limit time.Duration, streams ...*stream) {
	if len(streams) == 0 {
		return
	}
	l.ask(limit, func() {
		for _, st := range streams {
			l.empty(st)
			l.closeStream(st)
		}
	})
}

// ask has the loop run f and waits for it, but no longer than limit.
func (l *logs) ask(limit time.Duration, f func()) {
	done := make(chan struct{})
	l.mu.Lock()
	l.asked = append(l.asked, func() { f(); close(done) })
	l.mu.Unlock()
	ring(l.wake)
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-l.over:
	}
}

func (l *logs) run(ctx context.Context, log *slog.Logger) {
	defer close(l.over)
	defer context.AfterFunc(ctx, func() { ring(l.wake) })()
	evs := make([]unix.EpollEvent, 64)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(l.epfd, evs, l.timeout())
		if err != nil && !errors.Is(err, unix.EINTR) {
			log.Error("wait for output", "error", err)
			time.Sleep(time.Second)
		}
		if n == 0 {
			l.lookAgain()
		}
		for _, ev := range evs[:max(n, 0)] {
			l.noticed(ev)
		}
		for st := range l.ready {
			if st.held() || !l.batch(st) {
				delete(l.ready, st)
			}
			if st.tail > 0 && !st.closed {
				l.tails[st] = true
			}
		}
		l.flushTails(time.Now())
		for f := range l.full {
			if f.tell() {
				delete(l.full, f)
			}
		}
		l.oblige()
	}
}

func (l *logs) timeout() int {
	switch {
	case len(l.ready) > 0:
		return 0
	case len(l.tails) > 0:
		return int(l.nap / time.Millisecond)
	case len(l.full) > 0:
		return int(tailWait/time.Millisecond) / 4
	}
	return -1
}

// A pipe that is not empty is filled up without a word by a write that is longer
// than its room: pipe_write wakes readers of an empty pipe, and when it is done.
// An unfinished line keeps a pipe from being empty, so one with a tail is looked
// at now and then, soon after something came and then less often.
const (
	firstNap = time.Millisecond
	lastNap  = 20 * time.Millisecond
)

func (l *logs) lookAgain() {
	for st := range l.tails {
		l.ready[st] = true
	}
	l.nap = min(2*l.nap, lastNap)
}

func (l *logs) noticed(ev unix.EpollEvent) {
	if ev.Fd == int32(l.wake) {
		quiet(l.wake)
		return
	}
	if t := l.taps[ev.Fd]; t != nil {
		l.relieve(t, ev.Events&unix.EPOLLERR != 0)
		return
	}
	l.mu.Lock()
	st := l.streams[ev.Fd]
	l.mu.Unlock()
	if st == nil {
		return
	}
	st.hup = st.hup || ev.Fd == int32(st.fd) && ev.Events&unix.EPOLLHUP != 0
	l.ready[st] = true
}

// oblige serves what ask wants.
func (l *logs) oblige() {
	l.mu.Lock()
	asked := l.asked
	l.asked = nil
	l.mu.Unlock()
	for _, f := range asked {
		f()
	}
}

// empty reads to the present end what a task has said that has ended.
func (l *logs) empty(st *stream) {
	// 64 batches are 4 MiB: more than was in the pipe when the process ended.
	for i := 0; i < 64 && l.batch(st); i++ {
	}
	l.flush(st)
	l.lastOf(st)
}

func (l *logs) flushTails(now time.Time) {
	for st := range l.tails {
		switch {
		case st.closed || st.tail == 0:
			delete(l.tails, st)
		case now.Sub(st.tailSince) >= tailWait:
			l.flush(st)
			delete(l.tails, st)
		}
	}
}

// batch moves what is in the pipe, one pipe full at most, up to the last
// newline. It is false when nothing more is to be had now.
func (l *logs) batch(st *stream) bool {
	if st.closed {
		return false
	}
	full := l.pump(st)
	n, err := l.peek(st)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false
	case err != nil || n == 0:
		l.closeStream(st)
		return false
	case n == st.tail && !st.hup && !full:
		return false
	}
	l.nap = firstNap
	data := l.in[:n]
	l.feed(st, data[st.tail:])
	whole := lastLine(data)
	if st.hup || n-whole >= longLine || whole == 0 && full {
		whole = n
	}
	for rest := data[:whole]; len(rest) > 0; {
		n := fitting(rest, st.file.log.MaxBytes)
		l.move(st, rest[:n])
		rest = rest[n:]
	}
	if st.tail != n-whole || st.tailSince.IsZero() {
		st.tailSince = time.Now()
	}
	st.tail = n - whole
	return whole > 0
}

// recordHead is more than a record has besides its text.
const recordHead = 128

// fitting is how much of data, in whole lines, has records of at most so many bytes
// together, or its first line: what a pipe holds of short lines has many times its size.
func fitting(data []byte, most int64) int {
	if pipeSize*(1+recordHead) <= most {
		return len(data)
	}
	n, size := 0, int64(0)
	for line := range bytes.Lines(data) {
		records := int64(1 + len(line)/longLine)
		if size += int64(len(line)) + records*recordHead; size > most && n > 0 {
			break
		}
		n += len(line)
	}
	return n
}

// flush logs an unfinished line as it is.
func (l *logs) flush(st *stream) {
	if st.closed || st.tail == 0 {
		return
	}
	if n, err := l.peek(st); err == nil && n > 0 {
		l.feed(st, l.in[st.tail:n])
		l.move(st, l.in[:n])
	}
	st.tail = 0
}

// peek copies the head of the pipe into l.in.
func (l *logs) peek(st *stream) (int, error) {
	n, err := unix.Tee(st.fd, l.scratch[1], pipeSize, unix.SPLICE_F_NONBLOCK)
	if err != nil || n == 0 {
		return 0, err
	}
	got := 0
	for got < int(n) {
		m, err := unix.Read(l.scratch[0], l.in[got:n])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		got += max(m, 0)
	}
	return got, nil
}

// move writes data as records and takes it from the pipe.
func (l *logs) move(st *stream, data []byte) {
	var lines int
	now := time.Now()
	l.out, lines = format(l.out[:0], st.name, st.file.tag(now), data, now)
	if st.file.makeRoom(len(l.out)) {
		l.out, lines = format(l.out[:0], st.name, st.file.tag(now), data, now)
	}
	l.mark.set(st.key, data, st.file.size, st.file.size+int64(len(l.out)))
	if st.file.write(l.out, lines); st.file.lost > 0 {
		l.full[st.file] = true
	}
	l.take(st, len(data))
	l.mark.clear()
}

// take removes what has been logged from the pipe. It is a read, into a buffer
// that is done with: a kill can end a splice half-way, and the next shim would
// log the rest of the batch again.
func (l *logs) take(st *stream, n int) {
	for n > 0 {
		m, err := unix.Read(st.fd, l.in[:n])
		if m <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
		n -= max(m, 0)
	}
}

func (l *logs) closeStream(st *stream) {
	if st.closed {
		return
	}
	st.closed = true
	l.mu.Lock()
	delete(l.streams, int32(st.fd))
	delete(l.streams, int32(st.tty))
	l.mu.Unlock()
	unix.Close(st.fd)
	if st.tty >= 0 {
		// Others have the terminal open, and closing alone would leave it here.
		_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, st.tty, nil)
		unix.Close(st.tty)
		unix.Close(st.sink)
	}
	st.file.release()
	l.lastOf(st)
}
