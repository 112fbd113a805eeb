package pxe

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// TFTP, RFC 1350, as a server that only gives files, with the options that
// firmware asks for: block size (RFC 2348) and size of the file (RFC 2349).

const tftpPort = 69

// What a packet is.
const (
	opRead    = 1
	opData    = 3
	opAck     = 4
	opError   = 5
	opOptions = 6
)

// errorMissing is the code of what is not there; 0 is that of all else.
const errorMissing = 1

const (
	usualBlock = 512
	// transfers is how many files are given at once, and perClient to one
	// address, by HTTP as well. Who asks in vain asks again.
	transfers = 64
	perClient = 4
	tries     = 6 // of a block: 63 times firstWait
	firstWait = 500 * time.Millisecond
)

// request is what a client wants to read.
type request struct {
	name  string
	block int  // as it wants it; 0: it does not say
	size  bool // is wanted
}

// readRequest reads a first packet.
func readRequest(b []byte) (r request, err error) {
	if len(b) < 2 || binary.BigEndian.Uint16(b) != opRead {
		return r, errs.E(errs.Invalid, "files can only be read")
	}
	words := strings.Split(string(b[2:]), "\x00")
	if len(words) < 3 || words[len(words)-1] != "" || words[0] == "" {
		return r, errs.E(errs.Invalid, "not a request")
	}
	words = words[:len(words)-1]
	if r.name = words[0]; !strings.EqualFold(words[1], "octet") {
		return r, errs.E(errs.Invalid, "the mode is octet")
	}
	// What follows are pairs. Options that make no sense are as if they were
	// not there (RFC 2347), and some firmware pads with zeros.
	for words = words[2:]; len(words) >= 2; words = words[2:] {
		n, err := strconv.ParseUint(words[1], 10, 32)
		switch {
		case err != nil:
		case strings.EqualFold(words[0], "blksize") && n >= 8 && n <= 65464:
			r.block = int(n)
		case strings.EqualFold(words[0], "tsize"):
			r.size = true
		}
	}
	return r, nil
}

// accept says which block size holds, and what is said of options, if anything.
// Blocks fit into frames: firmware does not put fragments together.
func (r request) accept(size int64, mtu int) (block int, options []byte) {
	const headers = 20 + 8 + 4 // IPv4, UDP, TFTP
	say := func(key string, value int64) {
		options = append(options, key+"\x00"+strconv.FormatInt(value, 10)+"\x00"...)
	}
	block = usualBlock
	if r.block != 0 {
		block = min(r.block, max(mtu-headers, usualBlock))
		say("blksize", int64(block))
	}
	if r.size {
		say("tsize", size)
	}
	return block, options
}

// openTFTP hears requests. What answers them has a socket of its own.
func (s *Server) openTFTP(ctx context.Context) (func() error, error) {
	conn, err := listenUDP(ctx, netip.AddrPortFrom(s.link.addr.Addr(), tftpPort), s.link.bind)
	if err != nil {
		return nil, err
	}
	return func() error {
		var wg sync.WaitGroup
		defer wg.Wait()
		under := underWay{limit: transfers}
		return datagrams(ctx, conn, usualBlock+1, func(b []byte, from netip.AddrPort) {
			r, err := readRequest(b)
			if len(b) > usualBlock || err != nil || !under.begin(from) {
				return
			}
			wg.Go(func() {
				defer under.end(from)
				if err := s.give(ctx, r, from); err != nil && ctx.Err() == nil {
					s.cfg.Log.WarnContext(ctx, "a file was not given by TFTP", "file", r.name, "to", from, "error", err)
				}
			})
		})
	}, nil
}

// underWay counts what is given at present.
type underWay struct {
	limit int

	mu  sync.Mutex // guards the fields below
	all map[netip.AddrPort]bool
	of  map[netip.Addr]int
}

// begin says whether there is room for one more. A client that asks a second
// time from the same port has not seen our answer yet.
func (u *underWay) begin(from netip.AddrPort) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all, u.of = map[netip.AddrPort]bool{}, map[netip.Addr]int{}
	}
	if u.all[from] || len(u.all) >= u.limit || u.of[from.Addr()] >= perClient {
		return false
	}
	u.all[from] = true
	u.of[from.Addr()]++
	return true
}

func (u *underWay) end(from netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, from)
	if u.of[from.Addr()]--; u.of[from.Addr()] == 0 {
		delete(u.of, from.Addr())
	}
}

// give sends a file from a port of its own.
func (s *Server) give(ctx context.Context, r request, to netip.AddrPort) error {
	conn, err := listenUDP(ctx, netip.AddrPortFrom(s.link.addr.Addr(), 0), s.link.bind)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	t := &transfer{conn: conn, to: to}
	file, info, err := s.files.open(r.name)
	if err != nil {
		t.fail(errorMissing, "there is no such file")
		return err
	}
	defer file.Close()
	block, options := r.accept(info.Size(), s.link.mtu)
	return t.run(file, block, options)
}

// transfer is a file on its way to a client.
type transfer struct {
	conn *net.UDPConn
	to   netip.AddrPort
	wait time.Duration // for the first answer; 0: firstWait
}

// fail tells the client why not. It is told once.
func (t *transfer) fail(code uint16, why string) {
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = append(binary.BigEndian.AppendUint16(b, code), why...)
	_, _ = t.conn.WriteToUDPAddrPort(append(b, 0), t.to) // it may have gone
}

func (t *transfer) run(file io.Reader, block int, options []byte) error {
	if options != nil {
		err := t.send(append([]byte{0, opOptions}, options...), 0)
		if errors.Is(err, errStopped) {
			return nil // it only wanted to know the size
		}
		if err != nil {
			return err
		}
	}
	buf := make([]byte, 4+block)
	for number := uint16(1); ; number++ { // which begins again at 0, in a large file
		n, err := io.ReadFull(file, buf[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.fail(0, "the file cannot be read")
			return err
		}
		binary.BigEndian.PutUint16(buf, opData)
		binary.BigEndian.PutUint16(buf[2:], number)
		if err := t.send(buf[:4+n], number); err != nil || n < block {
			return err
		}
	}
}

var errStopped = errors.New("the client wants no more of it")

// send sends a packet until it is acknowledged. It is sent again only when time
// is up, never because an old one is acknowledged again, or each would be sent
// twice from then on.
func (t *transfer) send(packet []byte, number uint16) error {
	wait := t.wait
	if wait == 0 {
		wait = firstWait
	}
	buf := make([]byte, usualBlock)
	for range tries {
		if _, err := t.conn.WriteToUDPAddrPort(packet, t.to); err != nil {
			return err
		}
		if err := t.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		wait *= 2
		for {
			n, from, err := t.conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if from != t.to || n < 4 {
				continue
			}
			switch op := binary.BigEndian.Uint16(buf); {
			case op == opAck && binary.BigEndian.Uint16(buf[2:]) == number:
				return nil
			case op == opError:
				return errStopped
			}
		}
	}
	return errs.E(errs.Unavailable, "no answer")
}
