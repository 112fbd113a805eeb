package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/app"
)

// read makes nodes of the documents in data, JSON or YAML. Documents without
// content are left out. Its errors are app.Problems.
func read(data []byte) ([]*node, error) {
	switch {
	case len(data) > maxBytes:
		return nil, wrong("", "is larger than %d bytes, the most that is read", maxBytes)
	case !utf8.Valid(data):
		return nil, wrong("", "is not UTF-8 text")
	}
	r := &reader{}
	var docs []*node
	var err error
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		docs, err = r.jsons(trimmed)
		if err != nil { // YAML may look like that too
			again := &reader{}
			if other, yerr := again.yamls(data); yerr == nil {
				docs, err = other, nil
			}
		}
	} else {
		docs, err = r.yamls(data)
	}
	switch {
	case err != nil:
		return nil, err
	case len(docs) == 0:
		return nil, wrong("", "is empty")
	}
	return docs, nil
}

func wrong(path, format string, args ...any) app.Problems {
	return app.Problems{{Path: path, Text: fmt.Sprintf(format, args...)}}
}

// reader makes nodes, and counts them.
type reader struct {
	nodes, bytes int
}

// add counts a node.
func (r *reader) add(depth, size int) error {
	r.nodes++
	r.bytes += size
	switch {
	case depth > maxDepth:
		return wrong("", "has lists and objects in each other more than %d deep", maxDepth)
	case r.nodes > maxNodes:
		return wrong("", "has more than %d values, with its aliases written out", maxNodes)
	case r.bytes > maxText:
		return wrong("", "has more than %d bytes, with its aliases written out", maxText)
	}
	return nil
}

func (r *reader) yamls(data []byte) ([]*node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var docs []*node
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, wrong("", "is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if len(doc.Content) == 0 {
			continue
		}
		n, err := r.yaml(doc.Content[0], "", 0)
		if err != nil {
			return nil, err
		}
		if n.kind == null {
			continue
		}
		if docs = append(docs, n); len(docs) > maxDocuments {
			return nil, wrong("", "has more than %d documents", maxDocuments)
		}
	}
}

func (r *reader) yaml(y *yaml.Node, path string, depth int) (*node, error) {
	if err := r.add(depth, len(y.Value)); err != nil {
		return nil, err
	}
	switch y.Kind {
	case yaml.AliasNode:
		return r.yaml(y.Alias, path, depth+1) // deeper, so that one that contains itself ends
	case yaml.SequenceNode:
		n := &node{kind: list, line: y.Line}
		for i, item := range y.Content {
			one, err := r.yaml(item, index(path, i), depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, one)
		}
		return n, nil
	case yaml.MappingNode:
		n := &node{kind: object, line: y.Line}
		return n, r.mapping(n, y, path, depth)
	case yaml.ScalarNode:
		return scalar(y, path)
	default:
		return nil, wrong(path, "cannot be read (line %d)", y.Line)
	}
}

// mapping adds the fields of y to n, and those that it merges in, unless it has
// them itself.
func (r *reader) mapping(n *node, y *yaml.Node, path string, depth int) error {
	seen := map[string]int{} // and in which line
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return wrong(path, "has a name of a field that is a list or an object (line %d)", key.Line)
		}
		if line, ok := seen[key.Value]; ok {
			return wrong(below(path, key.Value), "is there twice, in lines %d and %d", line, key.Line)
		}
		seen[key.Value] = key.Line
		one, err := r.yaml(value, below(path, key.Value), depth+1)
		if err != nil {
			return err
		}
		if err := r.add(depth, len(key.Value)); err != nil {
			return err
		}
		n.fields = append(n.fields, &field{name: key.Value, line: key.Line, value: one})
	}
	for _, m := range merged {
		if err := r.merge(n, m, seen, path, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// merge is YAML's "<<".
func (r *reader) merge(n *node, y *yaml.Node, seen map[string]int, path string, depth int) error {
	from, err := r.yaml(y, path, depth)
	if err != nil {
		return err
	}
	sources := []*node{from}
	if from.kind == list {
		sources = from.items
	}
	for _, source := range sources {
		if source.kind != object {
			return wrong(path, "merges %s by <<; it must be an object (line %d)", source.what(), y.Line)
		}
		for _, f := range source.fields {
			if _, ok := seen[f.name]; !ok {
				seen[f.name] = f.line
				n.fields = append(n.fields, f)
			}
		}
	}
	return nil
}

// jsonNumber is what JSON takes for a number. What YAML takes besides, such as
// 0x1F and 0644, stays text: nobody agrees on what it means.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

func scalar(y *yaml.Node, path string) (*node, error) {
	n := &node{kind: text, text: y.Value, line: y.Line}
	switch tag := y.ShortTag(); tag {
	case "!!null":
		n.kind, n.text = null, ""
	case "!!bool":
		n.kind, n.text = boolean, strings.ToLower(y.Value)
	case "!!int", "!!float":
		if jsonNumber.MatchString(y.Value) {
			n.kind = number
		}
	case "!!str", "!!timestamp", "!!merge":
	default:
		return nil, wrong(path, "has the tag %s, which has no meaning here (line %d)", tag, y.Line)
	}
	return n, nil
}

func (r *reader) jsons(data []byte) ([]*node, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var docs []*node
	for {
		n, err := r.json(dec, "", 0)
		switch {
		case errors.Is(err, io.EOF) && n == nil:
			return docs, nil
		case err != nil:
			return nil, jsonError(err, data)
		}
		if docs = append(docs, n); len(docs) > maxDocuments {
			return nil, wrong("", "has more than %d documents", maxDocuments)
		}
	}
}

func jsonError(err error, data []byte) error {
	if problems, ok := errors.AsType[app.Problems](err); ok {
		return problems
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		return wrong("", "is no JSON: %s in line %d", syntax.Error(), line)
	}
	return wrong("", "is no JSON: it ends too early")
}

// json reads the next value. It is nil with io.EOF when there is none.
func (r *reader) json(dec *json.Decoder, path string, depth int) (*node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	n, err := r.jsonValue(dec, token, path, depth)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *reader) jsonValue(dec *json.Decoder, token json.Token, path string, depth int) (*node, error) {
	n := &node{}
	switch v := token.(type) {
	case bool:
		n.kind, n.text = boolean, fmt.Sprint(v)
	case json.Number:
		n.kind, n.text = number, v.String()
	case string:
		n.kind, n.text = text, v
	case json.Delim:
		n.kind = list
		if v == '{' {
			n.kind = object
		}
	}
	if err := r.add(depth, len(n.text)); err != nil {
		return n, err
	}
	var err error
	switch n.kind {
	case list:
		err = r.jsonList(dec, n, path, depth)
	case object:
		err = r.jsonObject(dec, n, path, depth)
	default:
		return n, nil
	}
	if err == nil {
		_, err = dec.Token() // the closing one
	}
	return n, err
}

func (r *reader) jsonList(dec *json.Decoder, n *node, path string, depth int) error {
	for dec.More() {
		one, err := r.json(dec, index(path, len(n.items)), depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, one)
	}
	return nil
}

func (r *reader) jsonObject(dec *json.Decoder, n *node, path string, depth int) error {
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return wrong(below(path, name), "is there twice")
		}
		seen[name] = true
		if err := r.add(depth, len(name)); err != nil {
			return err
		}
		one, err := r.json(dec, below(path, name), depth+1)
		if err != nil {
			return err
		}
		n.fields = append(n.fields, &field{name: name, value: one})
	}
	return nil
}
