package hosts

import (
	"testing"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/testapi"
)

// TestSchemas compares the objects of the wire with their description.
func TestSchemas(t *testing.T) {
	testapi.Fields(t, "../system/openapi.yaml", map[string]any{
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
	})
}
