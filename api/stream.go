package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
)

type stoppingKey struct{}

// StreamContext is the context of an answer without an end of its own, such as
// a followed log: it is done when the client has gone or the server stops.
// Other requests get the server's grace instead.
func StreamContext(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stopping, ok := r.Context().Value(stoppingKey{}).(context.Context)
	if !ok {
		return ctx, cancel
	}
	undo := context.AfterFunc(stopping, cancel)
	return ctx, func() { undo(); cancel() }
}

// Gone says that the client has: there is nobody to answer to.
func Gone(r *http.Request) bool {
	stopping, ok := r.Context().Value(stoppingKey{}).(context.Context)
	return r.Context().Err() != nil && (!ok || stopping.Err() == nil)
}

// Stream is an answer that is written piece by piece. Nothing is sent before
// the first piece, so that an error until then can have its own status. One
// goroutine may use it at a time.
type Stream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	buf     *bufio.Writer
	typ     string
	started bool
}

// NewStream makes the Stream of an answer of one content type.
func NewStream(w http.ResponseWriter, contentType string) *Stream {
	return &Stream{w: w, rc: http.NewResponseController(w), buf: bufio.NewWriterSize(w, 32<<10), typ: contentType}
}

// Started says whether the status has been sent.
func (s *Stream) Started() bool { return s.started }

// Start sends status and headers now.
func (s *Stream) Start() error {
	s.begin()
	return s.rc.Flush()
}

func (s *Stream) begin() {
	if s.started {
		return
	}
	s.started = true
	s.w.Header().Set("Content-Type", s.typ)
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.Header().Set("X-Accel-Buffering", "no") // nginx would hold lines back
	s.w.WriteHeader(http.StatusOK)
}

// WriteString buffers a piece.
func (s *Stream) WriteString(text string) error {
	s.begin()
	_, err := io.WriteString(s.buf, text)
	return err
}

// WriteJSON buffers v as one line.
func (s *Stream) WriteJSON(v any) error {
	s.begin()
	enc := json.NewEncoder(s.buf)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Flush sends what is buffered.
func (s *Stream) Flush() error {
	s.begin()
	if err := s.buf.Flush(); err != nil {
		return err
	}
	return s.rc.Flush()
}
