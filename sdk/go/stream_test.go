package buoy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// wire is a connection whose other side has said all it says.
type wire struct {
	io.Reader
	sent bytes.Buffer
}

func (w *wire) Write(p []byte) (int, error) { return w.sent.Write(p) }
func (w *wire) Close() error                { return nil }

func socketOf(data []byte) (*socket, *wire) {
	w := &wire{Reader: bytes.NewReader(data)}
	return &socket{ReadWriteCloser: w, in: bufio.NewReader(w)}, w
}

func frame(head byte, body string) []byte {
	switch n := len(body); {
	case n < 126:
		return append([]byte{head, byte(n)}, body...)
	default:
		return append([]byte{head, 126, byte(n >> 8), byte(n)}, body...)
	}
}

func TestMessages(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for name, test := range map[string]struct {
		data []byte
		want []string
		end  string // the error's text
	}{
		"one":        {append(frame(0x81, "a"), frame(0x88, "\x03\xe8")...), []string{"a"}, "EOF"},
		"long":       {append(frame(0x81, long), frame(0x88, "")...), []string{long}, "EOF"},
		"fragments":  {append(append(append(frame(0x01, "a"), frame(0x89, "ping")...), frame(0x00, "b")...), frame(0x80, "c")...), []string{"abc"}, "read a stream: unexpected EOF"},
		"cut":        {[]byte{0x81, 5, 'a'}, nil, "read a stream: unexpected EOF"},
		"told why":   {frame(0x88, "\x03\xf3too slow"), nil, "the stream has ended: too slow"},
		"only code":  {frame(0x88, "\x03\xf3"), nil, "the stream has ended: code 1011"},
		"too long":   {[]byte{0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0}, nil, "read a stream: a message has more than 16777216 bytes"},
		"masked":     {[]byte{0x81, 0x80, 0, 0, 0, 0}, nil, "read a stream: a frame of a server is masked, or has unknown bits"},
		"unknown":    {frame(0x83, ""), nil, "read a stream: unknown frame 3"},
		"long ping":  {frame(0x89, long), nil, "answer a ping: a control frame has more than 125 bytes"},
		"is nothing": {nil, nil, "read a stream: unexpected EOF"},
	} {
		s, w := socketOf(test.data)
		var got []string
		for {
			text, err := s.next()
			if err != nil {
				if err.Error() != test.end {
					t.Errorf("%s: ended with %v, want %s", name, err, test.end)
				}
				break
			}
			got = append(got, string(text))
		}
		if strings.Join(got, "|") != strings.Join(test.want, "|") {
			t.Errorf("%s: %.100q, want %.100q", name, got, test.want)
		}
		if pong := w.sent.Bytes(); name == "fragments" && (len(pong) != 10 || pong[0] != 0x8a || pong[1] != 0x84) {
			t.Errorf("%s: answered %x", name, pong)
		}
	}
}

func FuzzSocket(f *testing.F) {
	f.Add(append(frame(0x01, "a"), frame(0x80, "b")...))
	f.Add(frame(0x88, "\x03\xf3too slow"))
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _ := socketOf(data)
		for range len(data) + 1 {
			if _, err := s.next(); err != nil {
				if errors.Is(err, io.EOF) || err.Error() != "" {
					return
				}
			}
		}
		t.Error("it does not end")
	})
}
