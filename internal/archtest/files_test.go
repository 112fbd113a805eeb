package archtest

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
)

// maxLines is where a file is about more than one thing. Tests are free.
const maxLines = 500

func lengths(t *tree) (complaints []string) {
	for _, name := range slices.Sorted(maps.Keys(t.lines)) {
		if n := t.lines[name]; n > maxLines {
			complaints = append(complaints, fmt.Sprintf(
				"%s has %d lines, the limit is %d: move what is about another thing to a file named for it", name, n, maxLines))
		}
	}
	return complaints
}

// namesOfNothing are words that say where code is and not what it is about.
var namesOfNothing = []string{"pkg", "util", "utils", "common", "helper", "helpers", "types", "models", "misc", "lib"}

func names(t *tree) (complaints []string) {
	for _, pkg := range slices.Sorted(maps.Keys(t.packages)) {
		if slices.Contains(namesOfNothing, path.Base(pkg)) {
			complaints = append(complaints, fmt.Sprintf("folder %s: name it for what it is about", pkg))
		}
	}
	return complaints
}

// comments wants one package comment for each package. Files for other builds
// of the same package may repeat it word for word.
func comments(t *tree) (complaints []string) {
	for _, pkg := range slices.Sorted(maps.Keys(t.packages)) {
		texts := map[string][]string{}
		for _, f := range t.packages[pkg] {
			if f.ast.Doc != nil {
				texts[f.ast.Doc.Text()] = append(texts[f.ast.Doc.Text()], path.Base(f.path))
			}
		}
		if len(texts) == 0 {
			complaints = append(complaints, fmt.Sprintf(
				"%s has no package comment: say in %s.go what the package does", pkg, path.Base(pkg)))
		}
		if len(texts) > 1 {
			complaints = append(complaints, fmt.Sprintf(
				"%s has several package comments, in %s: keep one", pkg,
				strings.Join(slices.Sorted(maps.Keys(invert(texts))), ", ")))
		}
	}
	return complaints
}

func invert(m map[string][]string) map[string]string {
	out := map[string]string{}
	for k, values := range m {
		for _, v := range values {
			out[v] = k
		}
	}
	return out
}

// inits finds functions that run before main. Only buoy-shim has one, because
// libcontainer must be first.
func inits(t *tree) (complaints []string) {
	for _, pkg := range slices.Sorted(maps.Keys(t.packages)) {
		for _, f := range t.packages[pkg] {
			for _, d := range f.ast.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if ok && fn.Recv == nil && fn.Name.Name == "init" && pkg != "cmd/buoy-shim" {
					complaints = append(complaints, fmt.Sprintf(
						"%s has an init function: make it a value, or a call in cmd/buoyd", f.path))
				}
			}
		}
	}
	return complaints
}

// modules keeps go.mod such that go install works from anywhere.
func modules(t *tree) (complaints []string) {
	for line := range strings.Lines(t.gomod) {
		if words := strings.Fields(line); len(words) > 0 && words[0] == "replace" {
			complaints = append(complaints, fmt.Sprintf(
				"go.mod says %q: take a release, or a fork under its own name", strings.TrimSpace(line)))
		}
	}
	return complaints
}
