// Package manifest reads what people write about apps, YAML or JSON, as
// docs/manifest.md describes it, and Compose files where they mean the same.
//
// The fields are the ones of the structs in fields.go, from which reading,
// writing and the JSON Schema all follow.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/buoy-edge/buoy/app"
)

// What is read of strangers.
const (
	maxBytes     = 1 << 20
	maxDocuments = 100
	maxDepth     = 32      // of lists and objects in each other
	maxNodes     = 100_000 // with aliases written out
	maxText      = 4 << 20 // bytes, with aliases written out
	maxProblems  = 50      // that are told
)

// App is one that a manifest describes.
type App struct {
	Spec   app.Spec
	Source json.RawMessage // as it was given, as JSON; of a Compose service: what it means as a manifest
	Notes  []string        // sentences about what is not quite as it may seem
}

// Parse reads one or several documents, and checks them. Its error is
// app.Problems: all that is wrong, in the order of lines, with paths that begin
// with the number of the document if there are several.
func Parse(data []byte) ([]App, error) {
	docs, err := read(data)
	var all []App
	var problems app.Problems
	more := 0
	names := map[string]string{} // of apps, and where they stand
	for i, doc := range docs {
		at := ""
		if len(docs) > 1 {
			at = fmt.Sprintf("documents[%d]", i)
		}
		apps, wrong, uncounted := parseOne(doc, names, at)
		all = append(all, apps...)
		problems, more = append(problems, wrong...), more+uncounted
	}
	if unread, ok := errors.AsType[app.Problems](err); ok {
		problems = append(problems, unread...)
	}
	for i := range problems {
		if problems[i].Path == "" {
			problems[i].Path = "the manifest"
		}
	}
	if len(problems) > 0 {
		return nil, bounded(problems, more)
	}
	return all, nil
}

// bounded are not more problems than a person reads, of which there are even more.
func bounded(problems app.Problems, more int) app.Problems {
	if extra := len(problems) - maxProblems; extra > 0 {
		return append(problems[:maxProblems], app.Problem{Path: "and", Text: fmt.Sprintf("%d more", extra+more)})
	}
	return problems
}

// parseOne reads a document, which all its paths begin with.
func parseOne(doc parsed, names map[string]string, at string) (apps []App, problems app.Problems, more int) {
	d := &decoder{root: doc.root, problems: doc.problems}
	switch {
	case doc.root.kind != object:
		d.problem("", "is %s; it must be an object with apiVersion, kind, metadata and spec", doc.root.what())
	case doc.root.get("services") != nil:
		apps = compose(d, doc.root)
	default:
		d.form = reflect.TypeFor[document]()
		d.whole = d.form
		apps = []App{d.manifest()}
	}
	for _, one := range apps {
		name, where := one.Spec.Name, "metadata.name"
		if d.form == nil {
			where = below("services", segment(name))
		}
		other, twice := names[name]
		if twice && name != "" {
			d.problem(where, "is %q, which %s has, too", name, other)
		}
		names[name] = at
	}
	problems = d.all()
	for i := range problems {
		problems[i].Path = below(at, problems[i].Path)
	}
	return apps, problems, d.more
}

func (d *decoder) manifest() App {
	d.paths = map[string]string{}
	var m document
	d.into(&m, d.root, "")
	d.concluding()
	one := App{Spec: m.spec(d)}
	d.check(one.Spec)
	one.Source, one.Notes = d.root.json(), d.notes
	return one
}

// check adds what the spec as such has against itself, unless more has been said
// of the same already.
func (d *decoder) check(spec app.Spec) {
	err := spec.Validate()
	if err == nil {
		return
	}
	problems, ok := errors.AsType[app.Problems](err)
	if !ok {
		d.problem("", "%v", err)
	}
	told := map[string]bool{}
	for _, p := range d.problems {
		told[p.Path] = true
	}
	for _, p := range problems {
		if d.full() {
			d.more++
			continue
		}
		path, ok := d.called(p.Path)
		switch {
		case told[path] && ok:
			continue
		case !ok:
			p.Text = "makes a manifest whose " + p.Path + " " + p.Text
		}
		var with []string
		for _, other := range p.With {
			if other, ok := d.called(other); ok {
				with = append(with, other)
			}
		}
		d.problem(path, "%s", p.Text).With = with
	}
}
