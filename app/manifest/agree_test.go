package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/buoy-edge/buoy/app"
)

// odd are values that fields are tried with: right for one, wrong for others.
var odd = []string{
	`null`, `true`, `false`, `0`, `-0`, `-1`, `-1.0`, `1`, `1.0`, `1e0`, `1e3`, `1.5`, `0.05`, `0.0001`, `1001`, `65535`, `65536`, `86401`, `31536000`, `31536001`, `1e12`, `1e15`, `-1e15`, `1e16`, `2e15`,
	`18446744073709551615`, `18446744073709551616`, `1e999`, `1e99`,
	`""`, `" "`, `"x"`, `"X y"`, `"-x"`, `"x-"`, `"/"`, `"/x"`, `"x/y"`, `"="`, `"a=b"`, `"\u0000"`, `"1"`, `"0"`, `"-1"`, `"-1s"`, `"1s"`, `"1m30s"`, `"00"`, `"1.5h"`, `"1.s"`, `"s"`, `"1 s"`, `"5µs"`, `"forever"`, `"Forever"`,
	`"64Mi"`, `"64 MiB"`, `"64  M"`, `"5i"`, `"1.5G"`, `".5g"`, `"1."`, `"100m"`, `"0.5m"`, `"m"`, `"."`, `"1e3"`, `"inf"`, `"NaN"`,
	`"true"`, `"always"`, `"ALWAYS"`, `"OnFailure:3"`, `"onfailure:"`, `"on-failure:1234567"`, `"UnlessStopped"`, `"no"`, `"Http"`, `"tcp"`, `"APP"`, `"Worker"`, `"v1"`, `"V1"`, `"not in"`, `"Not Exists"`, `"SPREAD"`, `"Memory"`,
	`"/dev/a:/dev/b:rw"`, `"/dev/a:rw"`, `"/dev/a:b"`, `"/dev/a:/b:x"`, `"/dev/a:"`, `"dev"`, `"rwm"`, `"rx"`,
	`"arch == a"`, `"arch ="`, `"arch =="`, `"arch in (a, 'b,c')"`, `"arch in (a"`, `"arch in a"`, `"arch in ()"`, `"arch exists"`, `"arch exists now"`, `"arch ~ \"a\\\\\""`, `"arch ~ \"a"`, `"arch not  in (a)"`, `"  x.y/z!='' "`,
	`"` + strings.Repeat("a", 53) + `"`, `"` + strings.Repeat("a", 54) + `"`, `"` + strings.Repeat("a", 64) + `"`, `"a\nb"`, `"/\n"`, `"ü"`,
	`[]`, `[null]`, `["x"]`, `["/x"]`, `[1]`, `[true]`, `[[]]`, `[{}]`, `[200]`, `[199]`, `[200.0]`, `[{"name":"A"}]`, `[{"name":"A","value":null}]`,
	`{}`, `{"x":"y"}`, `{"x":1}`, `{"x":null}`, `{"x":{}}`, `{"":"y"}`, `{"a=b":"y"}`, `{"path":"/x"}`, `{"path":"x"}`, `{"path":null}`, `{"size":1}`, `{"size":1,"sizeLimit":null}`, `{"size":null,"sizeLimit":1}`, `{"size":1,"sizeLimit":1}`,
	`{"medium":"memory"}`, `{"medium":""}`, `{"attribute":"a"}`, `{"attribute":"a","op":"IN"}`,
}

// amountOfText is what is said of a text like "0s" or "99999h".
var amountOfText = regexp.MustCompile(`^is ".*"; it must be [-0-9.]+ to [0-9]+ [a-zA-Z]+$`)

// inner are the structs that types with several spellings read.
var inner = map[reflect.Type]reflect.Type{
	reflect.TypeFor[envList]():    reflect.TypeFor[[]envVar](),
	reflect.TypeFor[memory]():     reflect.TypeFor[memoryFields](),
	reflect.TypeFor[hostPath]():   reflect.TypeFor[hostPathFields](),
	reflect.TypeFor[device]():     reflect.TypeFor[deviceFields](),
	reflect.TypeFor[constraint](): reflect.TypeFor[constraintFields](),
}

// sample is a value that is right.
func sample(t reflect.Type, tag reflect.StructTag) any {
	if other, ok := inner[t]; ok {
		t = other
	}
	switch t {
	case reflect.TypeFor[words]():
		return []any{"a"}
	case reflect.TypeFor[restartPolicy]():
		return "Always"
	case reflect.TypeFor[portRef]():
		return 80
	}
	switch t.Kind() {
	case reflect.Pointer:
		return sample(t.Elem(), tag)
	case reflect.String:
		if of := choices(tag); of != nil {
			return of[0]
		}
		if strings.Contains(tag.Get("pattern"), "/") {
			return "/a"
		}
		return "r"
	case reflect.Bool:
		return true
	case reflect.Slice:
		return []any{sample(t.Elem(), tag)}
	case reflect.Map:
		return map[string]any{"a": sample(t.Elem(), "")}
	case reflect.Struct:
		return required(t)
	default:
		return json.Number(max(boundsOf(t, tag).least, "1"))
	}
}

// required is an object of what must be there.
func required(t reflect.Type) map[string]any {
	out := map[string]any{}
	for _, p := range partsOf(t) {
		if p.tag.Get("need") != "" {
			out[p.name] = sample(p.kind, p.tag)
		}
	}
	return out
}

// plain says that values of a type differ by their kind alone.
func plain(t reflect.Type, tag reflect.StructTag) bool {
	_, special := reflect.TypeAssert[valuer](reflect.New(t))
	switch t.Kind() {
	case reflect.Bool, reflect.Slice, reflect.Map, reflect.Struct, reflect.Pointer:
		return !special
	case reflect.String:
		return !special && choices(tag) == nil && tag.Get("pattern") == ""
	default:
		return false
	}
}

// sentences checks how problems are told: each with a path and a line.
func sentences(t *testing.T, text string) {
	t.Helper()
	_, err := Parse([]byte(text))
	if err == nil {
		return
	}
	problems, ok := errors.AsType[app.Problems](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	for _, p := range problems {
		said := p.Path + " " + p.Text
		lined := strings.HasSuffix(p.Text, ")") && strings.Contains(p.Text, "(line ") || strings.Contains(p.Text, "in lines ")
		if !lined || len(said) > 500 || strings.Contains(said, "%!") || strings.Contains(said, "makes a manifest") {
			t.Errorf("%s\nof %s", said, text)
		}
	}
}

// TestEveryComposeField: whatever is in a field of a service, what is wrong with it
// is told with the path and the line that it has.
func TestEveryComposeField(t *testing.T) {
	var fields func(of reflect.Type, within func(any) any)
	try := func(within func(any) any) {
		for _, text := range odd {
			service := map[string]any{"image": "a"}
			maps.Copy(service, within(json.RawMessage(text)).(map[string]any))
			doc, err := json.MarshalIndent(map[string]any{"services": map[string]any{"web": service}}, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			sentences(t, string(doc))
		}
	}
	fields = func(of reflect.Type, within func(any) any) {
		for _, p := range partsOf(of) {
			in := func(v any) any { return within(map[string]any{p.name: v}) }
			try(in)
			kind := p.kind
			for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
				if kind.Kind() == reflect.Slice {
					outer := in
					in = func(v any) any { return outer([]any{v}) }
					try(in)
				}
				kind = kind.Elem()
			}
			if kind.Kind() == reflect.Struct {
				fields(kind, in)
			}
		}
	}
	fields(reflect.TypeFor[composeService](), func(v any) any { return v })
}

// TestSchemaAgrees: by its form, a field is right or wrong for the schema and for
// the decoder alike; and what is wrong is told with path and line.
func TestSchemaAgrees(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("manifest.json", doc); err != nil {
		t.Fatal(err)
	}
	published, err := compiler.Compile("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	taken, refused := 0, 0
	same := func(path string, doc any) {
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if (taken+refused)%5 == 0 {
			lines, err := json.MarshalIndent(doc, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			sentences(t, string(lines))
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		docs, err := jsons(text)
		if err != nil {
			t.Fatal(err)
		}
		d := &decoder{root: docs[0].root, form: reflect.TypeFor[document]()}
		d.into(&document{}, d.root, "")
		problems, invalid := d.all(), published.Validate(v)
		switch {
		case len(problems) == 1 && amountOfText.MatchString(problems[0].Text): // a schema cannot tell
		case len(problems) > 0 != (invalid != nil):
			t.Errorf("%s: decoding says %v, and the schema %v, of %s", path, problems, invalid, text)
		case invalid == nil:
			taken++
		default:
			refused++
		}
	}

	least := map[reflect.Type]map[string]any{} // what required says
	required := func(t reflect.Type) map[string]any {
		if least[t] == nil {
			least[t] = required(t)
		}
		return maps.Clone(least[t])
	}
	var fields func(path string, t reflect.Type, within func(any) any)
	var values func(path string, t reflect.Type, tag reflect.StructTag, within func(any) any)
	values = func(path string, t reflect.Type, tag reflect.StructTag, within func(any) any) {
		tries := odd
		if plain(t, tag) {
			tries = []string{`null`, `true`, `1`, `"x"`, `""`, `[]`, `["x"]`, `[null]`, `[1]`, `[{}]`, `{}`, `{"x":1}`, `{"x":null}`}
		}
		for _, text := range tries {
			same(path, within(json.RawMessage(text)))
		}
		if other, ok := inner[t]; ok {
			t = other
		}
		switch {
		case t.Kind() == reflect.Pointer:
			values(path, t.Elem(), tag, within)
		case t.Kind() == reflect.Slice:
			values(path+"[]", t.Elem(), tag, func(v any) any { return within([]any{v}) })
		case t.Kind() == reflect.Map:
			values(path+".*", t.Elem(), "", func(v any) any { return within(map[string]any{"a": v}) })
		case t.Kind() == reflect.Struct:
			fields(path, t, within)
		}
	}
	fields = func(path string, t reflect.Type, within func(any) any) {
		with := func(name string, v any) map[string]any {
			out := required(t)
			out[name] = v
			return out
		}
		same(path+".unknown", within(with("unknown", true)))
		for _, p := range partsOf(t) {
			at := path + "." + p.name
			if strings.HasPrefix(at, ".spec.") && isSection(p.name) && strings.Count(at, ".") == 2 {
				continue // they are at the top, too
			}
			values(at, p.kind, p.tag, func(v any) any { return within(with(p.name, v)) })
			without := required(t)
			delete(without, p.name)
			same(at+" missing", within(without))
			if p.also == "" {
				continue
			}
			for _, text := range []string{"null", "true", `"x"`, "1"} {
				raw := json.RawMessage(text)
				without[p.also] = raw
				same(path+"."+p.also, within(maps.Clone(without)))
				both := with(p.name, sample(p.kind, p.tag))
				both[p.also] = raw
				same(at+" and "+p.also, within(both))
			}
		}
	}
	fields("", reflect.TypeFor[document](), func(v any) any { return v })
	t.Logf("%d documents are taken, %d refused", taken, refused)
	if taken < 1000 || refused < 1000 {
		t.Errorf("%d documents are taken, %d refused", taken, refused)
	}
}
