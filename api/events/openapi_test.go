package events

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/internal/testapi"
	"github.com/buoy-edge/buoy/node/events"
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
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	testapi.Fields(t, "../system/openapi.yaml", map[string]any{
		"Event": events.Event{}, "EventData": events.Data{}, "EventActor": events.Actor{},
		"WebhookBody": webhookBody{}, "Webhook": webhookObject{}, "WebhookStatus": webhookStatus{},
	})
	var types []string
	for _, m := range events.Types() {
		types = append(types, string(m.Type))
	}
	if diff := cmp.Diff(types, doc.Components.Schemas["Event"].Properties["type"].Enum); diff != "" {
		t.Errorf("types: -ours +described\n%s", diff)
	}
}

// TestDocument has every type, and what it means.
func TestDocument(t *testing.T) {
	raw, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range events.Types() {
		if row := "| `" + string(m.Type) + "` | " + m.Text + " |\n"; !strings.Contains(string(raw), row) {
			t.Errorf("docs/events.md lacks\n%s", row)
		}
	}
}
