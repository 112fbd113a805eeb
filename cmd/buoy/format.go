package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/template"
)

// formatUsage is the help of --format.
const formatUsage = "`template` in Go's language for each, as '{{.Name}}' or '{{json .}}'; fields are those of -o json"

// object is a JSON object for templates. It has each field by its key in JSON,
// by that with a capital, and by its name in the SDK; fields that an answer
// leaves out are there, empty. Under "" is the object as it came.
type object map[string]any

// MarshalJSON gives back what came.
func (o object) MarshalJSON() ([]byte, error) { return json.Marshal(o[""]) }

// format writes each item as a template says.
func (c *cli) format(text string, of reflect.Type, items []json.RawMessage) error {
	switch form, rest, _ := strings.Cut(text, " "); {
	case rest == "" && slices.Contains(forms, form):
		return fmt.Errorf("--format %s: that is no template; write -o %s", text, text)
	case form == "table":
		return fmt.Errorf("--format %q: a template makes lines without a head; leave out \"table\", or write -o wide for more columns", text)
	}
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"json": toJSON, "join": joined, "upper": strings.ToUpper, "lower": strings.ToLower,
	}).Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
	if err != nil {
		return fmt.Errorf("--format %q: %s", text, strings.TrimPrefix(err.Error(), "template: :1: "))
	}
	if len(items) == 0 { // a field that is not there is an error all the same
		if err := formatError(text, of, t.Execute(&bytes.Buffer{}, objectOf(of, nil))); errors.Is(err, errNoField) {
			return err
		}
	}
	for _, item := range items {
		dec := json.NewDecoder(bytes.NewReader(item))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("decode the answer: %w", err)
		}
		var line bytes.Buffer
		if err := formatError(text, of, t.Execute(&line, objectOf(of, v))); err != nil {
			return err
		}
		line.WriteByte('\n')
		if _, err := c.stdout.Write(line.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

var errNoField = errors.New("there is no field")

// formatError says in a sentence what is wrong with a template.
func formatError(text string, of reflect.Type, err error) error {
	if err == nil {
		return nil
	}
	if where, field, ok := strings.Cut(err.Error(), "map has no entry for key "); ok {
		known, of := []string{}, holder(of, where)
		if of.Kind() == reflect.Map {
			return fmt.Errorf("--format %q: %w %s in each; {{index … %s}} is empty where there is none", text, errNoField, field, field)
		}
		for key := range fieldsOf(of) {
			known = append(known, key)
		}
		slices.Sort(known)
		return fmt.Errorf("--format %q: %w %s; there are %s", text, errNoField, field, strings.Join(known, ", "))
	}
	why := err.Error()
	if inner := errors.Unwrap(err); inner != nil {
		why = inner.Error()
	}
	return fmt.Errorf("--format %q: %s", text, strings.TrimPrefix(why, "template: :1:"))
}

// holder is the struct or map in which a field is missed, in the words of a template's
// error before that, as in: executing "" at <.data.nme>.
func holder(of reflect.Type, where string) reflect.Type {
	_, chain, _ := strings.Cut(where, "at <.")
	chain, _, _ = strings.Cut(chain, ">")
	for key := range strings.SplitSeq(chain, ".") {
		next := of
		for name, field := range fieldsOf(of) {
			if key == name || key == capital(name) || key == field.Name {
				next = field.Type
			}
		}
		if next.Kind() == reflect.Pointer {
			next = next.Elem()
		}
		switch {
		case next.Kind() == reflect.Map:
			return next
		case next.Kind() != reflect.Struct || next == of:
			return of
		}
		of = next
	}
	return of
}

// fieldsOf are the fields of a struct by their keys in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	all := map[string]reflect.StructField{}
	for _, field := range reflect.VisibleFields(t) {
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if key != "" && key != "-" {
			all[key] = field
		}
	}
	return all
}

// objectOf is v, which was decoded from JSON, as templates see it if it is a t.
func objectOf(t reflect.Type, v any) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isText(t):
		return orEmpty(v, "")
	case t.Kind() == reflect.Struct:
		return structOf(t, v)
	case t.Kind() == reflect.Slice:
		list := []any{}
		if have, ok := v.([]any); ok {
			for _, one := range have {
				list = append(list, objectOf(t.Elem(), one))
			}
		}
		return list
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.String:
		have, _ := v.(map[string]any)
		all := map[string]string{} // so that "index" of what it has not is empty
		for key, one := range have {
			all[key] = fmt.Sprint(one)
		}
		return all
	case t.Kind() == reflect.Map:
		have, _ := v.(map[string]any)
		all := map[string]any{}
		for key, one := range have {
			all[key] = objectOf(t.Elem(), one)
		}
		return all
	case t.Kind() == reflect.Bool:
		return orEmpty(v, false)
	case t.Kind() == reflect.String:
		return orEmpty(v, "")
	}
	n := numbers(v)
	if whole, ok := n.(int); (ok || n == nil) && (t.Kind() == reflect.Float64 || t.Kind() == reflect.Float32) {
		return float64(whole) // one type whatever the figure is, since templates compare no others
	}
	return orEmpty(n, 0)
}

func structOf(t reflect.Type, v any) object {
	have, _ := v.(map[string]any)
	o := object{"": v}
	for key, one := range have {
		o[key], o[capital(key)] = numbers(one), numbers(one)
	}
	for key, field := range fieldsOf(t) {
		value := objectOf(field.Type, have[key])
		if field.Type.Kind() == reflect.Pointer && have[key] == nil && field.Type.Elem().Kind() != reflect.Struct {
			value = ""
		}
		o[key], o[capital(key)], o[field.Name] = value, value, value
	}
	return o
}

// isText says whether a type is a string in JSON whatever it is in Go, as times are.
func isText(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

func orEmpty(v, empty any) any {
	if v == nil {
		return empty
	}
	return v
}

// numbers makes numbers of the JSON numbers in v: templates compare those.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return int(n)
		}
		f, _ := v.Float64()
		return f
	case []any:
		all := make([]any, len(v))
		for i, one := range v {
			all[i] = numbers(one)
		}
		return all
	case map[string]any:
		all := maps.Clone(v)
		for key, one := range all {
			all[key] = numbers(one)
		}
		return all
	}
	return v
}

func capital(key string) string {
	if key == "" {
		return ""
	}
	return strings.ToUpper(key[:1]) + key[1:]
}

func toJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

func joined(list []any, sep string) string {
	all := make([]string, len(list))
	for i, one := range list {
		all[i] = fmt.Sprint(one)
	}
	return strings.Join(all, sep)
}
