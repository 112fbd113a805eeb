package nodes

import (
	"testing"

	"github.com/buoy-edge/buoy/internal/testapi"
)

// TestSchemas compares the objects of the wire with their description.
func TestSchemas(t *testing.T) {
	testapi.Fields(t, "../system/openapi.yaml", map[string]any{
		"Node": nodeObject{}, "MemInfo": memInfo{}, "CPUInfo": cpuInfo{}, "Disk": diskInfo{}, "Partition": partitionInfo{},
		"NicInfo": nicInfo{}, "NodeMount": nodeMount{}, "OSInfo": osInfo{}, "NodeInfo": nodeInfo{}, "GPUs": gpusObject{}, "GPU": gpuObject{}, "GPUInstance": gpuInstance{}, "GPUECC": gpuECC{}, "GPUProcess": gpuProcess{}, "GPULink": gpuLink{}, "CoreStateResult": coreState{},
		"Stat": metric{}, "Window": window{}, "Process": process{}, "CPUTimes": cpuTimes{}, "NodeReboot": nodeReboot{},
		"ProcessSignal": processSignal{}, "ContainerKill": containerKill{}, "JobListItem": jobItem{}, "JobResult": jobResult{}, "CoreSystem": coreSystem{},
		"ContainerStatsList": statsList{}, "ContainerStats": containerStats{}, "CPUUse": cpuUse{}, "MemoryUse": memoryUse{}, "PIDUse": pidUse{}, "IOUse": ioUse{},
		"NetworkUse": netUse{}, "Pressure": pressureUse{}, "Stalls": stalls{}, "Stall": stall{},
		"ContainerListItem": containerItem{}, "Container": containerObject{}, "ContainerUpdate": containerUpdate{},
		"ContainerNIC": nic{}, "ContainerNICConfig": nicConfig{}, "Bridge": bridge{}, "BridgeCreate": bridge{}, "BridgeSetting": bridgeSetting{},
		"HealthCheck": healthCheck{}, "HealthHeader": healthHeader{}, "HealthState": healthState{},
		"CreateContainer": createContainer{}, "Limits": limits{}, "GPUWish": gpuFields{}, "GPUHold": gpuHold{}, "Exec": execRequest{}, "ExecResult": execResult{}, "SessionStatus": status{}, "DeleteFile": deleteFile{},
		"Image": imageObject{}, "FlistInfo": flistInfo{}, "DiskUsage": diskUsage{}, "ImageUsage": imageUsage{}, "UsagePart": usagePart{}, "PullImage": pullImage{}, "PullProgress": pullProgress{}, "PullEnd": pullEnd{}, "Login": loginItem{}, "LoginRequest": loginRequest{},
	})
}
