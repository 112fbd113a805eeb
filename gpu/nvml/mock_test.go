//go:build linux && cgo

package nvml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxb200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"github.com/buoy-edge/buoy/gpu"
)

// complete lets a mock answer NOT_SUPPORTED where it would panic.
func complete(m any) {
	for _, f := range reflect.ValueOf(m).Elem().Fields() {
		if f.Kind() != reflect.Func || !f.IsNil() || !f.CanSet() {
			continue
		}
		f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value {
			var out []reflect.Value
			for of := range f.Type().Outs() {
				zero := reflect.Zero(of)
				if of == reflect.TypeFor[nvml.Return]() {
					zero = reflect.ValueOf(nvml.ERROR_NOT_SUPPORTED)
				}
				out = append(out, zero)
			}
			return out
		}))
	}
}

// mocked is a mock server that answers all that we ask. The addresses on PCI
// are those that the mock knows and does not tell.
func mocked(s *server.Server) *Library {
	complete(&s.Interface)
	for _, one := range s.Devices {
		d := one.(*server.Device)
		d.GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) {
			var p nvml.PciInfo
			for i, c := range "0000" + strings.ToUpper(d.PciBusID) {
				p.BusId[i] = int8(c)
			}
			return p, nvml.SUCCESS
		}
		complete(&d.Device)
	}
	return &Library{nv: s, root: "/nonexistent"}
}

func TestServers(t *testing.T) {
	for name, c := range map[string]struct {
		s     *server.Server
		count int
		of    gpus.Config
		cuda  string
	}{
		"a100":  {dgxa100.New(), 8, gpus.A100_SXM4_40GB, "12.4"},
		"h100":  {dgxh100.New(), 8, gpus.H100_SXM5_80GB, "12.4"},
		"h200":  {dgxh200.New(), 8, gpus.H200_SXM5_141GB, "12.4"},
		"b200":  {dgxb200.New(), 8, gpus.B200_SXM5_180GB, "12.6"},
		"mixed": {dgxa100.NewWithGPUs(gpus.A30_PCIE_24GB, gpus.A100_PCIE_80GB), 2, gpus.A30_PCIE_24GB, "12.4"},
		"none":  {dgxa100.NewWithGPUs(), 0, gpus.Config{}, "12.4"},
	} {
		t.Run(name, func(t *testing.T) {
			l := mocked(c.s)
			if err := l.Open(); err != nil {
				t.Fatal(err)
			}
			m, err := l.Machine()
			if err != nil || len(m.Devices) != c.count || m.Driver != c.s.DriverVersion || m.CUDA != c.cuda || len(m.Links) != 0 {
				t.Fatalf("%+v, %v", m, err)
			}
			for n, d := range m.Devices {
				want := gpu.Device{
					UUID: c.s.Devices[n].(*server.Device).UUID, Index: n, Minor: n, Vendor: gpu.NVIDIA, NUMANode: -1, PCI: fmt.Sprintf("0000:%02x:00.0", n),
					Model: c.of.Name, Memory: int64(c.of.MemoryMB) << 20,
				}
				if name == "mixed" && n == 1 {
					want.Model, want.Memory = gpus.A100_PCIE_80GB.Name, 80<<30
				}
				if !reflect.DeepEqual(d, want) {
					t.Errorf("%+v, want %+v", d, want)
				}
			}
			all, err := l.Figures()
			if err != nil || len(all) != c.count {
				t.Fatalf("figures: %+v, %v", all, err)
			}
			for _, f := range all { // the mocks know of memory alone
				if f.MemoryUsed == nil || f.Temperature != nil || f.Power != nil || f.ECC != nil || f.Utilization != nil {
					t.Errorf("figures: %+v", f)
				}
			}
			l.Follow(func(gpu.Message) { t.Error("told something") }) // returns, as there are no events
		})
	}
}

// TestDivided makes instances as an administrator does, and has the mock tell
// of them as the library does.
func TestDivided(t *testing.T) {
	s := dgxa100.New()
	l := mocked(s)
	d := s.Devices[3].(*server.Device)
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	var parts []nvml.Device
	for n, id := range []int{nvml.GPU_INSTANCE_PROFILE_1_SLICE, nvml.GPU_INSTANCE_PROFILE_3_SLICE} {
		info, ret := d.GetGpuInstanceProfileInfo(id)
		if ret != nvml.SUCCESS {
			t.Fatal(ret)
		}
		gi, ret := d.CreateGpuInstance(&info)
		if ret != nvml.SUCCESS {
			t.Fatal(ret)
		}
		made, _ := gi.GetInfo()
		part := &mock.Device{
			GetUUIDFunc:              func() (string, nvml.Return) { return fmt.Sprintf("MIG-%d", n), nvml.SUCCESS },
			GetGpuInstanceIdFunc:     func() (int, nvml.Return) { return int(made.Id), nvml.SUCCESS },
			GetComputeInstanceIdFunc: func() (int, nvml.Return) { return 0, nvml.SUCCESS },
			GetAttributesFunc: func() (nvml.DeviceAttributes, nvml.Return) {
				return nvml.DeviceAttributes{MemorySizeMB: info.MemorySizeMB, GpuInstanceSliceCount: info.SliceCount, ComputeInstanceSliceCount: 1 + uint32(n)}, nvml.SUCCESS
			},
		}
		complete(part)
		parts = append(parts, part)
	}
	parts[0].(*mock.Device).GetNameFunc = func() (string, nvml.Return) { return "NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", nvml.SUCCESS }
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(n int) (nvml.Device, nvml.Return) {
		if n == 0 || n > len(parts) {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return parts[n-1], nvml.SUCCESS
	}
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 11, GpuInstanceId: 1, UsedGpuMemory: 5}, {Pid: 12, GpuInstanceId: 9, UsedGpuMemory: 1<<64 - 1}, {Pid: 0}, {Pid: 1 << 31}}, nvml.SUCCESS
	}
	m, err := l.Machine()
	if err != nil || len(m.Devices) != 10 {
		t.Fatalf("%d devices, %v", len(m.Devices), err)
	}
	if parent := m.Devices[3]; !parent.Divided || parent.Instance != nil || parent.Memory != 40<<30 {
		t.Errorf("the GPU: %+v", parent)
	}
	for n, want := range []gpu.Instance{{Parent: d.UUID, Profile: "1g.5gb+me", GPU: 0}, {Parent: d.UUID, Profile: "2c.3g.20gb", GPU: 1}} {
		part := m.Devices[4+n]
		if part.Instance == nil || *part.Instance != want || part.Index != 3 || part.Minor != 3 || part.Divided || part.Broken != "" || part.Memory == 0 || part.Memory == 40<<30 {
			t.Errorf("%+v with %+v, want %+v", part, part.Instance, want)
		}
	}
	all, err := l.Figures()
	if err != nil || len(all) != 10 || all[5].UUID != "MIG-1" || all[4].Processes != nil {
		t.Fatalf("figures: %+v, %v", all, err)
	}
	if p := all[3].Processes; len(p) != 2 || p[0].PID != 11 || p[0].Instance != "MIG-1" || *p[0].Memory != 5 || p[1].Instance != "" || p[1].Memory != nil {
		t.Errorf("processes: %+v", p)
	}
}

// TestSwitched: on a DGX all links end at switches, and lead everywhere.
func TestSwitched(t *testing.T) {
	s := dgxa100.New()
	for n, one := range s.Devices {
		d := one.(*server.Device)
		links := 12
		if n == 7 {
			links = 4 // some are down
		}
		d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
			if link >= links {
				return nvml.FEATURE_DISABLED, nvml.SUCCESS
			}
			return nvml.FEATURE_ENABLED, nvml.SUCCESS
		}
		d.GetNvLinkRemoteDeviceTypeFunc = func(int) (nvml.IntNvLinkDeviceType, nvml.Return) { return nvml.NVLINK_DEVICE_TYPE_SWITCH, nvml.SUCCESS }
		d.GetTopologyCommonAncestorFunc = func(other nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
			if o := other.(*server.Device); o.Index/4 != n/4 {
				return nvml.TOPOLOGY_SYSTEM, nvml.SUCCESS
			}
			return nvml.TOPOLOGY_NODE, nvml.SUCCESS
		}
	}
	m, err := mocked(s).Machine()
	if err != nil || len(m.Links) != 28 {
		t.Fatalf("%d links, %v", len(m.Links), err)
	}
	if l := m.Links[0]; l.NVLinks != 12 || l.Distance != gpu.SameNUMANode {
		t.Errorf("0 and 1: %+v", l)
	}
	if l := m.Links[6]; l.NVLinks != 4 || l.Distance != gpu.System {
		t.Errorf("0 and 7: %+v", l)
	}
}

// TestSick has a GPU answer errors, and be missing.
func TestSick(t *testing.T) {
	s := dgxa100.NewWithGPUs(gpus.Multiple(5, gpus.A100_SXM4_40GB)...)
	l := mocked(s)
	at := func(n int) *server.Device { return s.Devices[n].(*server.Device) }
	at(1).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	at(2).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_RESET_REQUIRED }
	get := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(n int) (nvml.Device, nvml.Return) {
		switch n {
		case 3:
			return nil, nvml.ERROR_GPU_IS_LOST
		case 4:
			return nil, nvml.ERROR_NO_PERMISSION
		}
		return get(n)
	}
	m, err := l.Machine()
	if err != nil || len(m.Devices) != 5 {
		t.Fatalf("%+v, %v", m, err)
	}
	for n, want := range []struct {
		broken      string
		lost, named bool
	}{
		{"", false, true},
		{"fallen off the bus", true, true},
		{"needs a reset", false, true},
		{"fallen off the bus", true, false},
		{"may not be opened", false, false},
	} {
		d := m.Devices[n]
		if !strings.Contains(d.Broken, want.broken) || (d.Broken == "") != (want.broken == "") || d.Lost != want.lost || (d.UUID != "") != want.named || d.Index != n {
			t.Errorf("%d: %+v, want %+v", n, d, want)
		}
	}
	if all, err := l.Figures(); err != nil || len(all) != 3 {
		t.Errorf("figures: %+v, %v", all, err)
	}
	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 1 << 30, nvml.SUCCESS } // of a library that is not well
	if m, err := l.Machine(); err != nil || len(m.Devices) != maxDevices {
		t.Errorf("%d devices, %v", len(m.Devices), err)
	}
	s.DeviceGetCountFunc = func() (int, nvml.Return) { return -1, nvml.SUCCESS }
	if m, err := l.Machine(); err != nil || len(m.Devices) != 0 {
		t.Errorf("%d devices, %v", len(m.Devices), err)
	}
}

// TestOldLibrary has one that lacks whatever came after 2014.
func TestOldLibrary(t *testing.T) {
	s := dgxa100.New()
	l := mocked(s)
	s.LookupSymbolFunc = func(name string) error {
		switch name {
		case "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlSystemGetDriverVersion":
			return nil
		}
		return fmt.Errorf("no %s", name)
	}
	s.Devices[0].(*server.Device).GetMigModeFunc = func() (int, int, nvml.Return) {
		t.Error("a function is called that is not there")
		return 0, 0, nvml.SUCCESS
	}
	m, err := l.Machine()
	if err != nil || len(m.Devices) != 8 || m.Devices[7].Model == "" || m.Devices[7].Minor != -1 || m.Devices[7].PCI != "" || m.CUDA != "" {
		t.Errorf("%+v, %v", m, err)
	}
	if all, err := l.Figures(); err != nil || len(all) != 8 {
		t.Errorf("figures: %+v, %v", all, err)
	}
	l.Follow(func(gpu.Message) { t.Error("told something") })
}

func TestFollow(t *testing.T) {
	s := dgxa100.New()
	l := mocked(s)
	set := &mock.EventSet{}
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return set, nvml.SUCCESS }
	var registered []uint64
	for _, one := range s.Devices[:2] {
		d := one.(*server.Device)
		d.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return nvml.EventTypeXidCriticalError | 1, nvml.SUCCESS }
		d.RegisterEventsFunc = func(types uint64, _ nvml.EventSet) nvml.Return {
			registered = append(registered, types)
			return nvml.SUCCESS
		}
	}
	events := []nvml.EventData{
		{EventType: nvml.EventTypeXidCriticalError, EventData: 79, Device: s.Devices[1]},
		{EventType: nvml.EventMigConfigChange, Device: s.Devices[1]},
	}
	s.EventSetWaitFunc = func(nvml.EventSet, uint32) (nvml.EventData, nvml.Return) {
		if len(events) == 0 {
			select {} // nothing happens any more
		}
		e := events[0]
		events = events[1:]
		return e, nvml.SUCCESS
	}
	said := make(chan gpu.Message)
	go l.Follow(func(m gpu.Message) { said <- m })
	if m := <-said; m.XID == nil || *m.XID != (gpu.XID{UUID: s.Devices[1].(*server.Device).UUID, Code: 79}) {
		t.Errorf("first %+v", m)
	}
	if m := <-said; !m.Changed || m.XID != nil {
		t.Errorf("then %+v", m)
	}
	if len(registered) != 2 || registered[0] != nvml.EventTypeXidCriticalError {
		t.Errorf("registered for %v", registered)
	}
}

// TestServe asks as buoyd does, and as it should not.
func TestServe(t *testing.T) {
	for _, c := range []struct{ in, fails string }{
		{`{"ID":1,"Ask":"machine"}` + "\n" + `{"ID":2,"Ask":"figures"}`, ""},
		{`{"ID":1,"Ask":"the time"}`, `no question "the time"`},
		{"nonsense", "read a question"},
		{strings.Repeat("x", 1<<20), "token too long"},
	} {
		var out bytes.Buffer
		err := Serve(strings.NewReader(c.in), &out, mocked(dgxa100.New()))
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%.30s: %v, want %s", c.in, err, c.fails)
			}
			continue
		}
		dec := json.NewDecoder(&out)
		var first, second gpu.Message
		if err := errors.Join(err, dec.Decode(&first), dec.Decode(&second)); err != nil {
			t.Fatal(err)
		}
		if first.ID != 1 || len(first.Machine.Devices) != 8 || second.ID != 2 || len(second.Figures) != 8 {
			t.Errorf("%+v, %+v", first, second)
		}
	}
}

// TestServeFails: a library that does not start is named, and that is the end.
func TestServeFails(t *testing.T) {
	s := dgxa100.New()
	s.InitFunc = func() nvml.Return { return nvml.ERROR_LIB_RM_VERSION_MISMATCH }
	s.NvmlVersion = "12.560.35.03"
	in, asks := io.Pipe()
	defer asks.Close()
	go fmt.Fprintln(asks, `{"ID":7,"Ask":"figures"}`)
	var out bytes.Buffer
	err := Serve(in, &out, mocked(s))
	if err == nil || !strings.Contains(err.Error(), "version 560.35.03, do not fit") || !strings.HasPrefix(out.String(), `{"ID":7,"Error":"the NVIDIA driver`) {
		t.Errorf("%v, said %s", err, &out)
	}
}
