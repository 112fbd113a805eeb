package store

import (
	"encoding/hex"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// span is the chunks whose names start with something from…to, inclusive. The zero span is all of them.
type span struct{ from, to string }

// newSpan reads both ends in hexadecimal as 0-fs does: an odd digit gets a 0 at its right. No to means the same as from,
// a to that is below from holds nothing.
func newSpan(from, to string) (span, error) {
	if to == "" {
		to = from
	}
	var ends [2]string
	for i, s := range []string{from, to} {
		if len(s)%2 == 1 {
			s += "0"
		}
		b, err := hex.DecodeString(s)
		if err != nil || len(s) > 64 {
			return span{}, errs.E(errs.Invalid, "range %.70q of chunks: up to 64 hexadecimal digits are expected", from+":"+to)
		}
		ends[i] = string(b)
	}
	if len(ends[0]) != len(ends[1]) {
		return span{}, errs.E(errs.Invalid, "range %q of chunks: both ends must be equally long", from+":"+to)
	}
	return span{ends[0], ends[1]}, nil
}

func (s span) has(id chunk.ID) bool {
	n := len(s.from)
	if len(id) < n {
		return false
	}
	head := string(id[:n])
	return s.from <= head && head <= s.to
}
