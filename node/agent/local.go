package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Local is a client of an API in the same process; id is the node's.
func Local(api http.Handler, id string) (*buoy.Client, error) {
	return buoy.New("http://localhost", buoy.WithNode(id), buoy.WithHTTPClient(&http.Client{Transport: inside{api}}))
}

// inside carries requests to a handler without a connection. An answer goes by
// as it is written, so that a pull can be followed.
type inside struct{ h http.Handler }

// RoundTrip implements http.RoundTripper. It waits for the handler: what it
// was asked to do has been done or undone when there is an error.
func (t inside) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.RequestURI = in.URL.RequestURI()
	in.Host = in.URL.Host
	in.URL = &url.URL{Path: in.URL.Path, RawPath: in.URL.RawPath, RawQuery: in.URL.RawQuery}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	r, w := io.Pipe()
	answer := &answerWriter{header: http.Header{}, begun: make(chan struct{}), body: w}
	ended := make(chan struct{})
	go func() { // ends before the body is closed, or read to its end
		defer close(ended)
		defer in.Body.Close()
		answer.serve(t.h, in)
	}()
	<-answer.begun
	if answer.aborted {
		cancel()
		<-ended
		return nil, errors.New("the answer was cut off")
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", answer.status, http.StatusText(answer.status)), StatusCode: answer.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: answer.sent, ContentLength: -1, Request: req,
		Body: &answerBody{PipeReader: r, cancel: cancel, ended: ended},
	}, nil
}

// answerWriter is the http.ResponseWriter.
type answerWriter struct {
	header, sent http.Header
	status       int
	once         sync.Once
	begun        chan struct{} // closed when status and sent are set, or aborted
	aborted      bool
	body         *io.PipeWriter
}

func (a *answerWriter) serve(h http.Handler, r *http.Request) {
	defer func() {
		what := recover()
		a.once.Do(func() { // nothing was written
			a.status, a.sent, a.aborted = http.StatusOK, a.header.Clone(), what != nil
			close(a.begun)
		})
		if what == nil {
			a.body.Close()
			return
		}
		a.body.CloseWithError(io.ErrUnexpectedEOF)
		if what != any(http.ErrAbortHandler) {
			panic(what)
		}
	}()
	h.ServeHTTP(a, r)
}

func (a *answerWriter) Header() http.Header { return a.header }

func (a *answerWriter) WriteHeader(status int) {
	if status < http.StatusOK {
		return
	}
	a.once.Do(func() {
		a.status, a.sent = status, a.header.Clone()
		close(a.begun)
	})
}

func (a *answerWriter) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// Flush implements http.Flusher: everything is sent at once.
func (a *answerWriter) Flush() { a.WriteHeader(http.StatusOK) }

// answerBody ends the handler when nobody reads on.
type answerBody struct {
	*io.PipeReader
	cancel context.CancelFunc
	ended  chan struct{}
}

// Close waits for the handler.
func (b *answerBody) Close() error {
	err := b.PipeReader.Close()
	b.cancel()
	<-b.ended
	return err
}
