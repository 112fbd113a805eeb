// Package archtest keeps house rules that a compiler does not know: which
// packages may import which, what each program links, and how files look.
// ARCHITECTURE.md draws the same picture for people; change both together.
//
// It reads the source itself rather than running go list, so that go test's
// cache notices a change, and so that it sees files of every platform.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/buoy-edge/buoy"

// A rule complains about a tree. Each complaint says what to do.
type rule struct {
	name  string
	check func(*tree) []string
}

var rules = []rule{
	{"directions", directions},
	{"links", links},
	{"cgo", cgo},
	{"names", names},
	{"lengths", lengths},
	{"package comments", comments},
	{"inits", inits},
	{"go.mod", modules},
}

func TestHouseRules(t *testing.T) {
	src, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, complaint := range r.check(src) {
				t.Error(complaint)
			}
		})
	}
}

// tree is the source of the whole module. Packages go by their folder.
type tree struct {
	packages map[string][]file // without tests
	lines    map[string]int    // of each Go and C file but tests
	gomod    string
}

type file struct {
	path    string
	ast     *ast.File
	imports []string
}

// load reads every source file but tests, and nothing that is built,
// downloaded or meant as a test's input.
func load(root fs.FS) (*tree, error) {
	t := &tree{packages: map[string][]file{}, lines: map[string]int{}}
	gomod, err := fs.ReadFile(root, "go.mod")
	if err != nil {
		return nil, err
	}
	t.gomod = string(gomod)
	return t, fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		base := path.Base(name)
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			if base == "testdata" || name == "bin" || base == "node_modules" || strings.HasPrefix(base, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(base, "_test.go") || !slices.Contains([]string{".go", ".c", ".h"}, path.Ext(base)) {
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		t.lines[name] = strings.Count(string(src), "\n")
		if path.Ext(base) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		in := file{path: name, ast: f}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			in.imports = append(in.imports, imported)
		}
		pkg := path.Dir(name)
		t.packages[pkg] = append(t.packages[pkg], in)
		return nil
	})
}

// within reports whether pkg is meant by pattern: itself, or with "/..." at
// the end, itself and all below it. "..." alone means every package.
func within(pkg, pattern string) bool {
	if pattern == "..." {
		return true
	}
	top, all := strings.CutSuffix(pattern, "/...")
	return pkg == top || all && strings.HasPrefix(pkg, top+"/")
}

// ours cuts the module's name off an import path.
func ours(imported string) (pkg string, ok bool) {
	return strings.CutPrefix(imported, module+"/")
}
