package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const goodYAML = `
cdiVersion: "0.6.0"
kind: vendor.com/net
containerEdits:
  env: [COMMON=1]
  hooks:
    - hookName: createContainer
      path: /usr/bin/hook
      args: [hook, update]
devices:
  - name: one
    containerEdits:
      deviceNodes:
        - path: /dev/one
          fileMode: 0660
          permissions: rw
  - name: two
    containerEdits:
      env: [TWO=2]
      mounts:
        - {hostPath: /srv/two, containerPath: /two, options: [ro, nosuid]}
`

const goodJSON = `{"cdiVersion":"1.0.0","kind":"other.org/thing","devices":[{"name":"0","containerEdits":{"env":["A=b"],"additionalGids":[44]}}]}`

func TestEdits(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", goodYAML)
	write(t, dir+"/b.json", goodJSON)
	write(t, dir+"/ignored.txt", "no spec")
	s := Read([]string{dir, dir + "/none"})
	if bad := s.Trouble(); len(bad) > 0 {
		t.Fatal(bad)
	}
	e, err := s.Edits([]string{"vendor.com/net=two", "vendor.com/net=one", "vendor.com/net=two", "other.org/thing=0"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(e.Env, " "); got != "COMMON=1 TWO=2 A=b" { // what is for all comes once, and a device once
		t.Errorf("env %s", got)
	}
	if len(e.DeviceNodes) != 1 || len(e.Mounts) != 1 || len(e.Hooks) != 1 || len(e.AdditionalGIDs) != 1 {
		t.Errorf("edits %+v", e)
	}
	if n := e.DeviceNodes[0]; n.Path != "/dev/one" || *n.FileMode != 0o660 || n.Permissions != "rw" {
		t.Errorf("node %+v", n)
	}
}

func TestDirectories(t *testing.T) {
	low, high := t.TempDir(), t.TempDir()
	write(t, low+"/a.json", goodJSON)
	write(t, high+"/a.json", strings.Replace(goodJSON, "A=b", "A=high", 1))
	e, err := Read([]string{low, high}).Edits([]string{"other.org/thing=0"})
	if err != nil || e.Env[0] != "A=high" {
		t.Errorf("the last directory does not count most: %v, %v", e.Env, err)
	}
	write(t, high+"/b.json", goodJSON)
	if _, err := Read([]string{low, high}).Edits([]string{"other.org/thing=0"}); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "b.json: keep one of them") {
		t.Errorf("two that count the same: %v", err)
	}
}

// What cannot be read harms nobody but those who ask for what it may have had.
func TestBadFilesAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.json", goodJSON)
	write(t, dir+"/bad.json", "{")
	if err := os.Mkdir(dir+"/dir.yaml", 0o755); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(dir + "/big.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(big.Truncate(maxFile+1), big.Close()); err != nil {
		t.Fatal(err)
	}
	s := Read([]string{dir})
	if len(s.Trouble()) != 3 {
		t.Errorf("trouble %v", s.Trouble())
	}
	if _, err := s.Edits([]string{"other.org/thing=0"}); err != nil {
		t.Error(err)
	}
	_, err = s.Edits([]string{"other.org/thing=7"})
	if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "of that kind there are 0; ") || !strings.Contains(err.Error(), "bad.json: it is neither JSON nor YAML") {
		t.Errorf("Edits = %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	device := func(edits string) string {
		return `{"cdiVersion":"1.1.0","kind":"a.b/c","devices":[{"name":"0","containerEdits":` + edits + `}]}`
	}
	cases := map[string]struct{ text, want string }{
		"empty":            {"", "neither JSON nor YAML"},
		"no object":        {"[1]", "something else"},
		"keys":             {"{1: 2}", "something else"},
		"two documents":    {goodYAML + "---\n" + goodYAML, "more after the spec"},
		"no version":       {`{"kind":"a.b/c"}`, `cdiVersion is "<nil>"`},
		"version":          {strings.Replace(goodJSON, "1.0.0", "9.0.0", 1), `cdiVersion is "9.0.0"; it can be 0.3.0`},
		"version, number":  {strings.Replace(goodJSON, `"1.0.0"`, "0.6", 1), `cdiVersion is "0.6"`},
		"unknown field":    {strings.Replace(goodJSON, `"kind"`, `"kine"`, 1), `unknown field "kine"`},
		"unknown edit":     {device(`{"magic":true}`), `unknown field "magic"`},
		"wrong type":       {device(`{"env":"A=b"}`), "cannot unmarshal string"},
		"kind":             {strings.Replace(goodJSON, "other.org/thing", "thing", 1), `kind is "thing"`},
		"no devices":       {`{"cdiVersion":"1.0.0","kind":"a.b/c","devices":[]}`, "no devices"},
		"name":             {strings.Replace(goodJSON, `"name":"0"`, `"name":"a b"`, 1), `device name "a b"`},
		"name twice":       {`{"cdiVersion":"1.0.0","kind":"a.b/c","devices":[{"name":"0","containerEdits":{}},{"name":"0","containerEdits":{}}]}`, "there twice"},
		"env":              {device(`{"env":["=b"]}`), `"=b" is not KEY=value`},
		"node":             {device(`{"deviceNodes":[{"path":"dev/x"}]}`), "not an absolute path"},
		"null node":        {device(`{"deviceNodes":[null]}`), "a device node is empty"},
		"node type":        {device(`{"deviceNodes":[{"path":"/dev/x","type":"p"}]}`), "is not b or c"},
		"node number":      {device(`{"deviceNodes":[{"path":"/dev/x","major":-1}]}`), "negative"},
		"node permissions": {device(`{"deviceNodes":[{"path":"/dev/x","permissions":"rx"}]}`), "not of r, w and m"},
		"null mount":       {device(`{"mounts":[null]}`), "a mount is empty"},
		"mount":            {device(`{"mounts":[{"hostPath":"/x","containerPath":"/"}]}`), "not an absolute path below /"},
		"mount source":     {device(`{"mounts":[{"hostPath":"x","containerPath":"/x"}]}`), "not an absolute path"},
		"mount type":       {device(`{"mounts":[{"hostPath":"/x","containerPath":"/x","type":"proc"}]}`), "only bind is"},
		"mount option":     {device(`{"mounts":[{"hostPath":"/x","containerPath":"/x","options":["idmap"]}]}`), `option "idmap"`},
		"null hook":        {device(`{"hooks":[null]}`), "a hook is empty"},
		"hook":             {device(`{"hooks":[{"hookName":"poststop","path":"/x"}]}`), "those that are run are prestart, createRuntime, createContainer, startContainer"},
		"hook path":        {device(`{"hooks":[{"hookName":"createContainer","path":"x"}]}`), "not an absolute path"},
		"hook timeout":     {device(`{"hooks":[{"hookName":"createContainer","path":"/x","timeout":-1}]}`), "negative"},
		"rdt":              {device(`{"intelRdt":{"closID":"x"}}`), "intelRdt is not supported"},
		"net devices":      {device(`{"netDevices":[{"hostInterfaceName":"eth9","name":"eth0"}]}`), "netDevices are not supported"},
		"of all":           {`{"cdiVersion":"1.0.0","kind":"a.b/c","devices":[{"name":"0","containerEdits":{}}],"containerEdits":{"env":["x"]}}`, "not KEY=value"},
		"YAML bomb":        {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "neither JSON nor YAML"},
	}
	for name, c := range cases {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Parse = %v, want %q", name, err, c.want)
		}
	}
}

func TestQualified(t *testing.T) {
	for _, good := range []string{"nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1:2", "a/b=all", "vendor.com/class_x=a.b-c"} {
		if !Qualified(good) {
			t.Errorf("%s is a name", good)
		}
	}
	for _, bad := range []string{"", "/dev/null", "gpu=0", "a/b", "a/b=", "a/b=-", "1/b=0", "a/b/c=0", "a/b=0\n"} {
		if Qualified(bad) {
			t.Errorf("%q is no name", bad)
		}
	}
}

// What is read has passed all checks, whatever it was.
func FuzzParse(f *testing.F) {
	f.Add(goodYAML)
	f.Add(goodJSON)
	f.Add(`{"cdiVersion":"1.1.0","kind":"a.b/c","devices":[{"name":"0","containerEdits":{"deviceNodes":[null],"hooks":[null],"mounts":[null]}}]}`)
	f.Add("cdiVersion: &a 0.6.0\nkind: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]byte(text))
		if err != nil {
			return
		}
		for _, d := range s.Devices {
			if !Qualified(s.Kind + "=" + d.Name) {
				t.Errorf("device %q of %q has no name that can be asked for", d.Name, s.Kind)
			}
			for _, m := range d.ContainerEdits.Mounts {
				if !filepath.IsAbs(m.HostPath) || !filepath.IsAbs(m.ContainerPath) {
					t.Errorf("mount %+v", m)
				}
			}
		}
	})
}
