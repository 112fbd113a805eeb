package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// MaxBody is how many bytes of JSON a request may have.
	MaxBody = 1 << 20
	// maxDrain is how much of a larger body is read and dropped, so that a
	// client that is still sending gets to read why it was refused.
	maxDrain = 16 << 20
	// bodyTime is how long a client may take to send its JSON.
	bodyTime = 30 * time.Second
)

// TooLargeError says that a body is larger than allowed.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the body is larger than %d bytes, the most that is read here", e.Limit)
}

// Expecter is a type with its own UnmarshalJSON that can say in words what it
// takes. It should fail with a json.UnmarshalTypeError, which gets the field's name.
type Expecter interface{ Expect() string }

// Decode reads the body as exactly one JSON object. Its errors are Invalid, or
// a TooLargeError, and sentences for the client.
func Decode[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	body, err := ReadBody(w, r, MaxBody)
	if err != nil {
		return v, err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return v, errs.E(errs.Invalid, "the body is empty; it must be a JSON object")
	}
	return v, unmarshal(body, &v)
}

// DecodeOptional is Decode where no body means the zero value.
func DecodeOptional[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	body, err := ReadBody(w, r, MaxBody)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return v, err
	}
	return v, unmarshal(body, &v)
}

// ReadBody is all of a body of at most limit bytes. Its errors are those of
// Decode; os.ErrDeadlineExceeded is among their causes if it came too slowly.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, err error) {
	rc := http.NewResponseController(w)
	// Not all writers of tests can; then there is no slow client either.
	if rc.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
		defer func() {
			if err == nil { // else net/http waits for the rest of the body, before it answers
				_ = rc.SetReadDeadline(time.Time{})
			}
		}()
	}
	if r.ContentLength > limit && r.Header.Get("Expect") != "" {
		return nil, &TooLargeError{limit}
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, limit+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errs.E(errs.Invalid, "the body has not come within %v: %w", bodyTime, os.ErrDeadlineExceeded)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "read the body: %w", err)
	}
	if int64(len(body)) > limit {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, &TooLargeError{limit}
	}
	return body, nil
}

// Loose reads body as Decode does, and leaves fields alone that v has not: for
// what programs of other versions, or of other people, send.
func Loose(body []byte, v any) error {
	if err := plausible(body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return explain(err)
	}
	return nil
}

func plausible(body []byte) error {
	if !utf8.Valid(body) {
		return errs.E(errs.Invalid, "the body is not UTF-8")
	}
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return errs.E(errs.Invalid, "the body is null; it must be a JSON object")
	}
	return nil
}

func unmarshal(body []byte, v any) error {
	if err := plausible(body); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return explain(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errs.E(errs.Invalid, "the body goes on after the JSON object, at byte %d", dec.InputOffset())
	}
	return nil
}

// explain says in words what is wrong with a body.
func explain(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return errs.E(errs.Invalid, "the body is not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return errs.E(errs.Invalid, "the body must be %s, not %s", expect(wrong.Type), got(wrong.Value))
		}
		return errs.E(errs.Invalid, "field %q must be %s, not %s", wrong.Field, expect(wrong.Type), got(wrong.Value))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.E(errs.Invalid, "the body ends in the middle of its JSON")
	}
	// encoding/json has no type for this one.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return errs.E(errs.Invalid, "there is no field %s here", name)
	}
	if errs.KindOf(err) == errs.Invalid { // a value says itself what it may be
		return err
	}
	return errs.E(errs.Invalid, "the body cannot be read: %w", err)
}

// got says what the client sent; encoding/json calls it "string", "number 1.5" and so on.
func got(value string) string {
	kind, literal, _ := strings.Cut(value, " ")
	switch kind {
	case "bool":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "string":
		return strings.TrimSpace("text " + literal)
	}
	if literal == "" {
		return "a number"
	}
	return "the number " + literal
}

// expect says what a Go type takes.
func expect(t reflect.Type) string {
	if e, ok := reflect.TypeAssert[Expecter](reflect.Zero(t)); ok {
		return e.Expect()
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Pointer:
		return expect(t.Elem())
	default:
		return "an object"
	}
}
