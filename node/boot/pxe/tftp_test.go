package pxe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestReadRequest(t *testing.T) {
	rrq := func(words ...string) []byte { return []byte("\x00\x01" + strings.Join(words, "\x00") + "\x00") }
	for _, c := range []struct {
		name string
		b    []byte
		want request
		bad  bool
	}{
		{"plain", rrq("snponly.efi", "octet"), request{name: "snponly.efi"}, false},
		{"upper case", rrq("snponly.efi", "OCTET", "BLKSIZE", "1468", "TSize", "0"), request{"snponly.efi", 1468, true}, false},
		{"padded", append(rrq("a", "octet"), 0, 0), request{name: "a"}, false},
		{"block too small", rrq("a", "octet", "blksize", "7"), request{name: "a"}, false},
		{"block too large", rrq("a", "octet", "blksize", "65465"), request{name: "a"}, false},
		{"block beyond numbers", rrq("a", "octet", "blksize", "99999999999999999999"), request{name: "a"}, false},
		{"block below zero", rrq("a", "octet", "blksize", "-1", "tsize", "0"), request{name: "a", size: true}, false},
		{"options that we do not know", rrq("a", "octet", "windowsize", "64", "timeout", "1", "blksize", "1024"), request{name: "a", block: 1024}, false},
		{"half an option", rrq("a", "octet", "tsize"), request{name: "a"}, false},

		{"nothing", nil, request{}, true},
		{"a byte", []byte{0}, request{}, true},
		{"no name", rrq("", "octet"), request{}, true},
		{"no mode", rrq("a"), request{}, true},
		{"text", rrq("a", "netascii"), request{}, true},
		{"mail", rrq("a", "mail"), request{}, true},
		{"not ended", []byte("\x00\x01a\x00octet"), request{}, true},
		{"a write", []byte("\x00\x02a\x00octet\x00"), request{}, true},
		{"data", []byte("\x00\x03\x00\x01abc"), request{}, true},
	} {
		got, err := readRequest(c.b)
		if c.bad != (err != nil) || !c.bad && got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("\x00\x01snponly.efi\x00octet\x00blksize\x001468\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRequest(b)
		if err != nil {
			return
		}
		if block, _ := r.accept(1, 1500); r.name == "" || block < 8 || block > 1468 {
			t.Errorf("%+v in blocks of %d", r, block)
		}
	})
}

func TestAccept(t *testing.T) {
	for _, c := range []struct {
		r       request
		mtu     int
		block   int
		options string
	}{
		{request{}, 1500, 512, ""},
		{request{block: 1468}, 1500, 1468, "blksize\x001468\x00"},
		{request{block: 65464, size: true}, 1500, 1468, "blksize\x001468\x00tsize\x0074213\x00"}, // it must not be in fragments
		{request{block: 8192}, 9000, 8192, "blksize\x008192\x00"},
		{request{block: 8}, 1500, 8, "blksize\x008\x00"},
		{request{block: 1024}, 576, 544, "blksize\x00544\x00"},
		{request{block: 1024}, 68, 512, "blksize\x00512\x00"},
	} {
		block, options := c.r.accept(74213, c.mtu)
		if block != c.block || string(options) != c.options {
			t.Errorf("%+v with MTU %d: blocks of %d, says %q", c.r, c.mtu, block, options)
		}
	}
}

// peer is a client's end of a transfer.
type peer struct {
	t *testing.T
	*net.UDPConn
}

// start gives a file to a client.
func start(t *testing.T, content []byte, block int, options string) (peer, <-chan error) {
	t.Helper()
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	theirs, ours := listen(), listen()
	x := &transfer{conn: ours, to: theirs.LocalAddr().(*net.UDPAddr).AddrPort(), wait: 10 * time.Millisecond}
	done := make(chan error, 1)
	go func() {
		var o []byte
		if options != "" {
			o = []byte(options)
		}
		done <- x.run(bytes.NewReader(content), block, o)
	}()
	return peer{t, theirs}, done
}

// next is the packet that comes, and where to answer it.
func (p peer) next() ([]byte, netip.AddrPort) {
	p.t.Helper()
	buf := make([]byte, 4096)
	if err := p.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	n, from, err := p.ReadFromUDPAddrPort(buf)
	if err != nil {
		p.t.Fatal(err)
	}
	return buf[:n], from
}

func (p peer) say(to netip.AddrPort, op, number uint16) {
	p.t.Helper()
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, op), number)
	if _, err := p.WriteToUDPAddrPort(b, to); err != nil {
		p.t.Fatal(err)
	}
}

// load takes a file. lose says of the nth packet that it gets lost.
func (p peer) load(block int, lose func(n int) bool) []byte {
	p.t.Helper()
	var all []byte
	for n, want := 0, uint16(1); ; n++ {
		b, from := p.next()
		if lose != nil && lose(n) {
			continue
		}
		number := binary.BigEndian.Uint16(b[2:])
		p.say(from, opAck, number)
		if number != want {
			continue // our answer was late
		}
		all, want = append(all, b[4:]...), want+1
		if len(b) < 4+block {
			return all
		}
	}
}

func TestTransfer(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 1024, 20000} {
		content := bytes.Repeat([]byte{'b', 'u', 'o', 'y'}, size/4+1)[:size]
		p, done := start(t, content, 512, "")
		if got := p.load(512, nil); !bytes.Equal(got, content) {
			t.Errorf("%d bytes arrived of %d", len(got), size)
		}
		if err := <-done; err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestTransferOfManyBlocks(t *testing.T) {
	content := bytes.Repeat([]byte("boatswain"), 80000) // numbers of blocks begin again
	p, done := start(t, content, 8, "")
	if got := p.load(8, nil); !bytes.Equal(got, content) || len(content)/8 <= 1<<16 {
		t.Errorf("%d bytes arrived of %d", len(got), len(content))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTransferWithLosses(t *testing.T) {
	content := bytes.Repeat([]byte("boatswain"), 1000)
	p, done := start(t, content, 512, "")
	if got := p.load(512, func(n int) bool { return n%3 == 1 }); !bytes.Equal(got, content) {
		t.Errorf("%d bytes arrived of %d", len(got), len(content))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTransferAnswersEachBlockOnce(t *testing.T) {
	p, done := start(t, make([]byte, 600), 512, "")
	_, from := p.next()
	for range 3 { // of which two are late
		p.say(from, opAck, 1)
	}
	if b, _ := p.next(); binary.BigEndian.Uint16(b[2:]) != 2 {
		t.Fatalf("not the second block: %d", b[:4])
	}
	p.say(from, opAck, 2)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := p.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Read(make([]byte, 1024)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes more, %v", n, err)
	}
}

func TestTransferEnds(t *testing.T) {
	t.Run("no answer", func(t *testing.T) {
		_, done := start(t, make([]byte, 600), 512, "")
		if err := <-done; errs.KindOf(err) != errs.Unavailable {
			t.Error(err)
		}
	})
	t.Run("told to stop", func(t *testing.T) {
		p, done := start(t, make([]byte, 600), 512, "")
		_, from := p.next()
		p.say(from, opError, 3)
		if err := <-done; !errors.Is(err, errStopped) {
			t.Error(err)
		}
	})
	t.Run("only the size", func(t *testing.T) {
		p, done := start(t, make([]byte, 600), 512, "tsize\x00600\x00")
		b, from := p.next()
		if string(b) != "\x00\x06tsize\x00600\x00" {
			t.Errorf("%q", b)
		}
		p.say(from, opError, 0)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("options accepted", func(t *testing.T) {
		p, done := start(t, make([]byte, 600), 544, "blksize\x00544\x00")
		_, from := p.next()
		p.say(from, opAck, 0)
		if got := p.load(544, nil); len(got) != 600 {
			t.Errorf("%d bytes", len(got))
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("somebody else answers", func(t *testing.T) {
		p, done := start(t, make([]byte, 100), 512, "")
		_, from := p.next()
		other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		peer{t, other}.say(from, opAck, 1)
		p.next() // again: that was not the client
		p.say(from, opAck, 1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestUnderWay(t *testing.T) {
	u := underWay{limit: transfers}
	client := func(host byte, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, host}), port)
	}
	if !u.begin(client(1, 1)) || u.begin(client(1, 1)) {
		t.Error("a request that comes twice is answered twice")
	}
	for port := uint16(2); port <= perClient; port++ {
		if !u.begin(client(1, port)) {
			t.Errorf("no room for transfer %d", port)
		}
	}
	if u.begin(client(1, perClient+1)) {
		t.Error("one client has all")
	}
	for host := byte(2); host <= transfers-perClient+1; host++ {
		if !u.begin(client(host, 1)) {
			t.Errorf("no room for client %d", host)
		}
	}
	if u.begin(client(200, 1)) {
		t.Error("there is no limit")
	}
	u.end(client(1, 1))
	if !u.begin(client(200, 1)) {
		t.Error("what has ended still counts")
	}
}
