package nodes

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
		described = slices.CompactFunc(described, strings.EqualFold) // both spellings of one field
		if diff := cmp.Diff(fields, described); diff != "" {
			t.Errorf("%s: -struct +described\n%s", name, diff)
		}
	}
}
