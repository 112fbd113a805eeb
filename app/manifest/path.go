package manifest

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// below is the path of a field, and index that of an item of a list.
func below(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

const maxSegment = 64 // bytes of a field's name that a path shows

// segment is a name as paths have it: in quotes if it would not stand out, and not
// longer than one reads.
func segment(name string) string {
	odd := func(r rune) bool {
		return strings.ContainsRune("\"'`[]", r) || r == unicode.ReplacementChar || !unicode.IsGraphic(r) || unicode.IsSpace(r)
	}
	if len(name) > maxSegment {
		name = strings.ToValidUTF8(name[:maxSegment], "") + "…"
	}
	dots := "." + name + "." // between which there is something
	if strings.Contains(dots, "..") || strings.ContainsFunc(name, odd) {
		return strconv.Quote(name)
	}
	return name
}

// step cuts the first name or index off a path.
func step(path string) (name, rest string) {
	if inner, ok := strings.CutPrefix(path, "["); ok {
		name, rest, _ = strings.Cut(inner, "]")
	} else if quoted, err := strconv.QuotedPrefix(path); err == nil {
		name, rest = quoted, path[len(quoted):]
	} else if i := strings.IndexAny(path, ".["); i >= 0 {
		name, rest = path[:i], path[i:]
	} else {
		name = path
	}
	return name, strings.TrimPrefix(rest, ".")
}

// within says that path is outer, or leads to something in it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}

// step is what the path begins with in n, its line, and the path from there; nil: it is not
// there. Names may have dots.
func (n *node) step(path string) (next *node, line int, rest string) {
	if n.kind == list && strings.HasPrefix(path, "[") {
		name, rest := step(path)
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.items) {
			return n.items[i], n.items[i].line, rest
		}
	}
	longest := -1
	for _, f := range n.fields {
		name := f.name
		if path[0] == '"' || name == "" || len(name) > maxSegment {
			name = segment(name)
		}
		if within(path, name) && len(name) > longest {
			next, line, rest, longest = f.value, f.line, strings.TrimPrefix(path[len(name):], "."), len(name)
		}
	}
	return next, line, rest
}

// find is what path names, and its line; of what is not there, nil and the line
// of the nearest thing around it.
func (d *decoder) find(path string) (found *node, line int) {
	found, line = d.root, d.root.line
	for path != "" {
		next, at, rest := found.step(path)
		if next == nil {
			return nil, line
		}
		found, line, path = next, at, rest
	}
	return found, line
}

// node is what path names; nil: it is not there.
func (d *decoder) node(path string) *node {
	n, _ := d.find(path)
	return n
}

// spelled is a path with the names that the document has for the fields on it:
// a section may stand in spec or beside it, and a field may have two names. It
// ends at a text, whatever we have made of that.
func (d *decoder) spelled(path string) string {
	if d.form == nil {
		return path
	}
	first, _ := step(path)
	if spec := d.root.get("spec"); isSection(first) && d.root.get(first) == nil && spec != nil && spec.get(first) != nil {
		path = below("spec", path)
	}
	n, form, out := d.root, d.form, ""
	for path != "" && (n == nil || !n.scalar()) {
		listed := path[0] == '['
		name, rest := step(path)
		for form != nil && form.Kind() == reflect.Pointer {
			form = form.Elem()
		}
		var inner reflect.Type
		switch {
		case form == nil:
		case form.Kind() == reflect.Slice && listed:
			inner = form.Elem()
		case form.Kind() == reflect.Struct:
			name, inner = spelling(name, form, n)
		}
		here := name
		if listed {
			here = "[" + name + "]"
			out += here
		} else {
			out = below(out, name)
		}
		if n != nil {
			n, _, _ = n.step(here)
		}
		form, path = inner, rest
	}
	return out
}

// spelling is the name of a field that n has of its two, and what it is.
func spelling(name string, form reflect.Type, n *node) (string, reflect.Type) {
	for _, p := range partsOf(form) {
		if !p.named(name) {
			continue
		}
		for _, one := range []string{name, p.name, p.also} {
			if n != nil && one != "" && n.get(one) != nil {
				return one, p.kind
			}
		}
		return name, p.kind
	}
	return name, nil
}

func isSection(name string) bool {
	return slices.ContainsFunc(partsOf(reflect.TypeFor[sections]()), func(p part) bool { return p.name == name })
}

// called is where the document has what a Spec calls path. It is not ok if that
// is not known; then it is the whole.
func (d *decoder) called(path string) (at string, ok bool) {
	for known := path; ; known = known[:max(strings.LastIndexAny(known, ".["), 0)] {
		at, ok = d.paths[known]
		switch {
		case ok && known != "":
			rest := path[len(known):]
			if i := strings.IndexByte(rest, '.'); i >= 0 && d.form == nil { // fields have other names, or none
				rest = rest[:i]
			}
			return d.spelled(at + rest), true
		case ok:
			return at, false
		case known == "":
			return d.spelled(path), true
		}
	}
}
