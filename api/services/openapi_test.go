package services

import (
	"testing"

	"github.com/buoy-edge/buoy/internal/testapi"
)

// TestSchemas compares the objects of the wire with their description.
func TestSchemas(t *testing.T) {
	testapi.Fields(t, "../system/openapi.yaml", map[string]any{
		"Service": service{}, "ServiceDefinition": definition{}, "ServiceScale": scaleBody{}, "ServiceStatus": statusObject{},
	})
}
