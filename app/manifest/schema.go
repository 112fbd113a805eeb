package manifest

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// schemer is a type that has a schema of its own.
type schemer interface{ schema() schema }

// Schema is the JSON Schema (2020-12) of a manifest, for editors and checks
// before one is sent. It knows no Compose files. What takes two fields to be
// seen, but for the two names of one, is only told by Parse, and so is how much
// a text like "9999h" may be.
func Schema() []byte {
	s := schemaOf[document]()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "buoy app"
	s["description"] = "An app that buoy keeps running."
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("BUG: a schema that is no JSON: " + err.Error())
	}
	return append(out, '\n')
}

func schemaOf[T any]() schema { return schemaOfType(reflect.TypeFor[T](), "") }

func schemaOfType(t reflect.Type, tag reflect.StructTag) schema {
	if own, ok := reflect.TypeAssert[schemer](reflect.Zero(t)); ok && t.Kind() != reflect.Pointer {
		s := own.schema()
		if t.Implements(reflect.TypeFor[measured]()) {
			boundsOf(t, tag).into(s["anyOf"].([]schema)[0])
		}
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOfType(t.Elem(), tag)
	case reflect.String:
		return stringSchema(tag)
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint64:
		return boundsOf(t, tag).into(schema{"type": "integer"})
	case reflect.Float64:
		return boundsOf(t, tag).into(schema{"type": "number"})
	case reflect.Slice:
		return schema{"type": "array", "items": schemaOfType(t.Elem(), tag)}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": schemaOfType(t.Elem(), "")}
	case reflect.Struct:
		return structSchema(t)
	default:
		panic("BUG: a schema of a " + t.String())
	}
}

func stringSchema(tag reflect.StructTag) schema {
	if words := choices(tag); words != nil { // an editor offers those, and takes any case
		return schema{"anyOf": []schema{{"enum": words}, {"type": "string", "pattern": "^(" + anyCase(quoted(words)) + ")$"}}}
	}
	s := schema{"type": "string"}
	if pattern := tag.Get("pattern"); pattern != "" {
		s["pattern"] = pattern
	}
	return s
}

// quoted is a regular expression of words.
func quoted(words []string) string {
	var all []string
	for _, word := range words {
		all = append(all, regexp.QuoteMeta(word))
	}
	return strings.Join(all, "|")
}

// anyCase is a regular expression that takes its letters in any case, without
// the flag that JSON Schema does not have.
func anyCase(pattern string) string {
	var b strings.Builder
	for _, r := range pattern {
		if lower, upper := unicode.ToLower(r), unicode.ToUpper(r); lower != upper {
			b.WriteString("[" + string(lower) + string(upper) + "]")
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// orNull takes null, too, which is as if the field were not there.
func orNull(s schema) schema {
	null := schema{"type": "null"}
	switch {
	case s["not"] != nil:
		return null
	case s["anyOf"] != nil:
		s["anyOf"] = append(slices.Clone(s["anyOf"].([]schema)), null)
	default:
		types, ok := s["type"].([]string)
		if !ok {
			types = []string{s["type"].(string)}
		}
		s["type"] = append(slices.Clone(types), "null")
	}
	return s
}

func structSchema(t reflect.Type) schema {
	properties, required, pairs := schema{}, []string{}, []schema{}
	for _, p := range partsOf(t) {
		need := p.tag.Get("need") != ""
		one := schemaOfType(p.kind, p.tag)
		if !need || p.also != "" {
			one = orNull(one)
		}
		if doc := p.tag.Get("doc"); doc != "" {
			one["description"] = doc
		}
		if value := p.tag.Get("default"); value != "" {
			one["description"] = p.tag.Get("doc") + " Default: " + value + "."
		}
		properties[p.name] = one
		switch {
		case p.also != "":
			properties[p.also] = one
			pairs = append(pairs, schema{"not": schema{"allOf": []schema{given(p.name), given(p.also)}}})
			if need {
				pairs = append(pairs, schema{"anyOf": []schema{given(p.name), given(p.also)}})
			}
		case need:
			required = append(required, p.name)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	if len(pairs) > 0 {
		s["allOf"] = pairs
	}
	return s
}

// given says that a field is there.
func given(name string) schema {
	return schema{"type": "object", "required": []string{name}, "properties": schema{name: schema{"not": schema{"type": "null"}}}}
}
