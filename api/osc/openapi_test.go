package osc

import (
	"testing"

	"github.com/buoy-edge/buoy/internal/testapi"
)

// TestSchemas compares the objects of the wire with their description.
func TestSchemas(t *testing.T) {
	testapi.Fields(t, "../system/openapi.yaml", map[string]any{
		"OSCError": errorObject{}, "OSCProblem": problemObject{}, "OSCState": stateObject{}, "OSCResource": resourceObject{}, "OSCResourceProperties": resourceProperties{},
		"OCL": descriptor{}, "OCLCompute": compute{}, "OCLContainer": container{}, "OCLNetwork": network{}, "OCLSubnet": subnet{}, "OCLSecurity": security{}, "OCLRule": rule{},
	})
}
