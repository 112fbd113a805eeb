package tunnel

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// serve answers the requests of a tunnel until it ends, or until ctx or the
// session of this host does.
func (c *Client) serve(ctx context.Context, session *yamux.Session, w *wire, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-changed:
		}
		_ = session.Close()
	})
	wg.Go(func() { watch(session, w, c.pace, true, c.cfg.Log) })
	srv := &http.Server{
		Handler:           http.HandlerFunc(c.answer),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(c.cfg.Log.Handler(), slog.LevelDebug),
	}
	_ = srv.Serve(&door{session: session, slots: make(chan struct{}, 2*maxStreams)}) // ends with the session, which says why in the log
	_ = srv.Close()
}

// answer lets Run wait for handlers. They may outlive their tunnel, and the
// next one does not wait for them.
func (c *Client) answer(w http.ResponseWriter, r *http.Request) {
	if !c.crew.enter() {
		panic(http.ErrAbortHandler)
	}
	defer c.crew.leave()
	c.cfg.Handler.ServeHTTP(w, r)
}

// door is where the streams of a session come in.
type door struct {
	session *yamux.Session
	slots   chan struct{} // one for each stream that is open
}

// Accept fails when the session has ended and not before.
func (d *door) Accept() (net.Conn, error) {
	for {
		s, err := d.session.AcceptStream()
		if err != nil {
			if d.session.IsClosed() {
				return nil, net.ErrClosed
			}
			continue // that stream could not be acknowledged in time
		}
		select {
		case d.slots <- struct{}{}:
			return &stream{Stream: s, shut: d.shut, gone: make(chan struct{})}, nil
		default: // the controller keeps to a lower bound
			_ = s.Close()
		}
	}
}

func (d *door) shut(s *yamux.Stream) {
	_ = s.Close()
	<-d.slots
}

// Close closes the session.
func (d *door) Close() error { return d.session.Close() }

// Addr is that of a stream.
func (d *door) Addr() net.Addr { return place{} }
