package tunnel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/api/tunnel"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// head is that of a frame of yamux.
func head(typ byte, flags uint16, stream, length uint32) []byte {
	b := []byte{0, typ}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

// Pings are counted wherever reads are split, and not in what streams carry.
func TestGuard(t *testing.T) {
	ping, data := head(2, 1, 0, 7), append(head(0, 0, 1, 5000), slices.Repeat([]byte{0, 2}, 2500)...)
	many := func(n int, parts ...[]byte) []byte { return slices.Repeat(slices.Concat(parts...), n) }
	now := time.Now()
	for name, c := range map[string]struct {
		stream []byte
		bad    bool
	}{
		"nothing":          {nil, false},
		"pings":            {many(tunnel.MaxPings, ping), false},
		"too many":         {many(tunnel.MaxPings+1, ping), true},
		"data between":     {many(tunnel.MaxPings, ping, data, head(1, 0, 1, 1<<31)), false},
		"too many between": {many(tunnel.MaxPings+1, data, ping), true},
		"empty data":       {many(1000, head(0, 0, 1, 0)), false},
		"window updates":   {many(1000, head(1, 1, 1, 1000)), false},
	} {
		for _, size := range []int{1, 7, 12, 13, 4096, 1 << 20} {
			pass, err := tunnel.Guard(), error(nil)
			for part := range slices.Chunk(c.stream, size) {
				if err = pass(part, now); err != nil {
					break
				}
			}
			if (err != nil) != c.bad || c.bad && !errors.Is(err, errs.Invalid) {
				t.Errorf("%s in pieces of %d: %v", name, size, err)
			}
		}
	}
	pass := tunnel.Guard()
	for range 100 * tunnel.MaxPings { // slowly is fine
		now = now.Add(2 * time.Second)
		if err := pass(ping, now); err != nil {
			t.Fatal(err)
		}
	}
}

// dialTunnel is a host that speaks yamux by hand.
func dialTunnel(t *testing.T, s *site) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	req, _ := http.NewRequest(http.MethodGet, s.url+"/host/evil/tunnel", nil)
	req.Header = http.Header{"Authorization": {"Bearer " + token}, "Connection": {"Upgrade"}, "Upgrade": {hostapi.Tunnel}}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	s.await(t, "evil", true)
	return conn
}

// A host cannot make the controller work by itself: pings end its tunnel, and so does nonsense. Streams are refused.
func TestEvilHost(t *testing.T) {
	testleak.Check(t)
	for name, frames := range map[string][]byte{
		"pings":    slices.Repeat(head(2, 1, 0, 1), 10_000),
		"version":  {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"type":     head(9, 0, 0, 0),
		"go away":  head(3, 0, 0, 1),
		"goes":     nil,
		"HTTP":     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"streams":  append(slices.Repeat(slices.Concat(head(1, 1, 2, 0), head(0, 0, 2, 5), []byte("hello")), 5000), head(9, 0, 0, 0)...),
		"no peer":  append(slices.Repeat(head(1, 4, 77, 0), 1000), head(9, 0, 0, 0)...),
		"too long": append(head(0, 0, 2, 1<<31), 1, 2, 3),
	} {
		t.Run(name, func(t *testing.T) {
			testleak.Check(t)
			s := newSite(t)
			conn := dialTunnel(t, s)
			if frames != nil {
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() { _, _ = io.Copy(io.Discard, conn) })
				_, _ = conn.Write(frames)
			}
			if frames == nil || name == "too long" {
				conn.Close()
			}
			s.await(t, "evil", false)
		})
	}
}

// TCP's own keep-alive, which would cost more than all of our pings, is off.
func TestNoKeepAlive(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	c := newClient(t, tunnel.ClientConfig{Controller: s.url, Session: known("h1"), Handler: http.NotFoundHandler()})
	near := make(chan net.Conn, 1)
	c.Dial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer // which turns it on
		conn, err := d.DialContext(ctx, network, addr)
		near <- conn
		return conn, err
	})
	run(t, c)
	s.await(t, "h1", true)
	raw, err := (<-near).(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		on, err := 1, error(nil)
		if err2 := raw.Control(func(fd uintptr) { on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) }); err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return on == 0
	})
}

// FuzzPeer lets each end read bytes of a stranger. Both end, and nothing panics.
func FuzzPeer(f *testing.F) {
	request := []byte("GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
	f.Add([]byte{})
	f.Add(head(2, 1, 0, 1))
	f.Add(slices.Concat(head(1, 1, 1, 0), head(0, 0, 1, uint32(len(request))), request, head(1, 4, 1, 0)))
	f.Add(slices.Concat(head(0, 1, 1, uint32(len(request))), request, head(1, 8, 1, 0)))
	f.Add(slices.Concat(head(1, 1, 1, 1<<31), head(1, 0, 1, 1<<31), head(0, 2, 1, 3), []byte("abc")))
	f.Add(head(3, 0, 0, 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		var wg sync.WaitGroup
		defer wg.Wait()
		ours := [2]net.Conn{}
		theirs := [2]net.Conn{}
		for i := range ours {
			ours[i], theirs[i] = net.Pipe()
			wg.Go(func() { _, _ = io.Copy(io.Discard, ours[i]) })
		}
		end, err := tunnel.Ends(t.Context(), theirs[0], theirs[1], http.HandlerFunc(echo))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range ours {
			_, _ = c.Write(data)
		}
		for _, c := range ours {
			c.Close()
		}
		end()
	})
}
