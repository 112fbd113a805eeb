package osc

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestSchemas compares the objects of the wire with their description.
func TestSchemas(t *testing.T) {
	raw, err := os.ReadFile("../system/openapi.yaml")
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
	for name, v := range map[string]any{
		"OSCError": errorObject{}, "OSCProblem": problemObject{}, "OSCState": stateObject{}, "OSCResource": resourceObject{}, "OSCResourceProperties": resourceProperties{},
		"OCL": descriptor{}, "OCLCompute": compute{}, "OCLContainer": container{}, "OCLNetwork": network{}, "OCLSubnet": subnet{}, "OCLSecurity": security{}, "OCLRule": rule{},
	} {
		var fields, described []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if tag := f.Tag.Get("json"); tag != "" {
				key, _, _ := strings.Cut(tag, ",")
				fields = append(fields, key)
			}
		}
		for key := range doc.Components.Schemas[name].Properties {
			described = append(described, key)
		}
		slices.Sort(fields)
		slices.Sort(described)
		if diff := cmp.Diff(fields, described); diff != "" {
			t.Errorf("%s: -struct +described\n%s", name, diff)
		}
	}
}
