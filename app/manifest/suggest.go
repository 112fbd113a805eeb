package manifest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/near"
)

// fewParts are as many fields as one reads in a sentence.
const fewParts = 8

// hint says which field of the struct at path is meant by a name that is not
// known: one of parts that is spelled nearly so, or that others call so, or
// one of another section. The one that is meant is not missing then.
func (d *decoder) hint(name string, parts []part, path string) string {
	var names []string
	for _, p := range parts {
		if name != "" && slices.Contains(strings.Split(p.tag.Get("like"), ","), name) {
			return d.mean(path, p.name)
		}
		names = append(names, p.name)
		if p.also != "" {
			names = append(names, p.also)
		}
	}
	like, off := near.Best(name, names)
	if d.whole != nil && off > 1 {
		if home := below(d.at, homeOf(name, d.whole, "")); home != d.at {
			d.meant = append(d.meant, home)
			return "; there is " + home
		}
	}
	switch {
	case like != "":
		return d.mean(path, like)
	case len(names) == 1:
		return "; there is " + names[0]
	case len(names) <= fewParts:
		return "; there are " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
	}
	return ""
}

func (d *decoder) mean(path, name string) string {
	d.meant = append(d.meant, below(path, name))
	return fmt.Sprintf("; did you mean %q?", name)
}

// homeOf is the shortest path of a field with that name below t.
func homeOf(name string, t reflect.Type, path string) (home string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			path += "[]"
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return ""
	}
	for _, p := range partsOf(t) {
		if p.named(name) {
			return below(path, name)
		}
		if other := homeOf(name, p.kind, below(path, p.name)); other != "" && (home == "" || len(other) < len(home)) {
			home = other
		}
	}
	return home
}
