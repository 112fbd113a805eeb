package proxy

import (
	"bufio"
	"io"
	"net"
	"testing"
)

// BenchmarkRequest is a small GET over connections that are kept; what is
// allocated is the proxy's, for client and backend allocate nothing.
func BenchmarkRequest(b *testing.B) {
	const request = "GET /a/path?with=query HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
	ask := []byte(request)
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, world"
	at := raw(b, func(c net.Conn, r *bufio.Reader) {
		buf, say := make([]byte, 4096), []byte(answer)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			_, _ = c.Write(say)
		}
	})
	p := begin(b, Config{}, just(web(at)), nil)
	c := dialHTTP(b, p)
	buf := make([]byte, len(answer))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Write(ask)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}
