package manifest

import (
	"encoding/json"
	"reflect"
	"strings"
)

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// schemer is a type that has a schema of its own.
type schemer interface{ schema() schema }

// Schema is the JSON Schema (2020-12) of a manifest, for editors and checks
// before one is sent. It knows no Compose files. What takes two fields to be
// seen is only told by Parse.
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
		return own.schema()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOfType(t.Elem(), tag)
	case reflect.String:
		return stringSchema(tag)
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint64:
		return bounded(schema{"type": "integer"}, t.Kind(), tag)
	case reflect.Float64:
		return bounded(schema{"type": "number"}, t.Kind(), tag)
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
	s := schema{"type": "string"}
	if words := choices(tag); words != nil {
		var all []string
		for _, word := range words { // decode takes any case
			all = append(all, word)
			if lower := strings.ToLower(word); lower != word {
				all = append(all, lower)
			}
		}
		s["enum"] = all
	}
	if pattern := tag.Get("pattern"); pattern != "" {
		s["pattern"] = pattern
	}
	return s
}

func bounded(s schema, kind reflect.Kind, tag reflect.StructTag) schema {
	least, most := bounds(kind, tag)
	if least > -1e15 {
		s["minimum"] = least
	}
	if most < 1e15 {
		s["maximum"] = most
	}
	return s
}

func structSchema(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	names := []schema{} // of required fields with two names
	for _, p := range partsOf(t) {
		one := schemaOfType(p.kind, p.tag)
		if doc := p.tag.Get("doc"); doc != "" {
			one["description"] = doc
		}
		if value := p.tag.Get("default"); value != "" {
			one["description"] = p.tag.Get("doc") + " Default: " + value + "."
		}
		properties[p.name] = one
		if p.also != "" {
			properties[p.also] = one
		}
		switch need := p.tag.Get("need") != ""; {
		case need && p.also != "":
			names = append(names, schema{"anyOf": []schema{{"required": []string{p.name}}, {"required": []string{p.also}}}})
		case need:
			required = append(required, p.name)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	if len(names) > 0 {
		s["allOf"] = names
	}
	return s
}
