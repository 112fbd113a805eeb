package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/buoy-edge/buoy/container"
)

// The channels. signalChannel is ours.
const (
	stdinChannel  = 0
	stdoutChannel = 1
	stderrChannel = 2
	statusChannel = 3
	resizeChannel = 4
	signalChannel = 5
	closeChannel  = 255
)

const (
	// pieceSize is how much of an output goes into one message.
	pieceSize = 32 << 10
	// maxOrder is how long a resize or a signal may be.
	maxOrder = 4 << 10
	// patience is how long a client may take to read the end when the server stops.
	patience = 2 * time.Second
)

// pace is how closely clients are watched.
type pace struct {
	ping time.Duration // between pings
	dead time.Duration // silence after which a client is taken for dead
}

func normal() pace { return pace{ping: 5 * time.Second, dead: 30 * time.Second} }

// talk is one WebSocket. A client that reads slowly slows the process, however
// long that takes. It lives as long as it reads or something is heard of it:
// answers to our pings or, since one that does not read does not answer, pongs
// that it sends unasked.
type talk struct {
	p    program
	conn *websocket.Conn
	pace pace

	heard   atomic.Int64 // when, as of time.Now().UnixNano
	writing atomic.Int32 // messages on their way
	ending  atomic.Bool  // nothing can be answered any more
	feeding atomic.Bool  // the process takes its time to read stdin, and we do not hear meanwhile
}

func newTalk(p program, pace pace) *talk {
	k := &talk{p: p, pace: pace}
	k.hear()
	return k
}

func (k *talk) hear() { k.heard.Store(time.Now().UnixNano()) }

// pinged says whether to answer: while a message is on its way, an answer would
// wait for a client that does not read, and give it up soon.
func (k *talk) pinged(context.Context, []byte) bool {
	k.hear()
	return k.writing.Load() == 0 && !k.ending.Load()
}

func (k *talk) ponged(context.Context, []byte) { k.hear() }

// run lets the client and the process talk until the process has ended, the
// client has gone, or stop is done, and tells the client how it ended. explain
// makes a sentence of an error.
func (k *talk) run(base, stop context.Context, explain func(error) string) {
	here, gone := context.WithCancel(base)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer gone()
	wg.Go(func() { // whoever waits for the program or the client need not any more
		<-here.Done()
		k.p.Close()
		_ = k.conn.CloseNow()
	})
	wg.Go(func() { k.listen(here, gone) })
	watched, unwatch := context.WithCancel(here)
	defer unwatch()
	wg.Go(func() { k.watch(watched, gone) })

	var out sync.WaitGroup
	stdout, stderr := k.p.Output()
	out.Go(func() { k.show(here, gone, stdoutChannel, stdout) })
	out.Go(func() { k.show(here, gone, stderrChannel, stderr) })
	waiting, cancel := context.WithCancel(here)
	defer cancel()
	defer context.AfterFunc(stop, func() {
		cancel()
		k.p.Close()
		time.AfterFunc(patience, gone)
	})()
	out.Wait()
	exit, err := k.p.Wait(waiting)
	k.p.Close()
	last, code, reason := endOf(exit), websocket.StatusNormalClosure, ""
	switch {
	case here.Err() != nil:
		return
	case err != nil && stop.Err() != nil:
		last, code, reason = failure("buoyd is stopping"), websocket.StatusGoingAway, "buoyd is stopping"
	case err != nil:
		last = failure(explain(err))
	}
	text, err := json.Marshal(last)
	if err == nil {
		err = k.send(here, append([]byte{statusChannel}, text...))
	}
	if err == nil {
		// Who reads slowly has all of it still to come, and Close is impatient.
		err = k.conn.Ping(here)
	}
	unwatch()
	if err == nil {
		k.ending.Store(true)
		_ = k.conn.Close(code, reason)
	}
}

func (k *talk) send(here context.Context, message []byte) error {
	k.writing.Add(1)
	defer k.writing.Add(-1)
	err := k.conn.Write(here, websocket.MessageBinary, message)
	if err == nil {
		k.hear()
	}
	return err
}

// show sends an output.
func (k *talk) show(here context.Context, gone func(), channel byte, r io.Reader) {
	buf := make([]byte, 1+pieceSize)
	buf[0] = channel
	for {
		n, err := r.Read(buf[1:])
		if n > 0 && k.send(here, buf[:1+n]) != nil {
			gone()
			return
		}
		if err != nil {
			return // its end, or ours
		}
	}
}

// listen takes what the client sends.
func (k *talk) listen(here context.Context, gone func()) {
	defer gone()
	k.conn.SetReadLimit(-1) // messages are not kept
	buf := make([]byte, pieceSize)
	for {
		_, message, err := k.conn.Reader(here)
		if err != nil {
			return
		}
		k.hear()
		n, err := io.ReadFull(message, buf[:1])
		switch {
		case n == 0:
		case buf[0] == stdinChannel:
			err = k.feed(message, buf)
		default:
			err = k.obey(here, buf[0], message)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return
		}
		if _, err := io.Copy(io.Discard, message); err != nil {
			return
		}
	}
}

// feed hands stdin on. A process that reads no more is no reason to end.
func (k *talk) feed(message io.Reader, buf []byte) error {
	for {
		n, err := message.Read(buf)
		if n > 0 {
			k.feeding.Store(true)
			_, _ = k.p.Write(buf[:n])
			k.feeding.Store(false)
			k.hear()
		}
		if err != nil {
			return err
		}
	}
}

// obey does what is asked on the other channels. What is not understood, or
// cannot be done any more, is let be.
func (k *talk) obey(here context.Context, channel byte, message io.Reader) error {
	order, err := io.ReadAll(io.LimitReader(message, maxOrder))
	if err != nil {
		return err
	}
	switch channel {
	case resizeChannel:
		var size struct{ Width, Height uint16 }
		if json.Unmarshal(order, &size) == nil {
			_ = k.p.Resize(size.Width, size.Height)
		}
	case signalChannel:
		var name struct{ Signal string }
		_ = json.Unmarshal(order, &name) // without a name there is none
		if sig, err := container.ParseSignal(name.Signal); err == nil {
			_ = k.p.Signal(here, sig)
		}
	case closeChannel:
		if len(order) == 1 && order[0] == stdinChannel {
			k.p.CloseStdin()
		}
	}
	return nil
}

// watch finds out that the client is no longer there.
func (k *talk) watch(watched context.Context, gone func()) {
	tick := time.NewTicker(k.pace.ping)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-watched.Done():
			return
		}
		silent := time.Since(time.Unix(0, k.heard.Load()))
		if silent > k.pace.dead && !k.feeding.Load() {
			gone()
			return
		}
		// A message on its way finds out, too, and a ping would wait for it. Who
		// says something need not be asked: pings pile up with one that does not read.
		if silent < k.pace.ping || k.writing.Load() > 0 {
			continue
		}
		answer, cancel := context.WithTimeout(watched, k.pace.ping)
		err := k.conn.Ping(answer)
		late := answer.Err() != nil
		cancel()
		if err != nil && !late {
			gone()
			return
		}
	}
}
