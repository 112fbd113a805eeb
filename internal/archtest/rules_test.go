package archtest

import (
	"strings"
	"testing"
	"testing/fstest"
)

// TestRulesBite breaks each rule in a small tree and wants one complaint.
func TestRulesBite(t *testing.T) {
	const doc = "// Package x is here.\n"
	for _, c := range []struct {
		rule string
		want string // in the complaint; empty: none
		tree map[string]string
	}{
		{"directions", "", map[string]string{"node/a.go": doc + `package node; import _ "github.com/buoy-edge/buoy/netcfg"`}},
		{"directions", "", map[string]string{"images/a.go": doc + `package images; import _ "github.com/buoy-edge/buoy/images/layer"`}},
		{"directions", "images/a.go imports netcfg", map[string]string{"images/a.go": doc + `package images; import _ "github.com/buoy-edge/buoy/netcfg"`}},
		{"directions", "api/a.go imports api/nodes", map[string]string{"api/a.go": doc + `package api; import _ "github.com/buoy-edge/buoy/api/nodes"`}},
		{"directions", "tree/new is new", map[string]string{"tree/new/a.go": doc + "package tree"}},
		{"links", "cmd/buoy-shim → container/shim", map[string]string{
			"cmd/buoy-shim/a.go":  doc + `package main; import _ "github.com/buoy-edge/buoy/container/shim"`,
			"container/shim/a.go": doc + `package shim; import _ "modernc.org/sqlite"`,
		}},
		{"cgo", "netcfg/a.go", map[string]string{"netcfg/a.go": doc + `package netcfg; import "C"`}},
		{"names", "internal/utils", map[string]string{"internal/utils/a.go": doc + "package utils"}},
		{"lengths", "container/init/init.c has 501", map[string]string{"container/init/init.c": strings.Repeat("\n", 501)}},
		{"package comments", "no package comment", map[string]string{"node/a.go": "package node"}},
		{"package comments", "a.go, b.go", map[string]string{"node/a.go": doc + "package node", "node/b.go": "// Package node is not.\npackage node"}},
		{"package comments", "", map[string]string{"node/a.go": doc + "package node", "node/b.go": doc + "package node"}},
		{"inits", "node/a.go", map[string]string{"node/a.go": doc + "package node; func init() {}"}},
		{"inits", "", map[string]string{"cmd/buoy-shim/a.go": doc + "package main; func init() {}"}},
		{"go.mod", "replace a => b", map[string]string{"go.mod": "module x\n\nreplace a => b v1.0.0\n"}},
	} {
		root := fstest.MapFS{
			"go.mod":               {Data: []byte("module x\n")},
			".cache/a.go":          {Data: []byte("not Go at all")},
			"node/testdata/bad.go": {Data: []byte("nor this")},
			"node/a_test.go":       {Data: []byte("nor a test")},
		}
		for name, src := range c.tree {
			root[name] = &fstest.MapFile{Data: []byte(src)}
		}
		src, err := load(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			if r.name != c.rule {
				continue
			}
			got := r.check(src)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("%s of %v complains %q", c.rule, c.tree, got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("%s of %v complains %q, want one with %q", c.rule, c.tree, got, c.want)
			}
		}
	}
}
