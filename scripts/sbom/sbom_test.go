package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestBill: the bill of this test, which is a program, and of one that is not
// Go's, keeps to CycloneDX's schema and has what the program says of itself.
func TestBill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "buoy-reaper")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"-version", "v1.2.3+x", "-epoch", "1700000000", "-library", "libseccomp=deb:2.5.4-1+deb12u1=sbom.test", "-library", "glibc=2.36=sbom.test,buoy-reaper", self, script}
	var out, again bytes.Buffer
	if err := run(args, &out); err != nil {
		t.Fatal(err)
	}
	if err := run(args, &again); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("the same programs give another bill, %v", err)
	}
	validate(t, out.Bytes())

	var bill struct {
		Metadata     struct{ Timestamp string }
		Components   []struct{ Name, Version, Purl string }
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &bill); err != nil || bill.Metadata.Timestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("%+v, %v", bill.Metadata, err)
	}
	urls := map[string]string{}
	for _, c := range bill.Components {
		urls[c.Name] = c.Purl
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("this test does not know what it is made of")
	}
	want := map[string]string{
		"std":        "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
		"libseccomp": "pkg:deb/debian/libseccomp@2.5.4-1%2Bdeb12u1?arch=source", "glibc": "pkg:generic/glibc@2.36",
	}
	for _, m := range info.Deps {
		want[m.Path] = "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
	}
	if len(info.Deps) == 0 || len(bill.Components) != len(want)+2 {
		t.Errorf("%d components, of %d modules", len(bill.Components), len(info.Deps))
	}
	for name, url := range want {
		if urls[name] != url {
			t.Errorf("%s is %q, want %q", name, urls[name], url)
		}
	}
	uses := map[string]string{}
	for _, d := range bill.Dependencies {
		uses[d.Ref] = strings.Join(d.DependsOn, " ")
	}
	if uses["buoy"] != "buoy-reaper sbom.test" || uses["buoy-reaper"] != want["glibc"] || !strings.Contains(uses["sbom.test"], want["libseccomp"]) {
		t.Errorf("%q", uses)
	}
	if err := run([]string{"-library", "a=1=b", script}, &out); err == nil || !strings.Contains(err.Error(), "not among the programs") {
		t.Errorf("%v", err)
	}
}

// validate holds a bill against the schemas that come with the library.
func validate(t *testing.T, bill []byte) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	for _, name := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schemax.json"} {
		f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "schema", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(doc.(map[string]any)["$id"].(string), doc); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(bill))
	if err == nil {
		err = schema.Validate(doc)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, bill)
	}
}
