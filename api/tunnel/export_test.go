package tunnel

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds that tests run into.
const (
	MaxStreams = maxStreams
	Window     = window
	MaxPings   = maxPings
)

// Pause is how long to wait before an attempt.
func Pause(n int, random float64) time.Duration { return pause(n, random) }

// Hurry makes the two ends watch each other more closely.
func (h *Hub) Hurry(step, idle time.Duration) { h.pace = pace{step, idle} }

// Hurry makes the two ends watch each other more closely.
func (c *Client) Hurry(step, idle time.Duration) { c.pace = pace{step, idle} }

// Guard looks at bytes as the reader of a connection does.
func Guard() func(p []byte, now time.Time) error { return new(guard).pass }

// Streams is how many streams of a host's tunnel are open, or not forgotten yet.
func (h *Hub) Streams(host string) int {
	l := h.link(host)
	if l == nil {
		return 0
	}
	return l.session.NumStreams()
}

// Dial makes c call the controller by dial.
func (c *Client) Dial(dial func(context.Context, string, string) (net.Conn, error)) {
	c.http.DialContext = dial
}

// Ends makes the two ends of tunnels out of connections, without asking anybody.
func Ends(ctx context.Context, controller, node net.Conn, h http.Handler) (end func(), err error) {
	log := slog.New(slog.DiscardHandler)
	l, err := newLink("h", controller, log)
	if err != nil {
		return nil, err
	}
	w := newWire(node, node, time.Second)
	quick := nodeEnd
	quick.close = time.Second // yamux keeps sessions for so long that have ended before a stream has
	session, err := quick.session(w, log)
	if err != nil {
		l.close()
		return nil, err
	}
	c := &Client{cfg: ClientConfig{Handler: h, Log: log}, pace: normal()}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.serve(ctx, session, w, nil) })
	return func() {
		cancel()
		l.close()
		wg.Wait()
		c.crew.wait()
	}, nil
}
