package manifest

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/buoy-edge/buoy/app"
)

// What other documents about apps have in common with manifests.
type (
	// Word is text that may also be written as a number, or as true or false.
	Word = word
	// Raw is JSON as it was given.
	Raw json.RawMessage
)

func (r *Raw) decode(_ *decoder, n *node, _ string) { *r = Raw(n.json()) }

// Decode reads a JSON document into the struct that v points to, by the tags
// json, also, need, oneof, pattern, min and max that fields.go explains. Its
// error is app.Problems: all that is wrong.
func Decode(data []byte, v any) error {
	switch {
	case len(data) > maxBytes:
		return wrong("is larger than %d bytes, the most that is read", maxBytes)
	case !utf8.Valid(data):
		return wrong("is not UTF-8 text")
	}
	docs, err := jsons(data)
	switch {
	case err != nil:
		return err
	case len(docs) == 0:
		return wrong("is empty; it must be an object")
	case len(docs) > 1:
		return wrong("goes on after the end of the JSON object")
	case docs[0].root.kind != object:
		return wrong("is %s; it must be an object", docs[0].root.what())
	}
	d := &decoder{root: docs[0].root, problems: docs[0].problems}
	d.into(v, d.root, "")
	if problems := d.all(); len(problems) > 0 {
		return bounded(problems, d.more)
	}
	return nil
}

// Words cuts a command as a shell does: at blanks, but for those in quotes and
// behind backslashes. It is not ok if a quote does not end.
func Words(text string) (words []string, ok bool) { return shellCut(text) }

// ParsePort reads PORT or HOST:PORT, and /tcp, /udp, /http or /h2c behind it;
// without, Proto is empty.
func ParsePort(text string) (p app.Port, ok bool) {
	ports, proto, named := strings.Cut(text, "/")
	switch proto {
	case "tcp", "udp", "http", "h2c":
	default:
		if named {
			return p, false
		}
	}
	p.Proto = proto
	host, inside, both := strings.Cut(ports, ":")
	if !both {
		inside = host
	}
	n, err := strconv.ParseUint(inside, 10, 16)
	if err != nil || n == 0 {
		return p, false
	}
	p.Container = uint16(n)
	if both {
		n, err = strconv.ParseUint(host, 10, 16)
		p.Host = uint16(n)
		return p, err == nil && n != 0
	}
	return p, true
}
