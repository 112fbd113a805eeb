package live

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/internal/testapi"
)

// described is the API as its document has it.
var described = sync.OnceValues(func() (*testapi.Document, error) { return testapi.Read("../../api/system/openapi.yaml") })

// checked is a transport of which all answers must be as described.
func checked(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	doc, err := described()
	if err != nil {
		t.Fatal(err)
	}
	return &checker{t, doc, next}
}

type checker struct {
	t    testing.TB
	doc  *testapi.Document
	next http.RoundTripper
}

func (c *checker) CloseIdleConnections() {
	if t, ok := c.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

func (c *checker) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols && r.Method != http.MethodHead {
		resp.Body = &checkedBody{ReadCloser: resp.Body, c: c, r: r, resp: resp}
	}
	return resp, err
}

// checkedBody looks at a body when it has been read to its end.
type checkedBody struct {
	io.ReadCloser
	c    *checker
	r    *http.Request
	resp *http.Response
	got  bytes.Buffer
	done bool
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.got.Write(p[:n])
	if err == io.EOF && !b.done {
		b.done = true
		if err := b.c.doc.Check(b.r.Method, b.r.URL.EscapedPath(), b.resp.StatusCode, b.resp.Header, b.got.Bytes()); err != nil {
			b.c.t.Errorf("%s %s answers %d: %v", b.r.Method, b.r.URL.Path, b.resp.StatusCode, err)
		}
	}
	return n, err
}
