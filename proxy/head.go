package proxy

import (
	"bytes"
	"net/http"
)

// A request or an answer of HTTP/1 is read by its lines, in place. What is
// accepted is a part of what net/http accepts, and means the same; a fuzz test
// compares them. What is legal and rare is left to net/http.

// verdict is what becomes of a request.
type verdict int

const (
	serve  verdict = iota // here
	leave                 // to net/http, with the rest of the connection
	refuse                // with refusal
)

// span is a part of a buffer.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }
func (s span) empty() bool        { return s.from == s.to }

// request is the head of a request, as spans of the buffer it is in.
type request struct {
	method, target, path, host span
	keep                       []span // lines that are passed on
	forwardedFor               []span // what other proxies say
	cookies                    []span
	upgrade                    span
	size                       int   // of the head
	length                     int64 // of the body; -1: none was named
	closes                     bool  // it is the last of the connection
	saysProto, saysHost        bool  // other proxies did

	status  int // of a refusal
	because string
}

var crlf2 = []byte("\r\n\r\n")

func (q *request) no(status int, because string) verdict {
	q.status, q.because = status, because
	return refuse
}

// reset keeps the slices.
func (q *request) reset() {
	*q = request{keep: q.keep[:0], forwardedFor: q.forwardedFor[:0], cookies: q.cookies[:0], length: -1}
}

// whole is how long the request is with its body.
func (q *request) whole() int { return q.size + int(max(q.length, 0)) }

// parse reads head, which ends with an empty line. trusted says whether the
// client's word about who came before it is believed.
func (q *request) parse(head []byte, trusted bool) verdict {
	q.reset()
	q.size = len(head)
	end := bytes.IndexByte(head, '\r')
	if end < 0 || head[end+1] != '\n' {
		return q.no(http.StatusBadRequest, "the request line does not end with CR LF")
	}
	if v := q.parseLine(head[:end]); v != serve {
		return v
	}
	var f fields
	for at := end + 2; ; {
		n := bytes.IndexByte(head[at:], '\n')
		if n < 1 || head[at+n-1] != '\r' {
			return q.no(http.StatusBadRequest, "a header line does not end with CR LF")
		}
		if n == 1 {
			break
		}
		name, value, ok := cut(head, at, at+n-1)
		if !ok {
			return q.no(http.StatusBadRequest, "a header line is malformed")
		}
		if v := q.field(head, &f, span{at, at + n + 1}, name, value, trusted); v != serve {
			return v
		}
		at += n + 1
	}
	return q.framing(head, &f)
}

// fields is what a head's lines have said so far.
type fields struct {
	hosts                      int
	encoded, unusual, upgrades bool
}

// parseLine reads "GET /path HTTP/1.1".
func (q *request) parseLine(line []byte) verdict {
	sp := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	if sp < 1 || last <= sp || !allTokens(line[:sp]) {
		return q.no(http.StatusBadRequest, "the request line is malformed")
	}
	q.method, q.target = span{0, sp}, span{sp + 1, last}
	target := q.target.of(line)
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return q.no(http.StatusBadRequest, "the request target has a blank or a control character")
		}
	}
	switch string(line[last+1:]) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		return leave
	default:
		return q.no(http.StatusHTTPVersionNotSupported, "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here")
	}
	if string(line[:sp]) == http.MethodConnect {
		return q.no(http.StatusMethodNotAllowed, "this is no forward proxy: CONNECT is not answered")
	}
	if len(target) == 0 || target[0] != '/' {
		return leave // "*", or a whole URL
	}
	q.path = q.target
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		q.path.to = q.path.from + i
	}
	if !escapesRight(q.path.of(line)) {
		return q.no(http.StatusBadRequest, "the path has a % that is no escape")
	}
	return serve
}

// cut takes a header line apart; value is without blanks around it.
func cut(b []byte, from, to int) (name, value span, ok bool) {
	i := bytes.IndexByte(b[from:to], ':')
	if i < 1 || !allTokens(b[from:from+i]) {
		return name, value, false
	}
	v := span{from + i + 1, to}
	for v.from < v.to && (b[v.from] == ' ' || b[v.from] == '\t') {
		v.from++
	}
	for v.to > v.from && (b[v.to-1] == ' ' || b[v.to-1] == '\t') {
		v.to--
	}
	for _, c := range v.of(b) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return name, value, false
		}
	}
	return span{from, from + i}, v, true
}

// field takes one header line.
func (q *request) field(b []byte, f *fields, line, name, value span, trusted bool) verdict {
	v := value.of(b)
	switch known(name.of(b)) {
	case isHost:
		f.hosts++
		q.host = value
		if !hostFits(v) {
			return q.no(http.StatusBadRequest, "the Host header is malformed")
		}
		return serve
	case isLength:
		n, ok := number(v)
		if !ok || q.length >= 0 {
			return q.no(http.StatusBadRequest, "the Content-Length is malformed or there are two")
		}
		q.length = n
	case isEncoding:
		if f.encoded || !is(v, "chunked") {
			return q.no(http.StatusNotImplemented, "the only Transfer-Encoding understood here is chunked")
		}
		f.encoded = true
		return serve
	case isConnection:
		return q.connection(v, f)
	case isUpgrade:
		q.upgrade = value
		return serve
	case isExpect, isTrailer:
		f.unusual = true
		return serve
	case isHop:
		return serve
	case isForwarded:
		if !q.believes(b, name, value, trusted) {
			return serve
		}
	case isCookie:
		q.cookies = append(q.cookies, value)
	case isOther:
	}
	q.pass(line)
	return serve
}

// pass has a line passed on, together with the one before if it was, too.
func (q *request) pass(line span) { q.keep = pass(q.keep, line) }

func pass(keep []span, line span) []span {
	if n := len(keep); n > 0 && keep[n-1].to == line.from {
		keep[n-1].to = line.to
		return keep
	}
	return append(keep, line)
}

// believes says whether to pass on what a header tells of earlier proxies.
func (q *request) believes(b []byte, name, value span, trusted bool) bool {
	if !trusted {
		return false
	}
	n := name.of(b)
	switch {
	case is(n, "x-forwarded-for"):
		q.forwardedFor = append(q.forwardedFor, value)
		return false
	case is(n, "x-forwarded-proto"):
		q.saysProto = true
	case is(n, "x-forwarded-host"):
		q.saysHost = true
	}
	return bytes.IndexByte(n, '_') < 0
}

// connection reads the Connection header. What names other headers is rare.
func (q *request) connection(v []byte, f *fields) verdict {
	for len(v) > 0 {
		var word []byte
		word, v = nextWord(v)
		switch {
		case len(word) == 0 || is(word, "keep-alive"):
		case is(word, "close"):
			q.closes = true
		case is(word, "upgrade"):
			f.upgrades = true
		default:
			f.unusual = true
		}
	}
	return serve
}

// framing decides where the body ends, and whether that can be done here.
func (q *request) framing(b []byte, f *fields) verdict {
	if f.encoded && q.length >= 0 {
		return q.no(http.StatusBadRequest, "a request has either Content-Length or Transfer-Encoding, not both")
	}
	if f.hosts != 1 {
		return q.no(http.StatusBadRequest, "a request has exactly one Host header")
	}
	if f.encoded || f.unusual || q.length > maxBuffered {
		return leave
	}
	if !f.upgrades || is(q.upgrade.of(b), "h2c") { // that one is for us, and declined
		q.upgrade = span{}
	}
	if !q.upgrade.empty() && q.length > 0 {
		return leave
	}
	return serve
}

// idempotent says whether doing it twice is doing it once.
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}
