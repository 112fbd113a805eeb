//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// tap is the writing end of a pipe that gets what a stream says, as it comes.
// The loop in logs.go owns it.
type tap struct {
	st       *stream
	fd       int
	lossless bool
	rest     []byte          // of a lossless one: what had no room. The stream is not read until it has
	last     bool            // with the rest it ends
	ended    func(slow bool) // called once, by the loop; slow: it was full
}

// attach makes taps get what their streams say from now on.
func (l *logs) attach(taps ...*tap) {
	l.ask(drainLimit, func() {
		for _, t := range taps {
			if err := l.open(t); err != nil {
				l.endTap(t, false)
			}
		}
	})
}

func (l *logs) open(t *tap) error {
	l.taps[int32(t.fd)] = t
	t.st.taps = append(t.st.taps, t)
	if t.st.closed {
		return errors.New("the stream has ended")
	}
	ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLET, Fd: int32(t.fd)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, t.fd, &ev); err != nil {
		return fmt.Errorf("watch the pipe of a client: %w", err)
	}
	return nil
}

// detach ends taps whose client has gone.
func (l *logs) detach(taps ...*tap) {
	l.ask(drainLimit, func() {
		for _, t := range taps {
			l.endTap(t, false)
		}
	})
}

// feed gives the taps of st what is new.
func (l *logs) feed(st *stream, data []byte) {
	for _, t := range slices.Clone(st.taps) {
		l.give(t, data)
	}
}

func (l *logs) give(t *tap, data []byte) {
	if len(t.rest) == 0 {
		n, err := writeSome(t.fd, data)
		if err != nil {
			l.endTap(t, false)
			return
		}
		data = data[n:]
	}
	switch {
	case len(data) == 0:
	case t.lossless:
		t.rest = append(t.rest, data...)
	default:
		l.endTap(t, true)
	}
}

// relieve gives t, unless nobody reads it any more, what had no room. Its stream
// may be read again then.
func (l *logs) relieve(t *tap, gone bool) {
	n, err := writeSome(t.fd, t.rest)
	if t.rest = t.rest[n:]; len(t.rest) == 0 {
		t.rest = nil
	}
	switch {
	case gone || err != nil || t.last && t.rest == nil:
		l.endTap(t, false)
	case t.rest == nil:
		l.ready[t.st] = true
	}
}

// writeSome writes what there is room for.
func writeSome(fd int, data []byte) (int, error) {
	for {
		n, err := unix.Write(fd, data)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}

// held is true while a client has to be waited for.
func (st *stream) held() bool {
	return slices.ContainsFunc(st.taps, func(t *tap) bool { return t.rest != nil })
}

// lastOf lets the taps of a stream end that has no more to say.
func (l *logs) lastOf(st *stream) {
	for _, t := range slices.Clone(st.taps) {
		if t.last = true; t.rest == nil {
			l.endTap(t, false)
		}
	}
}

// endTap may be called again.
func (l *logs) endTap(t *tap, slow bool) {
	if l.taps[int32(t.fd)] != t {
		return
	}
	delete(l.taps, int32(t.fd))
	t.st.taps = slices.DeleteFunc(t.st.taps, func(o *tap) bool { return o == t })
	// The client's daemon may have it open, too, and closing alone would leave it here.
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, t.fd, nil)
	unix.Close(t.fd)
	l.ready[t.st] = true // it may have been held
	t.ended(slow)
}
