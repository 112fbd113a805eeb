package testapi

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// Fields compares objects of the wire, by the names of their schemas in a
// document, with those: each field is described, and nothing else is. Of two
// spellings of a field, which differ by case, a struct has one.
func Fields(t testing.TB, file string, objects map[string]any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
			}
		}
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for name, v := range objects {
		var fields, described []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" {
				fields = append(fields, key)
			}
		}
		for key := range doc.Components.Schemas[name].Properties {
			described = append(described, key)
		}
		slices.Sort(fields)
		slices.Sort(described)
		described = slices.CompactFunc(described, strings.EqualFold)
		if diff := cmp.Diff(fields, described); diff != "" {
			t.Errorf("%s: -struct +described\n%s", name, diff)
		}
	}
}
