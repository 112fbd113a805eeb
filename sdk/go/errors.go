package buoy

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// The kinds of errors; errors.Is finds them in what the methods return.
var (
	ErrInvalid      = errors.New("invalid")       // 400, 422 or a name no node can have
	ErrUnauthorized = errors.New("unauthorized")  // 401: no token, or not a good one
	ErrForbidden    = errors.New("forbidden")     // 403, or no permission on the socket
	ErrNotFound     = errors.New("not found")     // 404
	ErrConflict     = errors.New("conflict")      // 409: the name is taken, the container is in the wrong state
	ErrUnavailable  = errors.New("unavailable")   // 502, 503, 504: something the node needs is away
	ErrUnreachable  = errors.New("not reachable") // nobody answers at the address
)

// Error is an answer of buoyd that is not a success.
type Error struct {
	Status   int       // the HTTP status; 0 when an answer that had begun well ended badly
	Message  string    // a sentence for a person
	Code     string    // of apps: a word for programs, "APP_NOT_FOUND"
	Problems []Problem // of a manifest: all that is wrong with it
	WhyNot   []WhyNot  // of an app that no host takes: each host's reason
}

// Problem is what is wrong with a field of a manifest.
type Problem struct {
	Path string `json:"path"`
	Text string `json:"message"` // goes on after Path: "is 70000; it must be 1 to 65535 (line 7)"
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is(err, ErrNotFound) and the like work.
func (e *Error) Is(target error) bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return target == ErrInvalid
	case http.StatusUnauthorized:
		return target == ErrUnauthorized
	case http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusConflict:
		return target == ErrConflict
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return target == ErrUnavailable
	}
	return false
}

// ConnectError says that there was no way to the daemon.
type ConnectError struct {
	Addr string
	Err  error
}

func (e *ConnectError) Error() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("no permission to use buoyd's socket %s", strings.TrimPrefix(e.Addr, "unix://"))
	}
	return fmt.Sprintf("cannot reach buoyd at %s, is it running? (%v)", e.Addr, e.Err)
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrUnreachable) and ErrForbidden work.
func (e *ConnectError) Is(target error) bool {
	if errors.Is(e.Err, fs.ErrPermission) {
		return target == ErrForbidden
	}
	return target == ErrUnreachable
}

// errorOf reads the error out of an answer and closes it.
func errorOf(resp *http.Response) error {
	defer resp.Body.Close()
	e := &Error{Status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		e.Message = fmt.Sprintf("buoyd answered %s and hung up", resp.Status)
		return e
	}
	if e.read(text) {
		return e
	}
	if bytes.Contains(text, []byte("HTTP request to an HTTPS server")) { // in the words of net/http
		e.Message = "what answers speaks TLS: begin its address with https://"
		return e
	}
	e.Message = fmt.Sprintf("buoyd answered %s", resp.Status)
	if req := resp.Request; req != nil {
		e.Message += fmt.Sprintf(" to %s %s", req.Method, req.URL.Path)
	}
	return e
}

// read takes over what an answer says, in the words of any dialect.
func (e *Error) read(text []byte) bool {
	var body struct {
		Error    string    `json:"error"`
		Details  string    `json:"details"` // of apps: a sentence, where error is only a title
		Code     string    `json:"code"`
		Problems []Problem `json:"problems"`
		Hosts    []WhyNot  `json:"hosts"`

		ErrorDescription string // of hosts
		ErrorDetail      string
	}
	err := json.Unmarshal(text, &body)
	if _, odd := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !odd { // what is odd is left out
		return false
	}
	e.Message = cmp.Or(body.Details, body.Error, body.ErrorDetail, body.ErrorDescription)
	e.Code, e.Problems, e.WhyNot = body.Code, body.Problems, body.Hosts
	return e.Message != ""
}

// transportError tells a daemon that is not there from one that hung up.
func (c *Client) transportError(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return &ConnectError{Addr: c.addr, Err: rootOf(op)}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("what answers at %s speaks no TLS: begin its address with http://", c.addr)
	}
	return fmt.Errorf("talk to buoyd at %s: %w", c.addr, err)
}

// rootOf leaves out "dial unix /path:", which the address says already.
func rootOf(op *net.OpError) error {
	if op.Err != nil {
		return op.Err
	}
	return op
}
