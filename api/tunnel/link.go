package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/hashicorp/yamux"

	"github.com/buoy-edge/buoy/internal/errs"
)

// link is the controller's end of one tunnel.
type link struct {
	host    string
	wire    *wire
	session *yamux.Session
	http    *http.Transport
	slots   chan struct{} // one for each stream that is open
	crew    crew          // what streams leave to themselves
}

// newLink makes a tunnel of a connection, which it owns.
func newLink(host string, conn net.Conn, log *slog.Logger) (*link, error) {
	l := &link{host: host, wire: newWire(conn, conn, controllerEnd.write), slots: make(chan struct{}, maxStreams)}
	var err error
	if l.session, err = controllerEnd.session(l.wire, log); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := l.session.GoAway(); err != nil { // it is not for the node to open streams
		l.close()
		return nil, err
	}
	// A stream for each request: it costs no round trip, and none is found dead
	// or stays behind.
	l.http = &http.Transport{
		DialContext: l.dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	return l, nil
}

// close ends the tunnel and all that goes on in it.
func (l *link) close() {
	_ = l.session.Close()
	l.crew.wait()
}

// dial opens a stream. It may take as long as a write, whatever ctx says:
// net/http waits for ctx on its own.
func (l *link) dial(_ context.Context, _, _ string) (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	default:
		return nil, errs.E(errs.Unavailable, "%d requests are under way", maxStreams)
	}
	if l.session.NumStreams() >= 2*maxStreams {
		<-l.slots
		return nil, errs.E(errs.Unavailable, "the host does not close its ends of streams")
	}
	s, err := l.session.OpenStream()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &stream{Stream: s, crew: &l.crew, shut: l.shut, gone: make(chan struct{})}, nil
}

// shut closes a stream while others go on: net/http holds a lock meanwhile, and
// a stalled tunnel takes its time.
func (l *link) shut(s *yamux.Stream) {
	<-l.slots
	if !l.crew.run(func() { _ = s.Close() }) {
		_ = s.Close() // the session is closed, and this is quick
	}
}

// transport is the way to a host, by the tunnel that is there when it is used.
type transport struct {
	hub  *Hub
	host string
}

// RoundTrip asks the host.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	l := t.hub.link(t.host)
	if l == nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, errs.E(errs.Unavailable, "host %q has no tunnel open", t.host)
	}
	resp, err := l.http.RoundTrip(r)
	if err != nil && r.Context().Err() == nil {
		err = errs.E(errs.Unavailable, "reach host %q through its tunnel: %w", t.host, err)
	}
	return resp, err
}
