package buoy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1" // RFC 6455 wants it
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
)

// maxMessage is the longest message of a stream that is read.
const maxMessage = 16 << 20

// stream yields the messages, JSON, that a WebSocket of the API sends, until it
// is closed in order, ctx ends, or with an error.
func stream[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		s, err := c.dial(ctx, request{path: path}, "")
		if err != nil {
			var none T
			yield(none, err)
			return
		}
		messages[T](ctx, s)(yield)
	}
}

// messages yields those of s, and closes it.
func messages[T any](ctx context.Context, s *socket) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		defer s.Close()
		defer context.AfterFunc(ctx, func() { _ = s.Close() })() // net/http forgets ctx once the protocol is another
		for {
			var one T
			text, err := s.next()
			if errors.Is(err, io.EOF) && ctx.Err() == nil {
				return
			}
			if err == nil {
				err = json.Unmarshal(text, &one)
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if !yield(one, err) || err != nil {
				return
			}
		}
	}
}

// socket is the client's side of a WebSocket (RFC 6455). One goroutine may read
// and another write.
type socket struct {
	io.ReadWriteCloser
	in   *bufio.Reader
	pong func(ping []byte) error // nil: a ping is answered by who reads
}

// acceptMark is from RFC 6455, 1.3.
const acceptMark = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// dial makes a request a WebSocket, with a subprotocol unless that is empty.
func (c *Client) dial(ctx context.Context, r request, subprotocol string) (*socket, error) {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	key := base64.StdEncoding.EncodeToString(nonce)
	r.method = http.MethodGet
	r.header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {key}}
	if subprotocol != "" {
		r.header.Set("Sec-Websocket-Protocol", subprotocol)
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	want := sha1.Sum([]byte(key + acceptMark)) // it is no secret
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(want[:]) {
		return nil, errors.Join(fmt.Errorf("buoyd answered %s to a WebSocket", resp.Status), resp.Body.Close())
	}
	return &socket{ReadWriteCloser: conn, in: bufio.NewReader(conn)}, nil
}

// The opcodes of frames.
const (
	frameText   = 0x1
	frameBinary = 0x2
	frameClose  = 0x8
	framePing   = 0x9
	framePong   = 0xa
)

// next is the next message; io.EOF when the other side has closed in order.
func (s *socket) next() ([]byte, error) {
	var message bytes.Buffer
	for {
		final, op, body, err := s.frame(maxMessage - message.Len())
		if err != nil {
			return nil, fmt.Errorf("read a stream: %w", err)
		}
		switch op {
		case framePing:
			answer := s.pong
			if answer == nil {
				answer = func(ping []byte) error { return s.write(framePong, ping) }
			}
			if err := answer(body); err != nil {
				return nil, fmt.Errorf("answer a ping: %w", err)
			}
			continue
		case framePong:
			continue
		case frameClose:
			_ = s.write(frameClose, body) // it may be gone already
			return nil, closed(body)
		case 0, frameText, frameBinary:
			message.Write(body)
		default:
			return nil, fmt.Errorf("read a stream: unknown frame %d", op)
		}
		if final {
			return message.Bytes(), nil
		}
	}
}

// closed is io.EOF, or why the stream was cut.
func closed(body []byte) error {
	if len(body) < 2 {
		return io.EOF
	}
	code, reason := binary.BigEndian.Uint16(body), strings.ToValidUTF8(string(body[2:]), "\uFFFD")
	if code == 1000 {
		return io.EOF
	}
	if reason == "" {
		reason = fmt.Sprintf("code %d", code)
	}
	return &Error{Message: "the stream has ended: " + reason}
}

// frame reads one.
func (s *socket) frame(most int) (final bool, op byte, body []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return false, 0, nil, noEOF(err)
	}
	size := uint64(head[1] & 0x7f)
	wide := map[uint64]int{126: 2, 127: 8}[size]
	if wide > 0 {
		var long [8]byte
		if _, err := io.ReadFull(s.in, long[8-wide:]); err != nil {
			return false, 0, nil, noEOF(err)
		}
		size = binary.BigEndian.Uint64(long[:])
	}
	switch {
	case head[1]&0x80 != 0 || head[0]&0x70 != 0:
		return false, 0, nil, errors.New("a frame of a server is masked, or has unknown bits")
	case size > uint64(most):
		return false, 0, nil, fmt.Errorf("a message has more than %d bytes", maxMessage)
	}
	var text bytes.Buffer // grows with what comes, not with what is announced
	if _, err := io.CopyN(&text, s.in, int64(size)); err != nil {
		return false, 0, nil, noEOF(err)
	}
	return head[0]&0x80 != 0, head[0] & 0x0f, text.Bytes(), nil
}

// noEOF makes an end in the middle of something an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write sends a frame, masked as clients must.
func (s *socket) write(op byte, body []byte) error {
	frame := make([]byte, 0, 14+len(body))
	switch n := len(body); {
	case n <= 125:
		frame = append(frame, 0x80|op, 0x80|byte(n))
	case op >= frameClose:
		return errors.New("a control frame has more than 125 bytes")
	case n <= 0xffff:
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|op, 0x80|126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 0x80|op, 0x80|127), uint64(n))
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	frame = append(frame, mask[:]...)
	for i, b := range body {
		frame = append(frame, b^mask[i%4])
	}
	_, err := s.Write(frame)
	return err
}
