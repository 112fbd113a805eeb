package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// stream makes of yamux's what net/http expects of a connection.
type stream struct {
	*yamux.Stream
	crew *crew               // for writes that may be left alone; nil at the node's end
	shut func(*yamux.Stream) // is called once, to close it
	once sync.Once
	gone chan struct{} // closed by Close
}

// errGone is what a stream ends with whose tunnel has ended, unlike one that
// the other end has closed.
var errGone = errors.New("the tunnel was closed")

func (s *stream) closed() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// Read ends with an error other than EOF when the tunnel was lost.
func (s *stream) Read(p []byte) (int, error) {
	if s.closed() {
		return 0, net.ErrClosed
	}
	n, err := s.Stream.Read(p)
	switch {
	case err == nil:
	case s.closed():
		err = net.ErrClosed
	case errors.Is(err, io.EOF) && s.Session().IsClosed():
		err = errGone
	case errors.Is(err, io.EOF) && s.crew == nil:
		// The controller wants no more. yamux would let a writer fill the window
		// and wait.
		_ = s.Stream.Close()
	}
	return n, err
}

// Write takes turns with other streams.
func (s *stream) Write(p []byte) (n int, err error) {
	for {
		var m int
		if m, err = s.write(p[:min(len(p), frame)]); err != nil {
			return n + m, err
		}
		n, p = n+m, p[m:]
		if len(p) == 0 {
			return n, nil
		}
	}
}

// write ends with Close, if this is the controller's end: yamux writes on while
// a tunnel is stalled, and net/http waits for that when a request is cancelled.
func (s *stream) write(p []byte) (int, error) {
	if s.crew == nil {
		return s.Stream.Write(p)
	}
	done := make(chan error, 1)
	p = bytes.Clone(p) // the caller's may be used again when Close ends this
	if !s.crew.run(func() {
		_, err := s.Stream.Write(p)
		done <- err
	}) {
		return 0, errGone
	}
	select {
	case err := <-done:
		if err != nil {
			return 0, err
		}
		return len(p), nil
	case <-s.gone:
		return 0, net.ErrClosed
	}
}

// Close also ends a Read, which yamux would have wait for the other end.
func (s *stream) Close() error {
	s.once.Do(func() {
		close(s.gone)
		_ = s.SetReadDeadline(time.Unix(1, 0))
		s.shut(s.Stream)
	})
	return nil
}

// place is the address of both ends of a stream: it has none of its own, and
// is none of this machine's doors.
type place struct{}

func (place) Network() string { return "tunnel" }
func (place) String() string  { return "tunnel" }

// LocalAddr is no address of this machine.
func (s *stream) LocalAddr() net.Addr { return place{} }

// RemoteAddr is likewise none.
func (s *stream) RemoteAddr() net.Addr { return place{} }
