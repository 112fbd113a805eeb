package proxy

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzRequest wants that whatever is served here is accepted by net/http, too,
// and means the same there: as it came, and as a backend gets it.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /x?y=z HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=b; c=d\r\nTE: trailers\r\n\r\n",
		"GET /%41 HTTP/1.1\r\nhost:a\r\nx:\t y \r\nConnection: close, keep-alive\r\n\r\n",
		"PUT //a/../b HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, trusted bool) {
		end := bytes.Index(b, crlf2)
		if end < 0 {
			return
		}
		head := b[:end+len(crlf2)]
		c := client{peer: peer{text: "192.0.2.1", trusted: trusted}}
		if c.q.parse(head, trusted) != serve {
			return
		}
		text := slices.Concat(head, make([]byte, max(c.q.length, 0)))
		theirs := same(t, &c.q, text, text)
		c.in = buffer{b: text, w: len(text)}
		c.compose()
		out := same(t, &c.q, text, c.out)
		for name, values := range theirs.Header {
			switch known([]byte(name)) {
			case isOther, isCookie:
				if !slices.Equal(out.Header[name], values) {
					t.Errorf("header %q is %q, was %q", name, out.Header[name], values)
				}
			case isHost, isLength, isEncoding, isConnection, isUpgrade, isExpect, isTrailer, isForwarded:
			case isHop:
				if len(out.Header[name]) > 0 {
					t.Errorf("header %q is passed on", name)
				}
			}
		}
		if got := out.Header.Values("X-Forwarded-For"); len(got) != 1 || !strings.HasSuffix(got[0], "192.0.2.1") || !trusted && got[0] != "192.0.2.1" {
			t.Errorf("X-Forwarded-For: %q", got)
		}
	})
}

// same has net/http read a request and compares it.
func same(t *testing.T, q *request, b, text []byte) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatalf("net/http does not accept %q: %v", text, err)
	}
	if r.Method != string(q.method.of(b)) || r.RequestURI != string(q.target.of(b)) || r.Host != string(q.host.of(b)) {
		t.Errorf("%q is %s %s at %q", text, r.Method, r.RequestURI, r.Host)
	}
	if r.ContentLength != max(q.length, 0) || len(r.TransferEncoding) > 0 {
		t.Errorf("%q has a body of %d, encoded %v; here %d", text, r.ContentLength, r.TransferEncoding, q.length)
	}
	return r
}

// FuzzAnswer wants the same of answers, and that a chunked body is what
// net/http makes of it.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2;e\r\nhi\r\n0\r\nT: u\r\n\r\n",
		"HTTP/1.0 404\r\nConnection: keep-alive, X\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\nX: y\n\nhi",
		"HTTP/1.0 200 \r0\r\n00\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: Chunked \r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := headEnd(b)
		if n == 0 {
			return
		}
		head := proper(bytes.Clone(b[:n]))
		var c client
		if c.a.parse(head) != nil || c.a.status < 200 {
			return
		}
		text := slices.Concat(head, b[n:])
		theirs, err := head1(text)
		if err != nil {
			t.Fatalf("net/http does not accept %q: %v", text, err)
		}
		if theirs.StatusCode != c.a.status {
			t.Errorf("%q: status %d, here %d", text, theirs.StatusCode, c.a.status)
		}
		none := c.a.bodiless([]byte("GET"))
		if chunked := slices.Contains(theirs.TransferEncoding, "chunked"); !none && (chunked != c.a.chunked || !chunked && theirs.ContentLength != c.a.length) {
			t.Errorf("%q: length %d, chunked %t; here %d, %t", text, theirs.ContentLength, chunked, c.a.length, c.a.chunked)
		}
		c.headOut(&service{}, &link{}, head, false, false, none)
		out, err := head1(c.out)
		if err != nil {
			t.Fatalf("net/http does not accept what is passed on, %q: %v", c.out, err)
		}
		named := strings.Split(strings.Join(theirs.Header.Values("Connection"), ","), ",")
		for name, values := range theirs.Header {
			isNamed := slices.ContainsFunc(named, func(s string) bool { return textproto.CanonicalMIMEHeaderKey(strings.Trim(s, " \t")) == name })
			if known([]byte(name)) == isOther && !isNamed && !slices.Equal(values, out.Header[name]) {
				t.Errorf("header %q is %q, was %q", name, out.Header[name], values)
			}
		}
	})
}

// head1 is the head of an answer to GET as net/http reads it.
func head1(text []byte) (reply, error) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), &http.Request{Method: http.MethodGet})
	if err != nil {
		return reply{}, err
	}
	_ = r.Body.Close() // says what is wrong with a body that nobody has read
	return reply{r, ""}, nil
}

func TestChunkSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "5": 5, "1f": 31, "1F;x=y": 31, "a ": 10, "7fffffffffffff": 1<<55 - 1,
		"": -1, ";": -1, "-1": -1, "+1": -1, "0x5": -1, " 5": -1, "g": -1, "10000000000000000": -1,
	} {
		n, ok := chunkSize([]byte(text))
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("chunk size %q is %d, %t", text, n, ok)
		}
	}
}

// FuzzChunks passes a chunked body on and wants that the client gets what
// net/http makes of it, or is cut off.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("2;e\r\nhi\r\n0\r\nT: u\r\n\r\n"))
	f.Add([]byte("a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\nmore"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		p, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		var sent sink
		c := &client{p: p, guest: &guest{}, conn: &sent}
		l := &link{conn: &net.TCPConn{}, in: buffer{b: bytes.Clone(b), w: len(b)}} // nothing follows
		c.asks(l)
		r := relaying{c: c, l: l}
		if r.chunks() != nil || r.flush() != nil {
			return
		}
		read := func(body []byte) (string, error) {
			got, err := readReply(bufio.NewReader(strings.NewReader(head+string(body))), http.MethodGet)
			if err != nil {
				return "", err
			}
			return got.body + "|" + got.Trailer.Get("T"), nil
		}
		want, err := read(b)
		if err != nil {
			t.Skip("net/http is stricter: " + strconv.Quote(string(b)))
		}
		if got, err := read(sent.b); err != nil || got != want {
			t.Errorf("%q became %q: %q, %v, want %q", b, sent.b, got, err, want)
		}
	})
}

// sink is a client that takes all.
type sink struct {
	net.Conn
	b []byte
}

func (s *sink) Write(b []byte) (int, error) {
	s.b = append(s.b, b...)
	return len(b), nil
}

func (s *sink) SetDeadline(time.Time) error { return nil }
