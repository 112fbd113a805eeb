package manifest

import (
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/app"
)

// decoder puts nodes into Go values and collects what is wrong with them.
type decoder struct {
	root     *node
	form     reflect.Type // of a manifest
	whole    reflect.Type // what has all fields that there are; nil: nobody is told of others
	at       string       // and its path
	problems []problem
	notes    []string

	read  int               // problems of reading: the others are concluded of what was read
	more  int               // problems that are only counted
	meant []string          // paths of fields that were meant by names that are not known
	paths map[string]string // what a Spec calls otherwise; those of a Compose file are all there
}

// problem is one, and where it stands among the others.
type problem struct {
	app.Problem
	line int
}

// valuer is a type with several spellings. decode gets a node that is not null.
type valuer interface {
	decode(d *decoder, n *node, path string)
}

// full says that nobody reads further problems.
func (d *decoder) full() bool { return len(d.problems) >= 10*maxProblems }

// problem adds one. With is set in what it gives.
func (d *decoder) problem(path, format string, args ...any) *problem {
	if d.full() {
		d.more++
		return &problem{}
	}
	path = d.spelled(path)
	_, line := d.find(path)
	p := problem{app.Problem{Path: path, Text: fmt.Sprintf(format, args...)}, line}
	if path != "" && p.line > 0 {
		p.Text += fmt.Sprintf(" (line %d)", p.line)
	}
	d.problems = append(d.problems, p)
	return &d.problems[len(d.problems)-1]
}

func (d *decoder) note(path, text string) { d.notes = append(d.notes, path+" "+text) }

// concluding ends the reading: from here on, problems may come of other problems.
func (d *decoder) concluding() { d.read = len(d.problems) }

// all are the problems in the order of lines, each once, without those that come
// of what could not be read.
func (d *decoder) all() (all app.Problems) {
	var unread []string
	for _, path := range d.meant {
		unread = append(unread, d.spelled(path))
	}
	for _, p := range d.problems[:d.read] {
		unread = append(unread, p.Path)
	}
	doubtful := func(p problem) bool {
		return slices.ContainsFunc(unread, func(path string) bool {
			return within(p.Path, path) || slices.ContainsFunc(p.With, func(with string) bool { return within(with, path) || within(path, with) })
		})
	}
	kept := slices.Concat(d.problems[:d.read], slices.DeleteFunc(slices.Clone(d.problems[d.read:]), doubtful))
	slices.SortStableFunc(kept, func(a, b problem) int { return a.line - b.line })
	for _, p := range kept {
		if !slices.ContainsFunc(all, func(q app.Problem) bool { return q.Path == p.Path && q.Text == p.Text }) {
			all = append(all, p.Problem)
		}
	}
	return all
}

// mismatch says that a node is of the wrong kind.
func (d *decoder) mismatch(n *node, path, want string) {
	unquoted := n.kind == text && (jsonNumber.MatchString(n.text) || n.text == "true" || n.text == "false")
	switch {
	case n.kind != text && n.scalar() && want == wantText:
		want += ", in quotes"
	case unquoted && (want == wantWhole || want == wantNumber || want == wantBool):
		want += ", without quotes"
	}
	d.problem(path, "is %s; it must be %s", n.what(), want)
}

const (
	wantText   = "text"
	wantBool   = "true or false"
	wantWhole  = "a whole number"
	wantNumber = "a number"
)

// into reads n into what v points to. What is null is as if it were not there.
func (d *decoder) into(v any, n *node, path string) {
	if n != nil && n.kind != null {
		d.value(reflect.ValueOf(v).Elem(), n, path, "")
	}
}

func (d *decoder) value(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	if special, ok := reflect.TypeAssert[valuer](v.Addr()); ok {
		before := len(d.problems)
		special.decode(d, n, path)
		if _, ok := reflect.TypeAssert[measured](v); ok && len(d.problems) == before {
			b := boundsOf(v.Type(), tag)
			d.bounded(big.NewRat(v.Int(), b.unit), n, path, b)
		}
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
			d.mismatch(n, path, wantBool)
			return
		}
		v.SetBool(n.text == "true")
	case reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint64, reflect.Float64:
		d.number(v, n, path, tag)
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
		d.mismatch(n, path, wantText)
		return
	}
	value := n.text
	if words := choices(tag); words != nil {
		i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, value) })
		if i < 0 {
			d.problem(path, "is %q; it must be %s", brief(value), oneOf(words))
			return
		}
		value = words[i]
	}
	if pattern := tag.Get("pattern"); pattern != "" && !regexp.MustCompile(pattern).MatchString(value) {
		form := tag.Get("form")
		if form == "" {
			form = "of the form " + pattern
		}
		d.problem(path, "is %q; it must be %s", brief(value), form)
		return
	}
	v.SetString(value)
}

// brief is a text of a stranger, as much as one wants to see of it.
func brief(text string) string {
	if len(text) > 100 {
		return strings.ToValidUTF8(text[:100], "") + "…"
	}
	return text
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

func (d *decoder) number(v reflect.Value, n *node, path string, tag reflect.StructTag) {
	want := wantWhole
	if v.Kind() == reflect.Float64 {
		want = wantNumber
	}
	r := n.rat()
	switch {
	case r == nil, want == wantWhole && !r.IsInt():
		d.mismatch(n, path, want)
	case !d.bounded(r, n, path, boundsOf(v.Type(), tag)):
	case v.CanUint():
		v.SetUint(r.Num().Uint64())
	case v.CanInt():
		v.SetInt(r.Num().Int64())
	default:
		f, _ := r.Float64()
		v.SetFloat(f)
	}
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
			d.problem(below(path, segment(f.name)), "has no value")
			continue
		}
		d.value(one, f.value, below(path, segment(f.name)), "")
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
		if f.Anonymous || name == "" || name == "-" {
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
		at := below(path, segment(f.name))
		i := slices.IndexFunc(parts, func(p part) bool { return p.named(f.name) })
		switch {
		case i < 0 && d.full():
			d.more++
			continue
		case i < 0:
			d.problem(at, "is not known here%s", d.hint(f.name, parts, path))
			continue
		case f.value.kind == null:
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
		at := below(path, p.name)
		if _, ok := given[p.name]; p.tag.Get("need") != "" && !ok && !slices.Contains(d.meant, at) {
			d.problem(at, "is missing: %s", p.tag.Get("need"))
		}
	}
}
