package hosts

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
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
		"EdgeError": hostapi.ErrorBody{}, "HostOperation": hostapi.OperationResponse{}, "HostReason": hostapi.Reason{}, "HostAlert": alertRequest{},
		"HostDetail": hostapi.HostDetail{}, "HostGPU": hostapi.GPU{}, "HostRegister": hostapi.RegisterRequest{}, "HostRegistered": hostapi.RegisterResponse{},
		"HostConfig": hostapi.ConfigProperties{}, "HostStatus": hostapi.HostStatus{}, "HostReserved": hostapi.Reserved{},
		"HostContainer": hostapi.ContainerStatus{}, "HostHealth": hostapi.Health{}, "HostAction": hostapi.HostAction{},
		"HostLaunchOrder": hostapi.LaunchContainer{}, "HostCommand": hostapi.ContainerConfig{}, "HostVariable": hostapi.KeyValue{},
		"HostPort": hostapi.LaunchPort{}, "HostStopOrder": hostapi.TerminateContainer{}, "HostStartOrder": hostapi.StartContainer{},
		"HostPullOrder": hostapi.PullImage{}, "HostLaunch": result[hostLaunch]{}, "HostLaunchResult": hostLaunch{},
		"HostPage": page[hostapi.HostDetail]{}, "HostCounts": hostsCounts{}, "HostCountsByType": countsByType{}, "HostTypeCount": typeCount{},
		"HostsCPUUsage": cpuUsage{}, "HostUsage": hostUsage{},
		"EngineRegistration": instanceRegistration{}, "EngineRegistered": registrationAnswer{}, "EngineInstance": instanceInfo{},
		"EnginePage": page[instanceInfo]{}, "EngineList": result[[]instanceInfo]{}, "EngineLaunches": page[engineLaunch]{},
		"EngineLaunch": engineLaunch{}, "EngineStatus": instanceStatus{}, "EngineContainer": instanceContainer{},
		"EngineWork": workAnswer{}, "EngineOrder": work{}, "EngineWorkDetail": result[workDetails]{}, "EngineWorkDetails": workDetails{},
		"EngineResources": result[resources]{},
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
