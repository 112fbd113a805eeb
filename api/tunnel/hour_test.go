package tunnel_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/api/tunnel"
)

// hour is the environment variable that makes a copy of this test the one that
// runs TestHour: yamux hands timers from one session to the next, which those
// of a bubble do not survive.
const hour = "BUOY_TEST_TUNNEL_HOUR"

// pipes is a listener without a network.
type pipes struct {
	calls chan net.Conn
	shut  chan struct{}

	bytes  atomic.Int64 // that went to and fro
	writes atomic.Int64
	dead   atomic.Bool // nothing arrives any more
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.shut:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.shut); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.calls <- counted{far, p}
	return counted{near, p}, nil
}

// counted is a connection that is counted, and may lose what is written to it.
type counted struct {
	net.Conn
	p *pipes
}

func (c counted) Write(b []byte) (int, error) {
	if c.p.dead.Load() {
		return len(b), nil
	}
	c.p.writes.Add(1)
	c.p.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// TestHour is what an hour with a tunnel costs, and how long it takes to
// notice that the other end is gone without a word.
func TestHour(t *testing.T) {
	if os.Getenv(hour) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHour$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), hour+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s", out)
		return
	}
	synctest.Test(t, testHour)
}

func testHour(t *testing.T) {
	p := &pipes{calls: make(chan net.Conn), shut: make(chan struct{})}
	s := &site{hub: tunnel.NewHub(tunnel.HubConfig{})}
	srv := &http.Server{Handler: s.handler()}
	go func() { _ = srv.Serve(p) }()
	ended := make(chan time.Time, 1)
	c := newClient(t, tunnel.ClientConfig{Controller: "http://controller", Session: known("h1"), Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("line\n"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			ended <- time.Now()
		})})
	c.Dial(p.dial)
	stop := run(t, c)
	defer func() {
		stop()
		s.hub.Close()
		_ = srv.Close()
	}()
	synctest.Wait()
	first := time.Now()

	bytes, writes := p.bytes.Load(), p.writes.Load()
	time.Sleep(time.Hour)
	bytes, writes = p.bytes.Load()-bytes, p.writes.Load()-writes
	// Each write is a record of TLS and a packet; what is written last is acknowledged by one of its own.
	wire := bytes + writes*(22+52) + writes/2*52
	t.Logf("an idle hour: %d bytes in %d writes, with TLS and TCP %d", bytes, writes, wire)
	if bytes == 0 || wire > 6<<10 {
		t.Errorf("an idle hour costs %d bytes on the wire", wire)
	}

	follow := func() {
		resp, err := s.client("h1").Get("http://node/")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { resp.Body.Close() })
		if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			t.Error(err)
		}
	}
	follow()
	bytes = p.bytes.Load()
	time.Sleep(time.Hour)
	synctest.Wait()
	t.Logf("an hour of a stream that says nothing: %d bytes", p.bytes.Load()-bytes)
	if len(ended) > 0 || !s.hub.Linked("h1") {
		t.Fatalf("the tunnel was closed while it was well, after %v", time.Since(first))
	}

	notice := func(what string, limit time.Duration) {
		p.dead.Store(true)
		began := time.Now()
		for s.hub.Linked("h1") && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		p.dead.Store(false)
		for end := time.Now().Add(time.Hour); !s.hub.Linked("h1") && time.Now().Before(end); {
			time.Sleep(time.Second)
		}
		t.Logf("%s: noticed by the controller after %v, open again after %v", what, took, time.Since(began))
		if took > limit+time.Second || !s.hub.Linked("h1") {
			t.Errorf("%s: noticed after %v, want %v", what, took, limit)
		}
	}
	notice("silence while a stream is open", time.Minute)
	if at := <-ended; time.Since(at) > 2*time.Minute {
		t.Errorf("the handler on the node noticed %v ago", time.Since(at))
	}
	for i := range 5 {
		time.Sleep(7*time.Minute + time.Duration(i*35)*time.Second)
		notice("silence of an idle tunnel", 3*time.Minute+30*time.Second)
	}
}
