package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/internal/version"
)

// The reference at /docs is one page without scripts: 40 KB over the wire, a tenth
// of what renders it in the browser needs, since it is read over bad links and
// where there is no internet. It is made of openapi.yaml when somebody asks.

// docs is the API's document in the order in which it is written.
type docs struct {
	Version string
	Info    struct{ Title, Summary, Description string }
	Tags    []struct{ Name, Description string }
	Paths   ordered[map[string]yaml.Node]

	Components struct {
		Parameters    map[string]parameter
		RequestBodies map[string]body `yaml:"requestBodies"`
		Responses     map[string]body
		Headers       map[string]parameter
		Schemas       map[string]schema
	}
}

// ordered are the entries of an object, in order.
type ordered[T any] []entry[T]

type entry[T any] struct {
	Key   string
	Value T
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (o *ordered[T]) UnmarshalYAML(n *yaml.Node) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := entry[T]{Key: n.Content[i].Value}
		if err := n.Content[i+1].Decode(&e.Value); err != nil {
			return err
		}
		*o = append(*o, e)
	}
	return nil
}

// operation is one method of one path.
type operation struct {
	Method, Path         string
	OperationID          string `yaml:"operationId"`
	Tags                 []string
	Summary, Description string
	Parameters           []parameter
	RequestBody          *body `yaml:"requestBody"`
	Responses            map[string]body
}

type parameter struct {
	Ref               string `yaml:"$ref"`
	Name, In          string
	Required          bool
	Description       string
	Schema            schema
	Example, Examples any
}

// body is that of a request or of an answer.
type body struct {
	Ref         string `yaml:"$ref"`
	Description string
	Required    bool
	Headers     map[string]parameter
	Content     map[string]struct {
		Schema  schema
		Example any
	}
}

type schema struct {
	Ref                  string `yaml:"$ref"`
	Type                 any
	Format, Description  string
	Enum, OneOf          []yaml.Node
	Const, Default       any
	Pattern              string
	Minimum, Maximum     *float64
	Required             []string
	Properties           ordered[schema]
	Items                *schema
	AdditionalProperties yaml.Node `yaml:"additionalProperties"`
}

// group are the operations of one tag.
type group struct {
	name, description string
	operations        []operation
}

// readDocs reads the document.
func readDocs() (*docs, error) {
	d := &docs{Version: version.Version}
	return d, yaml.Unmarshal(openapi, d)
}

// groups are all operations, by their first tag.
func (d *docs) groups() ([]group, error) {
	all := map[string][]operation{}
	for _, path := range d.Paths {
		var shared []parameter
		if n, ok := path.Value["parameters"]; ok {
			if err := n.Decode(&shared); err != nil {
				return nil, err
			}
		}
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			n, ok := path.Value[method]
			if !ok {
				continue
			}
			op := operation{Method: strings.ToUpper(method), Path: path.Key}
			if err := n.Decode(&op); err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path.Key, err)
			}
			op.Parameters = append(slices.Clip(shared), op.Parameters...)
			for i, p := range op.Parameters {
				if p.Ref != "" {
					op.Parameters[i] = d.Components.Parameters[last(p.Ref)]
				}
			}
			if b := op.RequestBody; b != nil && b.Ref != "" {
				known := d.Components.RequestBodies[last(b.Ref)]
				op.RequestBody = &known
			}
			for status, b := range op.Responses {
				if b.Ref != "" {
					op.Responses[status] = d.Components.Responses[last(b.Ref)]
				}
			}
			all[op.Tags[0]] = append(all[op.Tags[0]], op)
		}
	}
	groups := make([]group, 0, len(d.Tags))
	for _, tag := range d.Tags {
		groups = append(groups, group{tag.Name, tag.Description, all[tag.Name]})
	}
	return groups, nil
}

// last is what a reference ends in: the name of what it leads to.
func last(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// link is the name of the schema that s refers to, or that it is a list or a map of.
func (s schema) link() string {
	switch {
	case s.Ref != "":
		return last(s.Ref)
	case s.Items != nil:
		return s.Items.link()
	case s.AdditionalProperties.Kind == yaml.MappingNode:
		return s.values().link()
	}
	return ""
}

func (s schema) values() (v schema) {
	if s.AdditionalProperties.Decode(&v) != nil {
		return schema{}
	}
	return v
}

// kind says in words what a value is.
func (s schema) kind() string {
	typ := fmt.Sprint(s.Type)
	if list, ok := s.Type.([]any); ok {
		typ = strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", " or "), "[]")
	}
	switch {
	case s.Ref != "":
		return last(s.Ref)
	case s.Items != nil:
		return "list of " + s.Items.kind()
	case s.AdditionalProperties.Kind == yaml.MappingNode:
		return "map to " + s.values().kind()
	case len(s.OneOf) > 0:
		var kinds []string
		for i := range s.OneOf {
			var one schema
			if s.OneOf[i].Decode(&one) == nil {
				kinds = append(kinds, one.kind())
			}
		}
		return strings.Join(kinds, " or ")
	case s.Const != nil:
		return fmt.Sprint("always ", s.Const)
	case len(s.Enum) > 0:
		var values []string
		for _, n := range s.Enum {
			values = append(values, n.Value)
		}
		return "one of " + strings.Join(values, ", ")
	case s.Type == nil:
		return "anything"
	case s.Format != "":
		return typ + ", " + s.Format
	}
	return typ
}

// limits says what else a value has to keep to.
func (s schema) limits() string {
	var l []string
	if s.Minimum != nil {
		l = append(l, fmt.Sprintf("at least %g", *s.Minimum))
	}
	if s.Maximum != nil {
		l = append(l, fmt.Sprintf("at most %g", *s.Maximum))
	}
	if s.Pattern != "" {
		l = append(l, "as "+s.Pattern)
	}
	if s.Default != nil {
		l = append(l, fmt.Sprintf("default %v", s.Default))
	}
	return strings.Join(l, "; ")
}

func (d *Dialect) docs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	d.document(w, r, "text/html; charset=utf-8", func() ([]byte, error) {
		text, err := render()
		return []byte(text), err
	})
}

func (d *Dialect) openapiJSON(w http.ResponseWriter, r *http.Request) {
	d.document(w, r, "application/json", func() ([]byte, error) {
		var tree map[string]any
		if err := yaml.Unmarshal(openapi, &tree); err != nil {
			return nil, err
		}
		return json.Marshal(tree)
	})
}

// Anybody may ask for documents, each of which takes some MB and 80 ms to make, and
// may be slow to read it: so many are made and read at a time, each for so long.
const (
	maxDocuments = 4
	documentTime = 30 * time.Second
)

// document answers with what is the same until another version runs.
func (d *Dialect) document(w http.ResponseWriter, r *http.Request, typ string, text func() ([]byte, error)) {
	etag := fmt.Sprintf("%q", version.Version+"-"+d.start.UTC().Format("20060102150405"))
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	select {
	case d.documents <- struct{}{}:
		defer func() { <-d.documents }()
	case <-r.Context().Done():
		return
	}
	raw, err := text()
	if err != nil {
		panic(fmt.Sprintf("BUG: openapi.yaml: %v", err)) // it is ours, and a test has read it
	}
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(documentTime)) // writers of tests cannot
	defer func() {
		if rc.Flush() == nil { // else the connection is of no use any more
			_ = rc.SetWriteDeadline(time.Time{})
		}
	}()
	w.Header().Set("Content-Type", typ)
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(raw) // fails when the client has gone
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write(raw)
	_ = z.Close()
}
