package apps

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// messageTime is how long a message may take to go out. Who reads no more is
	// cut off then.
	messageTime = 10 * time.Second
	// pingEvery finds out about clients that are no longer there.
	pingEvery = 30 * time.Second
)

// errSlow is the end of a client that does not read.
var errSlow = errors.New("messages were read too slowly")

// stream makes the request a WebSocket, to which produce sends messages of
// JSON until it returns. Its ctx is done when the client has gone or the server
// stops; so it need not look at what send returns but to end early. Several
// goroutines may send.
func (d *Dialect) stream(w http.ResponseWriter, r *http.Request, produce func(ctx context.Context, send func(v any) error) error) error {
	c, err := d.accept(w, r)
	if errors.Is(err, errAnswered) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { <-d.sockets }()
	defer func() { _ = c.CloseNow() }() // after Close it has nothing to do

	// What stops the server must not cut the connection before it is told why.
	base := context.WithoutCancel(r.Context())
	stop, cancel := api.StreamContext(r)
	defer cancel()
	here := c.CloseRead(base) // answers pings; done when the client has gone
	ctx, end := context.WithCancel(here)
	defer end()
	defer context.AfterFunc(stop, end)()

	var wg sync.WaitGroup
	wg.Go(func() {
		defer end()
		keepAlive(ctx, here, c)
	})
	send := func(v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		write, cancel := context.WithTimeoutCause(here, d.patience, errSlow)
		defer cancel()
		if err := c.Write(write, websocket.MessageText, data); err != nil {
			return errors.Join(err, context.Cause(write))
		}
		return nil
	}
	err = produce(ctx, send)
	end()
	wg.Wait()
	d.hangUp(here, r, c, err)
	return nil
}

// errAnswered says that the client has been told already.
var errAnswered = errors.New("answered")

// accept opens the WebSocket.
func (d *Dialect) accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	if !api.Upgrades(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return nil, as(needsUpgrade, errs.E(errs.Invalid, "this is a stream; ask for it with a WebSocket"))
	}
	if !api.SameOrigin(r) {
		return nil, as(forbidden, errs.E(errs.Invalid, "a web page of another origin may not read this"))
	}
	select {
	case d.sockets <- struct{}{}:
	default:
		return nil, errs.E(errs.Unavailable, "%d WebSockets are open, and no more are allowed", maxSockets)
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		<-d.sockets
		return nil, errAnswered
	}
	return c, nil
}

// keepAlive cuts a client that does not answer pings.
func keepAlive(ctx, here context.Context, c *websocket.Conn) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		answer, cancel := context.WithTimeout(here, messageTime)
		err := c.Ping(answer)
		cancel()
		if err != nil {
			_ = c.CloseNow()
			return
		}
	}
}

// hangUp says why there is no more.
func (d *Dialect) hangUp(here context.Context, r *http.Request, c *websocket.Conn, err error) {
	if here.Err() != nil { // it hung up itself
		return
	}
	code, reason := websocket.StatusNormalClosure, ""
	switch kind := errs.KindOf(err); {
	case err == nil:
	case errors.Is(err, context.Canceled):
		code, reason = websocket.StatusGoingAway, "buoyd is stopping"
	case kind == errs.NotFound:
		reason = "the application has been removed"
	case kind == errs.Conflict:
		code, reason = websocket.StatusTryAgainLater, err.Error()
	default:
		_, reason = d.explain(r, err)
		code = websocket.StatusInternalError
	}
	if len(reason) > 120 { // 123 fit
		reason = strings.ToValidUTF8(reason[:117], "") + "…"
	}
	_ = c.Close(code, reason)
}
