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
	"slices"
	"strings"

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
// app.Problems, whose paths begin with the number of the document if there are
// several.
func Parse(data []byte) ([]App, error) {
	docs, err := read(data)
	problems, _ := errors.AsType[app.Problems](err)
	var all []App
	for i, doc := range docs {
		apps, wrong := parseOne(doc)
		all = append(all, apps...)
		for _, p := range wrong {
			if len(docs) > 1 {
				p.Path = strings.TrimSuffix(fmt.Sprintf("documents[%d].%s", i, p.Path), ".")
			}
			problems = append(problems, p)
		}
	}
	problems = append(problems, twice(all)...)
	if extra := len(problems) - maxProblems; extra > 0 {
		problems = append(problems[:maxProblems], app.Problem{Path: "and", Text: fmt.Sprintf("%d more", extra)})
	}
	for i := range problems {
		if problems[i].Path == "" {
			problems[i].Path = "the manifest"
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return all, nil
}

// parseOne reads a document. Its problems say the line of YAML.
func parseOne(doc *node) ([]App, app.Problems) {
	d := &decoder{root: doc}
	var apps []App
	switch {
	case doc.kind != object:
		d.problem("", "is %s; it must be an object with apiVersion, kind, metadata and spec", doc.what())
	case doc.get("services") != nil:
		apps = compose(d, doc)
	default:
		apps = manifest(d, doc)
	}
	return apps, d.problems
}

func manifest(d *decoder, doc *node) []App {
	var m document
	d.into(&m, doc, "")
	one := App{}
	if len(d.problems) == 0 {
		one.Spec = m.spec(d)
	}
	if len(d.problems) == 0 {
		d.check(one.Spec)
	}
	one.Source, one.Notes = doc.json(), d.notes
	return []App{one}
}

// check adds what the spec as such has against itself.
func (d *decoder) check(spec app.Spec) {
	err := spec.Validate()
	if err == nil {
		return
	}
	problems, ok := errors.AsType[app.Problems](err)
	if !ok {
		problems = app.Problems{{Path: "", Text: err.Error()}}
	}
	for _, p := range problems {
		d.problem(d.placed(p.Path), "%s", p.Text)
	}
}

// twice finds names that several documents have.
func twice(apps []App) (problems app.Problems) {
	var names []string
	for _, a := range apps {
		if name := a.Spec.Name; name != "" && slices.Contains(names, name) {
			problems = append(problems, app.Problem{Path: "metadata.name", Text: fmt.Sprintf("is %q in two documents", name)})
		}
		names = append(names, a.Spec.Name)
	}
	return problems
}

// placed is the path of what Spec calls path, where the document has it: a
// section may stand in spec or beside it.
func (d *decoder) placed(path string) string {
	if rest, in := strings.CutPrefix(path, "spec."); in {
		if name, _ := step(rest); d.root.get(name) != nil {
			return rest
		}
		return path
	}
	name, _ := step(path)
	if spec := d.root.get("spec"); d.root.get(name) == nil && spec != nil && spec.get(name) != nil {
		return below("spec", path)
	}
	return path
}
