package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/api/auth"
)

// peer is a connection from an address.
type peer struct {
	net.Conn
	from   string
	closed bool
}

func (p *peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from)) }

func (p *peer) Close() error { p.closed = true; return nil }

// Who opens too many connections and says nothing closes his own, and nobody's
// who has been let in.
func TestStrangers(t *testing.T) {
	s := strangers{most: 4}
	open := func(from string) *peer {
		p := &peer{from: from}
		s.watch(p, http.StateNew)
		return p
	}
	known := open("192.0.2.1:1")
	r := (&http.Request{}).WithContext(s.note(context.Background(), known))
	Known(r)
	Known(r)
	var crowd []*peer
	for _, from := range []string{"192.0.2.1:2", "192.0.2.1:3", "[::ffff:192.0.2.1]:4"} {
		crowd = append(crowd, open(from))
	}
	other, six := open("[2001:db8::1]:1"), open("[2001:db8::2]:1")
	if crowd[0].closed || crowd[1].closed || !crowd[2].closed || known.closed || other.closed || six.closed {
		t.Errorf("known %v, crowd %v %v %v, others %v %v", known.closed, crowd[0].closed, crowd[1].closed, crowd[2].closed, other.closed, six.closed)
	}
	s.watch(crowd[2], http.StateClosed) // as the server hears of it
	s.watch(other, http.StateHijacked)
	if late := open("192.0.2.1:5"); late.closed {
		t.Error("there was room")
	}
	if late := open("192.0.2.1:6"); !late.closed {
		t.Error("there was no room")
	}
	for _, p := range append(crowd, six) {
		s.watch(p, http.StateClosed)
	}
	if s.n != 1 || len(s.of) != 1 {
		t.Errorf("%d are left, of %d networks", s.n, len(s.of))
	}
}

// pipes is a listener in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Who has his answer and never sends the body that he has announced is not waited
// for, and who sends it goes on.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, err := auth.NewGate(auth.Config{Tokens: &auth.Tokens{}})
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(t, Config{Gate: gate})
		doors := make(pipes)
		srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Hour}
		ended := make(chan error)
		go func() { ended <- srv.Serve(doors) }()
		mine, theirs := net.Pipe()
		doors <- theirs
		answers := bufio.NewReader(mine)
		ask := func(text string) {
			t.Helper()
			go func() { _, _ = io.WriteString(mine, text) }()
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s, %v", answer.Status, err)
			}
		}
		const head = "POST /change HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
		begin := time.Now()
		ask(head + "ninebytes")
		time.Sleep(10 * drainTime)
		ask(head)
		if _, err := answers.ReadByte(); err != io.EOF || time.Since(begin) != 11*drainTime {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		close(doors)
		if err := <-ended; err == nil {
			t.Error("it serves")
		}
		mine.Close()
	})
}
