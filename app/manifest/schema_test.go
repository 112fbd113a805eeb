package manifest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/app/manifest"
)

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(manifest.Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("manifest.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("manifest.json")
})

// check is what the schema says of a document, YAML or JSON.
func check(t *testing.T, text string) error {
	t.Helper()
	s, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(again)); err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// valid: what Parse takes the schema takes, too.
func valid(t *testing.T, text string) {
	t.Helper()
	if err := check(t, text); err != nil {
		t.Errorf("%v, of %s", err, text)
	}
}

// TestSchemaRefuses: and what it does not, mostly.
func TestSchemaRefuses(t *testing.T) {
	for _, text := range []string{
		"apiVersion: v1\n",
		web("  imag: a\n"),
		web("  replicas: x\n"),
		web("  replicas: -1\n"),
		web("  type: quic\n"),
		web("  ports: [{containerPort: 70000}]\n"),
		web("  ports: [{}]\n"),
		web("  resources: {cpu: many}\n"),
		web("  resources: {memory: many}\n"),
		web("  termination: {drainSeconds: soon}\n"),
		web("  placement: {constraints: [zone]}\n"),
		web("  volumes: [{name: a, mountPath: /a, configMap: {name: b}}]\n"),
		strings.Replace(web(""), "  image: nginx:1\n", "  replicas: 1\n", 1),
		strings.Replace(web(""), "{name: web}", "{name: -web}", 1),
	} {
		if check(t, text) == nil {
			t.Errorf("the schema takes %s", text)
		}
		if _, err := manifest.Parse([]byte(text)); err == nil {
			t.Errorf("Parse takes %s", text)
		}
	}
}

// TestSchemaIsComplete: every field is explained.
func TestSchemaIsComplete(t *testing.T) {
	var s map[string]any
	if err := json.Unmarshal(manifest.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	if s["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Error(s["$schema"])
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case []any:
			for _, one := range v {
				walk(path, one)
			}
		case map[string]any:
			properties, _ := v["properties"].(map[string]any)
			for name, one := range properties {
				doc, _ := one.(map[string]any)["description"].(string)
				foreign := strings.HasPrefix(path, "/spec/nics/config/") || strings.HasSuffix(path, "/hostPath")
				if doc == "" && !foreign {
					t.Errorf("%s/%s has no description", path, name)
				}
				walk(path+"/"+name, one)
			}
			for _, key := range []string{"items", "anyOf", "additionalProperties"} {
				walk(path, v[key])
			}
		}
	}
	walk("", s)
}

// TestDocs: what docs/manifest.md shows is true, and it leaves no field out.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for i, part := range strings.Split(string(text), "```") {
		if example, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			examples++
			for _, a := range parsed(t, example) {
				again(t, a)
			}
		}
	}
	if examples < 5 {
		t.Errorf("%d examples", examples)
	}
	var s map[string]any
	if err := json.Unmarshal(manifest.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	for name := range fieldNames(s) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/manifest.md does not explain %s", name)
		}
	}
}

func parsed(t *testing.T, text string) []manifest.App {
	t.Helper()
	apps, err := manifest.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v, in:\n%s", err, text)
	}
	return apps
}

// TestExamples reads examples/apps.
func TestExamples(t *testing.T) {
	for _, name := range []string{"web.yaml", "cron.yaml"} {
		text, err := os.ReadFile("../../examples/apps/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range parsed(t, string(text)) {
			again(t, a)
		}
		for part := range strings.SplitSeq(string(text), "\n---\n") {
			valid(t, part)
		}
	}
}

func fieldNames(v any) map[string]bool {
	names := map[string]bool{}
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			for name := range fieldNames(one) {
				names[name] = true
			}
		}
	case map[string]any:
		properties, _ := v["properties"].(map[string]any)
		for name := range properties {
			names[name] = true
		}
		for _, one := range v {
			for name := range fieldNames(one) {
				names[name] = true
			}
		}
	}
	return names
}
