package hosts

import (
	"bytes"
	"mime"
	"net/http"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Bytes that bodies may have.
const (
	maxReport   = 8 << 20  // ten thousand containers take about half of it
	maxInstance = 64 << 10 // it is kept, as the last status
	maxWords    = 64 << 10 // of anything else
)

// maxListed is how many entries a list may have: "0," in place of a container
// is two bytes here and some hundred when it is read.
const maxListed = 1 << 16

// body reads a body of JSON into v. Fields that v has not are left alone: the
// protocol has many that mean nothing here, and agents of other versions.
func body(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	empty, err := bodyIfAny(w, r, limit, v)
	if err == nil && empty {
		return errs.E(errs.Invalid, "the body is empty; it must be a JSON object")
	}
	return err
}

// bodyIfAny is body where none is fine, and leaves v as it is.
func bodyIfAny(w http.ResponseWriter, r *http.Request, limit int64, v any) (empty bool, err error) {
	if r.ContentLength == 0 {
		return true, nil
	}
	// A body of unknown length may turn out to be none; it is looked at first.
	if r.ContentLength > 0 {
		if err := isJSON(r.Header); err != nil {
			return false, err
		}
	}
	raw, err := api.ReadBody(w, r, limit)
	if err != nil {
		return false, err
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return true, nil
	}
	if err := isJSON(r.Header); err != nil {
		return false, err
	}
	if crowded(raw) {
		return false, errs.E(errs.Invalid, "the body has a list of more than %d entries", maxListed)
	}
	return false, api.Loose(raw, v)
}

// crowded says that a list has more entries than any may. It looks as deep as
// there are lists that are read; of what is no JSON it says anything.
func crowded(raw []byte) bool {
	if len(raw) <= 2*maxListed {
		return false
	}
	var entries [4]int // of the lists around i; below 0: it is an object
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth >= 0 && depth < len(entries) {
				entries[depth] = 0
				if c == '{' {
					entries[depth] = -len(raw)
				}
			}
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth > 0 && depth <= len(entries):
			if entries[depth-1]++; entries[depth-1] >= maxListed {
				return true
			}
		}
	}
	return false
}

// isJSON refuses what says of itself that it is something else, or says nothing.
func isJSON(h http.Header) error {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return api.Refuse(http.StatusUnsupportedMediaType, "the body has Content-Encoding %q; it must come as it is", enc)
	}
	typ := h.Get("Content-Type")
	if typ == "application/json" { // nearly always
		return nil
	}
	if media, _, err := mime.ParseMediaType(typ); err != nil || media != "application/json" {
		return api.Refuse(http.StatusUnsupportedMediaType, "the body has Content-Type %q; it must be application/json", typ)
	}
	return nil
}
