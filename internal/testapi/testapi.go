// Package testapi says whether answers are as an OpenAPI 3.1 document describes
// them. Such a document's schemas are JSON Schema of draft 2020-12. Stricter than
// that, a field that is not described does not fit.
package testapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Document is an OpenAPI document. It may be used by many goroutines at once.
type Document struct {
	paths     map[string]map[string]any
	responses map[string]any // of components

	mu       sync.Mutex // guards compiler
	compiler *jsonschema.Compiler
}

const home = "openapi.json"

// Read reads a document in YAML.
func Read(file string) (*Document, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := yaml.Unmarshal(raw, &tree); err != nil {
		return nil, err
	}
	if raw, err = json.Marshal(tree); err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw)) // whose numbers a Compiler wants
	if err != nil {
		return nil, err
	}
	shut(root)
	d := &Document{compiler: jsonschema.NewCompiler(), paths: map[string]map[string]any{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(home, root); err != nil {
		return nil, err
	}
	components, _ := tree["components"].(map[string]any)
	d.responses, _ = components["responses"].(map[string]any)
	paths, ok := tree["paths"].(map[string]any)
	if !ok {
		return nil, errors.New("there are no paths")
	}
	for path, item := range paths {
		if d.paths[path], ok = item.(map[string]any); !ok {
			return nil, fmt.Errorf("path %s is no object", path)
		}
	}
	return d, nil
}

// shut has objects take no properties but those that are described.
func shut(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, open := v["additionalProperties"]; v["properties"] != nil && !open {
			v["additionalProperties"] = false
		}
		for _, x := range v {
			shut(x)
		}
	case []any:
		for _, x := range v {
			shut(x)
		}
	}
}

// Fits says why a value is not as the schema at a place of the document has it,
// such as "#/components/schemas/Node".
func (d *Document) Fits(at string, value any) error {
	d.mu.Lock()
	s, err := d.compiler.Compile(home + at)
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("the schema at %s: %w", at, err)
	}
	return s.Validate(value)
}

// Check says why an answer is not as described: its route, status, content
// type, or the JSON in it. Answers of routes that other programs have (404 and
// 405 of a path that is not described) are nobody's to describe.
func (d *Document) Check(method, path string, status int, header http.Header, body []byte) error {
	template := d.find(path, strings.ToLower(method))
	if template == "" {
		if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
			return nil
		}
		return errors.New("the route is not described")
	}
	item := d.paths[template]
	op, ok := item[strings.ToLower(method)].(map[string]any)
	if !ok {
		return nil // HEAD, as GET
	}
	at := "#/paths/" + Key(template) + "/" + strings.ToLower(method) + "/responses/" + strconv.Itoa(status)
	responses, _ := op["responses"].(map[string]any)
	answer, ok := responses[strconv.Itoa(status)].(map[string]any)
	if !ok {
		return fmt.Errorf("the status is not described: %.200s", body)
	}
	if ref, ok := answer["$ref"].(string); ok {
		at = ref
		if answer = d.follow(ref); answer == nil {
			return fmt.Errorf("%s leads nowhere", ref)
		}
	}
	contents, _ := answer["content"].(map[string]any)
	if len(body) == 0 {
		return nil
	}
	typ, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("the content type %q: %w", header.Get("Content-Type"), err)
	}
	if _, ok := contents[typ]; !ok {
		return fmt.Errorf("the content type %s is not described", typ)
	}
	if at += "/content/" + Key(typ) + "/schema"; strings.HasSuffix(typ, "json") {
		return d.fitAll(at, body)
	}
	return nil
}

// fitAll looks at each value of a body: one, or a line each.
func (d *Document) fitAll(at string, body []byte) error {
	for dec := json.NewDecoder(bytes.NewReader(body)); dec.More(); {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		if err := d.Fits(at, value); err != nil {
			return fmt.Errorf("%w, in %.500s", err, raw)
		}
	}
	return nil
}

// follow is the response that a reference leads to.
func (d *Document) follow(ref string) map[string]any {
	name, ok := strings.CutPrefix(ref, "#/components/responses/")
	if !ok {
		return nil
	}
	r, _ := d.responses[name].(map[string]any)
	return r
}

// find is the described path that a path matches; literal parts come first.
func (d *Document) find(path, method string) (best string) {
	parts := strings.Split(path, "/")
	most := -1
	for template, item := range d.paths {
		if n := matches(strings.Split(template, "/"), parts); n > most && (item[method] != nil || method == "head") {
			best, most = template, n
		}
	}
	return best
}

// matches counts the literal parts that are the same; -1: it does not match.
func matches(template, path []string) (n int) {
	if len(template) != len(path) {
		return -1
	}
	for i, part := range template {
		before, _, open := strings.Cut(part, "{")
		switch {
		case part == path[i]:
			n++
		case !open || !strings.HasPrefix(path[i], before) || path[i] == before:
			return -1
		}
	}
	return n
}

// Key is a key as a part of a JSON pointer in the fragment of a URL.
func Key(key string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
}
