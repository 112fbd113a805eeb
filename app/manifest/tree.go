package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// kind is what a node is.
type kind int

const (
	null kind = iota
	boolean
	number
	text
	list
	object
)

// node is a value of a document, YAML or JSON.
type node struct {
	kind   kind
	text   string   // of a scalar: "true", a number as JSON has it, or the text
	line   int      // from 1; 0: not known
	items  []*node  // of a list
	fields []*field // of an object
}

type field struct {
	name  string
	line  int
	value *node
}

// get is a field's value; nil: it is not there, or null.
func (n *node) get(name string) *node {
	for _, f := range n.fields {
		if f.name == name && f.value.kind != null {
			return f.value
		}
	}
	return nil
}

// what is the kind in words, for sentences like "is text".
func (n *node) what() string {
	switch n.kind {
	case null:
		return "empty"
	case boolean:
		return n.text
	case number:
		return "the number " + n.text
	case text:
		if len(n.text) > 40 {
			return fmt.Sprintf("the text %.40q…", n.text)
		}
		return fmt.Sprintf("the text %q", n.text)
	case list:
		return "a list"
	default:
		return "an object"
	}
}

// scalar says that the node is text, a number, true or false.
func (n *node) scalar() bool { return n.kind == text || n.kind == number || n.kind == boolean }

// json writes the node.
func (n *node) json() json.RawMessage {
	var b bytes.Buffer
	n.write(&b)
	return b.Bytes()
}

func (n *node) write(b *bytes.Buffer) {
	switch n.kind {
	case null:
		b.WriteString("null")
	case boolean, number:
		b.WriteString(n.text)
	case text:
		b.Write(quote(n.text))
	case list:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.write(b)
		}
		b.WriteByte(']')
	default:
		b.WriteByte('{')
		for i, f := range n.fields {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(quote(f.name))
			b.WriteByte(':')
			f.value.write(b)
		}
		b.WriteByte('}')
	}
}

func quote(text string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		panic("BUG: text that is no JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
