package store

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/buoy-edge/buoy/internal/errs"
)

// reply is an answer in RESP2: "+", "-" and ":" have text, "$" has data.
type reply struct {
	kind byte
	text string
	data []byte
	null bool
}

// maxLine is the longest status or error that is read.
const maxLine = 1024

var errRESP = errors.New("it does not speak the protocol of redis")

// readReply reads one answer and no byte more. An errs.Invalid error means that the rest of the answer is still in r.
func readReply(r *bufio.Reader, c call) (reply, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return reply{}, err
	}
	line, err := readLine(r)
	if err != nil {
		return reply{}, err
	}
	switch kind {
	case '+', '-':
		return reply{kind: kind, text: line}, nil
	case ':':
		if _, err := strconv.ParseInt(line, 10, 64); err != nil {
			return reply{}, errRESP
		}
		return reply{kind: kind, text: line}, nil
	case '$':
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil || n < -1 {
			return reply{}, errRESP
		}
		if n == -1 {
			return reply{kind: kind, null: true}, nil
		}
		if err := c.tooLong(n); err != nil {
			return reply{}, err
		}
		data, err := readBulk(r, int(n))
		return reply{kind: kind, data: data}, err
	}
	return reply{}, errRESP
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for len(line) <= maxLine {
		b, err := r.ReadByte()
		if err != nil {
			return "", unexpected(err)
		}
		line = append(line, b)
		if n := len(line); n >= 2 && line[n-2] == '\r' && b == '\n' {
			return string(line[:n-2]), nil
		}
	}
	return "", errRESP
}

// readBulk reads n bytes and the end of the line. Memory is taken as bytes arrive, not as they are announced.
func readBulk(r *bufio.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	data := make([]byte, 0, min(n, step)+2)
	for len(data) < n+2 {
		data = slices.Grow(data, min(n+2-len(data), step))
		part := data[len(data):min(cap(data), n+2)]
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, unexpected(err)
		}
		data = data[:len(data)+len(part)]
	}
	if data[n] != '\r' || data[n+1] != '\n' {
		return nil, errRESP
	}
	return data[:n], nil
}

// unexpected is err for a stream that must not end here.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendCommand appends a command as servers read it.
func appendCommand(b []byte, args ...string) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(args)), 10)
	for _, a := range args {
		b = append(b, "\r\n$"...)
		b = strconv.AppendInt(b, int64(len(a)), 10)
		b = append(b, "\r\n"...)
		b = append(b, a...)
	}
	return append(b, "\r\n"...)
}

// refusal is what an error reply means for us. The words before the text are those of redis; 0-db has sentences only.
func refusal(text string) error {
	word := text
	for i := range text {
		if text[i] == ' ' {
			word = text[:i]
			break
		}
	}
	switch word {
	case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "OOM", "MISCONF":
		return errs.E(errs.Unavailable, "it answers %q", text)
	}
	return refused("it answers %q", text)
}
