package proxy

import (
	"bytes"
	"errors"
	"slices"
)

// answer is the head of a backend's answer, as spans of the buffer it is in.
type answer struct {
	status  int
	line    span   // "200 OK"
	keep    []span // lines that are passed on
	length  int64  // of the body; -1: it is chunked, or ends with the connection
	chunked bool
	lasts   bool // the connection may be used again
	upgrade span
	named   []span // headers that Connection says are for us
}

var errHead = errors.New("the head of the answer is malformed")

// headEnd is where a head ends that begins at b's beginning; 0: not there yet.
// A line may end with LF alone.
func headEnd(b []byte) int {
	n := bytes.Index(b, crlf2) + len(crlf2)
	if n < len(crlf2) {
		n = 0
	}
	before := b
	if n > 0 {
		before = b[:n]
	}
	if i := bytes.Index(before, []byte("\n\n")); i >= 0 {
		return i + 2
	}
	return n
}

// proper is a head whose lines end with CR LF, as those that are passed on
// must.
func proper(head []byte) []byte {
	if bytes.Count(head, []byte{'\n'}) == bytes.Count(head, []byte("\r\n")) {
		return head
	}
	head = bytes.ReplaceAll(head, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(head, []byte("\n"), []byte("\r\n"))
}

// parse reads head, which is proper.
func (a *answer) parse(head []byte) error {
	*a = answer{keep: a.keep[:0], named: a.named[:0], length: -1}
	end := bytes.IndexByte(head, '\n') - 1
	if end < len("HTTP/1.1 200") || string(head[:7]) != "HTTP/1." || head[8] != ' ' || head[end] != '\r' || end > 12 && head[12] != ' ' {
		return errHead
	}
	code, ok := number(head[9:12])
	if !ok || code < 100 || head[7] != '0' && head[7] != '1' {
		return errHead
	}
	for _, c := range head[12:end] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errHead
		}
	}
	a.status, a.line = int(code), span{9, end}
	a.lasts = head[7] == '1'
	both := false
	for at := end + 2; ; {
		n := bytes.IndexByte(head[at:], '\n')
		if n < 1 || head[at+n-1] != '\r' {
			return errHead
		}
		if n == 1 {
			break
		}
		name, value, ok := cut(head, at, at+n-1)
		if !ok || !a.field(head, span{at, at + n + 1}, name, value) {
			return errHead
		}
		both = both || a.chunked && a.length >= 0
		at += n + 1
	}
	if a.chunked && head[7] == '0' { // RFC 9112, 6.1
		return errHead
	}
	if both { // somebody on the way understood it otherwise
		a.length, a.lasts = -1, false
	}
	a.unname(head)
	return nil
}

// field takes one header line.
func (a *answer) field(b []byte, line, name, value span) bool {
	v := value.of(b)
	switch known(name.of(b)) {
	case isLength:
		n, ok := number(v)
		if !ok || a.length >= 0 {
			return false
		}
		a.length = n
		return true
	case isEncoding:
		if a.chunked || !is(v, "chunked") {
			return false
		}
		a.chunked = true
		return true
	case isConnection:
		a.connection(b, value)
		return true
	case isUpgrade:
		a.upgrade = value
		return true
	case isHop:
		return true
	case isOther, isHost, isExpect, isTrailer, isCookie, isForwarded:
	}
	a.keep = pass(a.keep, line)
	return true
}

func (a *answer) connection(b []byte, value span) {
	for at := value.from; at < value.to; {
		n := bytes.IndexByte(b[at:value.to], ',')
		if n < 0 {
			n = value.to - at
		}
		word := bytes.Trim(b[at:at+n], " \t")
		switch {
		case is(word, "close"):
			a.lasts = false
		case is(word, "keep-alive"):
			a.lasts = true
		case len(word) > 0 && !is(word, "upgrade"):
			a.named = append(a.named, span{at, at + n})
		}
		at += n + 1
	}
}

// unname drops the headers that Connection has named.
func (a *answer) unname(b []byte) {
	if len(a.named) == 0 {
		return
	}
	lines := slices.Clone(a.keep)
	a.keep = a.keep[:0]
	for _, s := range lines {
		for at := s.from; at < s.to; {
			end := at + bytes.IndexByte(b[at:s.to], '\n') + 1
			name, _, _ := bytes.Cut(b[at:end], []byte{':'})
			if !slices.ContainsFunc(a.named, func(n span) bool { return bytes.EqualFold(bytes.Trim(n.of(b), " \t"), name) }) {
				a.keep = pass(a.keep, span{at, end})
			}
			at = end
		}
	}
}

// bodiless says whether an answer has no body whatever its head says.
func (a *answer) bodiless(method []byte) bool {
	return string(method) == "HEAD" || a.status < 200 || a.status == 204 || a.status == 304
}
