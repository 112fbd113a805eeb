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

// parsed is a document, and what is wrong with how it is written.
type parsed struct {
	root     *node
	problems []problem
}

// read makes nodes of the documents in data, JSON or YAML. Documents without
// content are left out. Its errors are app.Problems; it gives what is before them.
func read(data []byte) ([]parsed, error) {
	switch {
	case len(data) > maxBytes:
		return nil, wrong("is larger than %d bytes, the most that is read", maxBytes)
	case !utf8.Valid(data):
		return nil, wrong("is not UTF-8 text")
	}
	var docs []parsed
	var err error
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		docs, err = jsons(data)
		if err != nil { // YAML may look like that too
			if other, yerr := yamls(data); yerr == nil {
				docs, err = other, nil
			}
		}
	} else {
		docs, err = yamls(data)
	}
	if err == nil && len(docs) == 0 {
		return nil, wrong("is empty")
	}
	return docs, err
}

// wrong is the only problem of a text that cannot be read.
func wrong(format string, args ...any) app.Problems {
	return app.Problems{{Text: fmt.Sprintf(format, args...)}}
}

// reader makes nodes, and counts them.
type reader struct {
	nodes, bytes int
	problems     []problem // of this document

	data          []byte // of JSON, to find lines; nil: there is only one
	counted, line int    // so far
}

// add counts a node.
func (r *reader) add(depth, size int) error {
	r.nodes++
	r.bytes += size
	switch {
	case depth > maxDepth:
		return wrong("has lists and objects in each other more than %d deep", maxDepth)
	case r.nodes > maxNodes:
		return wrong("has more than %d values, with its aliases written out", maxNodes)
	case r.bytes > maxText:
		return wrong("has more than %d bytes, with its aliases written out", maxText)
	}
	return nil
}

// problem is one that lets the reading go on.
func (r *reader) problem(line int, path, format string, args ...any) {
	if len(r.problems) < 10*maxProblems {
		r.problems = append(r.problems, problem{app.Problem{Path: path, Text: fmt.Sprintf(format, args...)}, line})
	}
}

// twice is the problem of a field that is there in two lines.
func (r *reader) twice(path string, first, line int) {
	switch {
	case line == 0:
		r.problem(line, path, "is there twice")
	case first == line:
		r.problem(line, path, "is there twice (line %d)", line)
	default:
		r.problem(line, path, "is there twice, in lines %d and %d", first, line)
	}
}

// document ends one.
func (r *reader) document(docs []parsed, root *node) ([]parsed, error) {
	docs = append(docs, parsed{root, r.problems})
	r.problems = nil
	if len(docs) > maxDocuments {
		return nil, wrong("has more than %d documents", maxDocuments)
	}
	return docs, nil
}

func yamls(data []byte) (docs []parsed, err error) {
	r := &reader{}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, wrong("is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if len(doc.Content) == 0 {
			continue
		}
		n, err := r.yaml(doc.Content[0], "", 0)
		if err != nil {
			return docs, err
		}
		if n.kind == null {
			continue
		}
		if docs, err = r.document(docs, n); err != nil {
			return docs, err
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
	default:
		return r.scalar(y, path), nil
	}
}

// mapping adds the fields of y to n, and those that it merges in, unless it has
// them itself.
func (r *reader) mapping(n *node, y *yaml.Node, path string, depth int) error {
	seen := map[string]int{} // and in which line
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		line := key.Line
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			r.problem(line, path, "has a name of a field that is a list or an object (line %d)", line)
			continue
		}
		at := below(path, segment(key.Value))
		if first, ok := seen[key.Value]; ok {
			r.twice(at, first, line)
			continue
		}
		seen[key.Value] = line
		one, err := r.yaml(value, at, depth+1)
		if err != nil {
			return err
		}
		if err := r.add(depth, len(key.Value)); err != nil {
			return err
		}
		n.fields = append(n.fields, &field{name: key.Value, line: line, value: one})
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
			r.problem(y.Line, path, "merges %s by <<; it must be an object (line %d)", source.what(), y.Line)
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

func (r *reader) scalar(y *yaml.Node, path string) *node {
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
		r.problem(y.Line, path, "has the tag %s, which has no meaning here (line %d)", strings.ToValidUTF8(brief(tag), "\uFFFD"), y.Line) // tags have escapes
	}
	return n
}

func jsons(data []byte) (docs []parsed, err error) {
	r := &reader{}
	if bytes.ContainsRune(bytes.TrimSpace(data), '\n') {
		r.data, r.line = data, 1
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	for {
		n, err := r.json(dec, "", 0)
		switch {
		case errors.Is(err, io.EOF) && n == nil:
			return docs, nil
		case err != nil:
			return docs, jsonError(err, data)
		}
		if docs, err = r.document(docs, n); err != nil {
			return docs, err
		}
	}
}

func jsonError(err error, data []byte) error {
	if problems, ok := errors.AsType[app.Problems](err); ok {
		return problems
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		return wrong("is no JSON: %s in line %d", syntax.Error(), line)
	}
	return wrong("is no JSON: it ends too early")
}

// lineOf is the line of the token that was read last.
func (r *reader) lineOf(dec *json.Decoder) int {
	if r.data != nil {
		end := int(dec.InputOffset())
		r.line += bytes.Count(r.data[r.counted:end], []byte("\n"))
		r.counted = end
	}
	return r.line
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
	n := &node{line: r.lineOf(dec)}
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
	seen := map[string]int{} // and in which line
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if err := r.add(depth, len(name)); err != nil {
			return err
		}
		at, line := below(path, segment(name)), r.lineOf(dec)
		one, err := r.json(dec, at, depth+1)
		if err != nil {
			return err
		}
		if first, twice := seen[name]; twice {
			r.twice(at, first, line)
			continue
		}
		n.fields = append(n.fields, &field{name: name, line: line, value: one})
		seen[name] = line
	}
	return nil
}
