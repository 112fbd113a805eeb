// Package tunnel carries the API of a node to its controller over a connection
// that the node has opened, so that hosts behind NAT can be reached.
//
// The node asks the controller for GET /host/{id}/tunnel with an Upgrade. What
// follows on the connection is yamux, and each of its streams is one HTTP/1.1
// request of the controller, which the node answers. A side that closes a
// stream is done with it in both directions: there is no half-closed stream.
//
// Either side finds out that the other one is gone without a word: after 3.5
// minutes while nothing is asked, after one minute while a request is under
// way. An idle tunnel costs 22 pings an hour, 0.5 KiB of them or, with the
// headers of TLS, TCP and IP, 5 KiB.
package tunnel

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Bounds of a tunnel.
const (
	// maxStreams is how many requests of a controller are under way at one host.
	maxStreams = 1024
	// backlog is how many of them the node has not taken up yet. More wait.
	backlog = 256
	// window is what a side keeps of a stream that its reader has not taken yet.
	window = 256 << 10
	// frame is the most of a stream that others have to wait for.
	frame = 16 << 10
)

// pace is how closely the sides watch each other.
type pace struct {
	step time.Duration // between two looks, and between pings while streams are open
	idle time.Duration // between pings while none is
}

// 150s: common NATs forget connections after 4 minutes or more of silence.
func normal() pace { return pace{step: 15 * time.Second, idle: 150 * time.Second} }

// patience is how many steps a ping may remain without an answer: two more
// pings follow within it.
const patience = 3

// watch closes session when nothing is heard of the other side, and returns
// when session is closed. Without pings, it leaves it to the other side to
// break the silence of a tunnel without streams.
func watch(session *yamux.Session, w *wire, p pace, pings bool, log *slog.Logger) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(p.step)
	defer tick.Stop()
	calm := time.Now() // when no stream was open last
	for {
		select {
		case <-session.CloseChan():
			return
		case <-tick.C:
		}
		heard, ask, limit := w.heard(), p.idle, p.idle+patience*p.step
		if session.NumStreams() == 0 {
			calm = time.Now()
		} else {
			ask, limit = p.step, patience*p.step
			if calm.After(heard) {
				heard = calm
			}
		}
		silence := time.Since(heard)
		if silence > limit {
			log.Warn("the other end of the tunnel is silent", "for", silence.Round(time.Millisecond))
			_ = session.Close()
			return
		}
		if silence >= ask && (pings || session.NumStreams() > 0) {
			wg.Go(func() { _, _ = session.Ping() }) // an answer is heard
		}
	}
}

// end is what differs between the two ends of a tunnel.
type end struct {
	make  func(*wire, *yamux.Config) (*yamux.Session, error)
	write time.Duration // a write that takes longer fails
	close time.Duration // until a closed stream is forgotten that the other end has not closed
}

// A controller closes a stream when it wants no more of it, a node when it has
// said all: that may still be read, slowly.
var (
	controllerEnd = end{
		make:  func(w *wire, c *yamux.Config) (*yamux.Session, error) { return yamux.Client(w, c) },
		write: 15 * time.Second, close: 30 * time.Second,
	}
	nodeEnd = end{
		make:  func(w *wire, c *yamux.Config) (*yamux.Session, error) { return yamux.Server(w, c) },
		write: time.Minute, close: 5 * time.Minute,
	}
)

// session makes the tunnel of a connection. It owns w.
func (e end) session(w *wire, log *slog.Logger) (*yamux.Session, error) {
	return e.make(w, &yamux.Config{
		AcceptBacklog: backlog, MaxStreamWindowSize: window,
		KeepAliveInterval:      time.Hour, // which is not enabled: see watch
		ConnectionWriteTimeout: e.write, StreamCloseTimeout: e.close, StreamOpenTimeout: 75 * time.Second,
		Logger: muxLog{log},
	})
}

// muxLog is where yamux says what it also returns as errors.
type muxLog struct{ log *slog.Logger }

func (l muxLog) Print(v ...any)                 { l.say(fmt.Sprint(v...)) }
func (l muxLog) Println(v ...any)               { l.say(fmt.Sprint(v...)) }
func (l muxLog) Printf(format string, v ...any) { l.say(fmt.Sprintf(format, v...)) }
func (l muxLog) say(text string)                { l.log.Debug("tunnel", "message", strings.TrimSpace(text)) }
