package manifest

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/app"
)

// decoder puts nodes into Go values and collects what is wrong with them.
type decoder struct {
	root     *node
	problems app.Problems
	notes    []string
	foreign  bool // what is read is no manifest
}

// valuer is a type with several spellings. decode gets a node that is not null.
type valuer interface {
	decode(d *decoder, n *node, path string)
}

func (d *decoder) problem(path, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if line := d.root.lineOf(path); path != "" && line > 0 {
		text += fmt.Sprintf(" (line %d)", line)
	}
	d.problems = append(d.problems, app.Problem{Path: path, Text: text})
}

func (d *decoder) note(path, text string) { d.notes = append(d.notes, path+" "+text) }

// mismatch says that a node is of the wrong kind.
func (d *decoder) mismatch(n *node, path, want string) {
	d.problem(path, "is %s; it must be %s", n.what(), want)
}

// into reads n into what v points to. What is null is as if it were not there.
func (d *decoder) into(v any, n *node, path string) {
	if n != nil && n.kind != null {
		d.value(reflect.ValueOf(v).Elem(), n, path, "")
	}
}

func (d *decoder) value(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	if special, ok := reflect.TypeAssert[valuer](v.Addr()); ok {
		special.decode(d, n, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(v.Elem(), n, path, tag)
	case reflect.String:
		d.text(v, n, path, tag)
	case reflect.Bool:
		if n.kind != boolean {
			d.mismatch(n, path, "true or false")
			return
		}
		v.SetBool(n.text == "true")
	case reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint64:
		d.whole(v, n, path, tag)
	case reflect.Float64:
		d.fraction(v, n, path, tag)
	case reflect.Slice:
		d.slice(v, n, path, tag)
	case reflect.Map:
		d.dict(v, n, path)
	case reflect.Struct:
		d.fields(v, n, path)
	default:
		panic("BUG: a manifest with a " + v.Type().String())
	}
}

func (d *decoder) text(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	if n.kind != text {
		d.mismatch(n, path, "text")
		return
	}
	value := n.text
	if words := choices(tag); words != nil {
		i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, value) })
		if i < 0 {
			d.problem(path, "is %q; it must be %s", value, oneOf(words))
			return
		}
		value = words[i]
	}
	if pattern := tag.Get("pattern"); pattern != "" && !regexp.MustCompile(pattern).MatchString(value) {
		d.problem(path, "is %q, which is not of the form %s", value, pattern)
		return
	}
	v.SetString(value)
}

// choices are the words that a field may have; nil: any.
func choices(tag reflect.StructTag) []string {
	if words := tag.Get("oneof"); words != "" {
		return strings.Split(words, ",")
	}
	return nil
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func (d *decoder) whole(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	if n.kind != number || strings.ContainsAny(n.text, ".eE") {
		d.mismatch(n, path, "a whole number")
		return
	}
	least, most := bounds(v.Kind(), tag)
	switch v.Kind() {
	case reflect.Uint16, reflect.Uint64:
		i, err := strconv.ParseUint(n.text, 10, 64)
		if err != nil || float64(i) < least || float64(i) > most || v.OverflowUint(i) {
			d.problem(path, "is %s; it must be %s", n.text, between(least, most))
			return
		}
		v.SetUint(i)
	default:
		i, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil || float64(i) < least || float64(i) > most {
			d.problem(path, "is %s; it must be %s", n.text, between(least, most))
			return
		}
		v.SetInt(i)
	}
}

func (d *decoder) fraction(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	if n.kind != number {
		d.mismatch(n, path, "a number")
		return
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if least, most := bounds(v.Kind(), tag); err != nil || f < least || f > most {
		d.problem(path, "is %s; it must be %s", n.text, between(least, most))
		return
	}
	v.SetFloat(f)
}

// bounds of a number: those of its tag, or of its type.
func bounds(kind reflect.Kind, tag reflect.StructTag) (least, most float64) {
	least, most = -1e15, 1e15 // float64 has these exactly
	switch kind {
	case reflect.Uint16:
		least, most = 0, 65535
	case reflect.Uint64:
		least, most = 0, 1<<64
	default:
	}
	if text := tag.Get("min"); text != "" {
		least = mustFloat(text)
	}
	if text := tag.Get("max"); text != "" {
		most = mustFloat(text)
	}
	return least, most
}

func mustFloat(text string) float64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic("BUG: a bound that is no number: " + text)
	}
	return f
}

func between(least, most float64) string {
	l, m := strconv.FormatFloat(least, 'f', -1, 64), strconv.FormatFloat(most, 'f', -1, 64)
	if most >= 1e15 {
		return "at least " + l
	}
	return l + " to " + m
}

func (d *decoder) slice(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	if n.kind != list {
		d.mismatch(n, path, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		if item.kind == null {
			d.problem(index(path, i), "is empty")
			continue
		}
		d.value(v.Index(i), item, index(path, i), tag)
	}
}

func (d *decoder) dict(v reflect.Value, n *node, path string) {
	if n.kind != object {
		d.mismatch(n, path, "an object")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, f := range n.fields {
		one := reflect.New(v.Type().Elem()).Elem()
		if f.value.kind == null {
			d.problem(below(path, f.name), "has no value")
			continue
		}
		d.value(one, f.value, below(path, f.name), "")
		v.SetMapIndex(reflect.ValueOf(f.name), one)
	}
}

// part is a field of a struct: its two names, and where it is.
type part struct {
	name, also string
	at         []int
	kind       reflect.Type
	tag        reflect.StructTag
}

// partsOf lists the fields of a struct, with those of structs that it embeds.
func partsOf(t reflect.Type) []part {
	var parts []part
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" {
			continue
		}
		parts = append(parts, part{name: name, also: f.Tag.Get("also"), at: f.Index, kind: f.Type, tag: f.Tag})
	}
	return parts
}

func (p part) named(name string) bool { return name == p.name || name == p.also && name != "" }

func (d *decoder) fields(v reflect.Value, n *node, path string) {
	if n.kind != object {
		d.mismatch(n, path, "an object")
		return
	}
	parts := partsOf(v.Type())
	given := map[string]string{} // by name, the spelling
	for _, f := range n.fields {
		at := below(path, f.name)
		i := slices.IndexFunc(parts, func(p part) bool { return p.named(f.name) })
		if i < 0 {
			d.problem(at, "is not known here%s", hint(f.name, parts, d.foreign))
			continue
		}
		if f.value.kind == null {
			continue
		}
		if other, ok := given[parts[i].name]; ok {
			d.problem(at, "says the same as %s: keep one of them", below(path, other))
			continue
		}
		given[parts[i].name] = f.name
		d.value(v.FieldByIndex(parts[i].at), f.value, at, parts[i].tag)
	}
	for _, p := range parts {
		if _, ok := given[p.name]; p.tag.Get("need") != "" && !ok {
			d.problem(below(path, p.name), "is missing: %s", p.tag.Get("need"))
		}
	}
}
