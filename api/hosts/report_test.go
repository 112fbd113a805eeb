package hosts

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
)

var addrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestReportIn(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	three, digest := 3, "sha256:"+strings.Repeat("0", 64)
	got, err := reportIn(hostapi.HostStatus{
		CPUUtilized: 100.4, NumCPU: 4, MemoryAvailable: 5, MemoryUsed: 6, DiskAvailableRoot: 7, DiskAvailableOptAiware: 8, GPUAvailable: 1,
		NumContainers: 9, Boot: "b", Sequence: 11, Time: at, DiskTotal: 12, Others: hostapi.Reserved{MilliCPU: 13, Memory: 14, GPUs: 1},
		ContainerStatus: []hostapi.ContainerStatus{
			{DockerContainerID: "not-ours", CPUUtilization: 1},
			{LaunchID: "l1", EngineID: "web", DockerContainerID: "c1"}, // as aiWARE's agent says it
			{
				LaunchID: "l2", DockerContainerID: "c2", CPUUtilization: 150, MemoryUsed: 15, State: "halted", Reason: "Exited",
				Message: strings.Repeat("é", 1000), Health: &hostapi.Health{Status: "unhealthy", Failures: 2, LastCheck: at, LastError: "no", ResponseTime: .25},
				Ports:   map[string]string{"80": "10.0.0.7:1", "81": "0.0.0.0:2", "82": ":3", "83": "[::]:4", "53/udp": "10.0.0.7:5"},
				Address: "172.18.0.2/16", Digest: digest, Started: at, Finished: at, ExitCode: &three, OOM: true, Restarts: 4, Throttled: 5,
			},
		},
	}, "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	want := app.Report{
		Boot: "b", Seq: 11, Time: at, CPU: 100, MemoryUsed: 6, MemoryFree: 5, DiskFree: 8, DiskTotal: 12, RootFree: 7, GPUsFree: 1,
		Others: app.Reserved{MilliCPU: 13, Memory: 14, GPUs: 1}, Total: 9,
		Containers: []app.Container{
			{Launch: "l1", App: "web", Name: "c1", ID: "c1", State: "running"},
			{
				Launch: "l2", Name: "c2", ID: "c2", State: "halted", Health: "unhealthy", Failures: 2, Checked: at, Response: 250 * time.Millisecond,
				CheckErr: "no", Address: "172.18.0.2/16", Started: at, Finished: at, ExitCode: 3, Reason: "Exited", Message: strings.Repeat("é", 512) + "…",
				Restarts: 4, Digest: digest, CPU: 150, Memory: 15, OOM: true, Throttled: 5,
				Ports: map[uint16]netip.AddrPort{
					80: netip.MustParseAddrPort("10.0.0.7:1"), 81: netip.MustParseAddrPort("10.0.0.7:2"), 82: netip.MustParseAddrPort("10.0.0.7:3"),
					83: netip.MustParseAddrPort("10.0.0.7:4"), 53: netip.MustParseAddrPort("10.0.0.7:5"),
				},
			},
		},
	}
	if diff := cmp.Diff(want, got, addrs); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestReportThereAndBack: what GET …/status says is what was reported.
func TestReportThereAndBack(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	zero := 0
	in := hostapi.HostStatus{
		HostID: "h", CPUUtilized: 50, NumCPU: 4, VCPUAvailable: 2048, MemoryAvailable: 5, MemoryUsed: 6, DiskAvailableRoot: 7, DiskAvailableOptAiware: 8,
		NumGPU: 1, GPUAvailable: 1, NumContainers: 9, NumEngineInstances: 1, Boot: "b", Sequence: 11, Time: at, DiskTotal: 12,
		ContainerStatus: []hostapi.ContainerStatus{
			{
				LaunchID: "l2", EngineID: "web", DockerContainerID: "c2", CPUUtilization: 150, MemoryUsed: 15, State: "running", Health: &hostapi.Health{Status: "healthy"},
				Ports: map[string]string{"80": "10.0.0.7:1"}, Started: at,
			},
			{LaunchID: "l3", State: "halted", Finished: at, ExitCode: &zero},
		},
	}
	r, err := reportIn(in, "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	h := app.Host{ID: "h", Facts: app.Facts{MilliCPU: 4000, GPUs: make([]app.GPU, 1)}, Report: r}
	if diff := cmp.Diff(in, statusOut(h)); diff != "" {
		t.Errorf("-in +out\n%s", diff)
	}
}

func TestBadReports(t *testing.T) {
	_, s := server(t)
	long := strings.Repeat("x", 300)
	for body, want := range map[string]string{
		``:                         "the body is empty",
		`[]`:                       "must be an object",
		`null`:                     "null",
		`{`:                        "not JSON",
		`{} {}`:                    "not JSON",
		"{\"boot\":\"\xff\"}":      "UTF-8",
		`{"CPUUtilized":NaN}`:      "not JSON",
		`{"CPUUtilized":1e999}`:    "CPUUtilized",
		`{"CPUUtilized":"3"}`:      `must be a number, not text`,
		`{"CPUUtilized":-1}`:       "0 to 100",
		`{"CPUUtilized":800}`:      "0 to 100",
		`{"numCPU":-1}`:            "numCPU",
		`{"numCPU":1.5}`:           "numCPU",
		`{"numCPU":99999999}`:      "numCPU",
		`{"memoryAvailable":-1}`:   "memoryAvailable",
		`{"memoryUsed":1e30}`:      "memoryUsed",
		`{"diskTotal":-5}`:         "diskTotal",
		`{"GPUAvailable":-1}`:      "GPUAvailable",
		`{"numContainers":-1}`:     "numContainers",
		`{"sequence":-1}`:          "sequence",
		`{"time":"yesterday"}`:     "the body cannot be read",
		`{"others":{"memory":-1}}`: "others.memory",
		`{"boot":"` + long + `"}`:  "boot",
		`{"same":3,"containerStatus":[{"launchID":"a"}]}`:                      "exclude",
		`{"containerStatus":{}}`:                                               "containerStatus",
		`{"containerStatus":[{"launchID":"a"},{"launchID":"a"}]}`:              "twice",
		`{"containerStatus":[{"launchID":"` + long + `"}]}`:                    "launchID",
		`{"containerStatus":[{"launchID":"a","dockerContainerId":"a\nb"}]}`:    "dockerContainerId",
		`{"containerStatus":[{"launchID":"a","state":"` + long + `"}]}`:        "state",
		`{"containerStatus":[{"launchID":"a","memoryUsed":-1}]}`:               "memoryUsed",
		`{"containerStatus":[{"launchID":"a","restarts":-1}]}`:                 "restarts",
		`{"containerStatus":[{"launchID":"a","CPUUtilization":-1}]}`:           "CPUUtilization",
		`{"containerStatus":[{"launchID":"a","throttled":101}]}`:               "throttled",
		`{"containerStatus":[{"launchID":"a","health":{"status":"so so"}}]}`:   "so so",
		`{"containerStatus":[{"launchID":"a","health":{"responseTime":-1}}]}`:  "responseTime",
		`{"containerStatus":[{"launchID":"a","health":{"failures":-1}}]}`:      "failures",
		`{"containerStatus":[{"launchID":"a","ports":{"0":"10.0.0.1:1"}}]}`:    "no port",
		`{"containerStatus":[{"launchID":"a","ports":{"http":"10.0.0.1:1"}}]}`: "no port",
		`{"containerStatus":[{"launchID":"a","ports":{"80":"somewhere"}}]}`:    "ADDRESS:PORT",
		`{"containerStatus":[{"launchID":"a","ports":{"80":"10.0.0.1:0"}}]}`:   "ADDRESS:PORT",
	} {
		w := ask(s, "POST", "/host/node1/updatestatus", body, token("token1"))
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%.80s: %d %s, want 400 with %q", body, w.Code, w.Body, want)
		}
	}
}

// TestManyContainers: ten thousand are within the limit.
func TestManyContainers(t *testing.T) {
	f, s := server(t)
	at := time.Now()
	status := hostapi.HostStatus{NumContainers: 10_000}
	for i := range 10_000 {
		status.ContainerStatus = append(status.ContainerStatus, hostapi.ContainerStatus{
			DockerContainerID: fmt.Sprintf("an-app-with-a-long-name-%d-abcd", i), LaunchID: fmt.Sprintf("k7qd5m2hzv3x9w1c8r6t4b%05d", i),
			CPUUtilization: 12.345, MemoryUsed: 1 << 30, State: "running", Health: &hostapi.Health{Status: "healthy", LastCheck: at, ResponseTime: 0.0123},
			Ports: map[string]string{"8080": "10.0.0.7:20004"}, Address: "172.18.100.100/16",
			Digest: "sha256:" + strings.Repeat("0", 64), Started: at,
		})
	}
	raw, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > maxReport*3/4 {
		t.Errorf("%d bytes are too near the limit of %d", len(raw), maxReport)
	}
	into[hostapi.HostAction](t, ask(s, "POST", "/host/node1/updatestatus", string(raw), token("token1")), 200)
	if got := len(f.hosts["node1"].Report.Containers); got != 10_000 {
		t.Errorf("%d containers came through", got)
	}
	got := into[hostapi.HostStatus](t, ask(s, "GET", "/host/node1/status", ""), 200)
	if len(got.ContainerStatus) != 10_000 {
		t.Errorf("%d containers came back", len(got.ContainerStatus))
	}
}

func TestSameIsPassedOn(t *testing.T) {
	f, s := server(t)
	f.orders["node1"] = app.Orders{Full: true}
	a := into[hostapi.HostAction](t, ask(s, "POST", "/host/node1/updatestatus", `{"boot":"b1","sequence":5,"same":4}`, token("token1")), 200)
	if r := f.hosts["node1"].Report; !a.Full || r.Same != 4 || r.Seq != 5 || r.Containers != nil {
		t.Errorf("full %v, report %+v", a.Full, r)
	}
}

// FuzzReport reads reports of strangers: what is accepted is sane, and comes
// back as it was.
func FuzzReport(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"CPUUtilized":3.5,"numCPU":4,"containerStatus":[]}`,
		`{"containerStatus":[{"launchID":"a","dockerContainerId":"web-1","state":"running","ports":{"80":"10.0.0.7:20000"},"health":{"status":"healthy"},"exitCode":0}]}`,
		`{"time":"2026-11-21T08:00:00Z","boot":"b","sequence":18446744073709551615,"same":1}`,
		`{"containerStatus":[{"launchID":"a","ports":{"53/udp":":1"}},{}]}`, `{"CPUUtilized":1e308,"memoryUsed":-9223372036854775808}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s hostapi.HostStatus
		if api.Loose(raw, &s) != nil {
			return
		}
		r, err := reportIn(s, "10.0.0.7")
		if err != nil {
			if err.Error() == "" || len(err.Error()) > 2000 {
				t.Errorf("error of %d bytes: %.200s", len(err.Error()), err)
			}
			return
		}
		if !(r.CPU >= 0 && r.CPU <= 100) || r.MemoryFree < 0 || r.MemoryUsed < 0 || r.DiskFree < 0 || r.Total < 0 || len(r.Containers) > len(s.ContainerStatus) {
			t.Errorf("insane: %+v", r)
		}
		for _, c := range r.Containers {
			if c.Launch == "" || c.Memory < 0 || !(c.CPU >= 0) || c.State == "" || len(c.Message) > maxMessage+len("…") {
				t.Errorf("insane: %+v", c)
			}
		}
		again, err := reportIn(statusOut(app.Host{Report: r}), "10.0.0.7")
		if err != nil {
			t.Fatalf("what was accepted is not any more: %v", err)
		}
		r.Same, again.Same = 0, 0
		if diff := cmp.Diff(r, again, addrs, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0),
			cmpopts.IgnoreFields(app.Container{}, "ExitCode", "Response", "Failures", "Checked", "CheckErr", "Message")); diff != "" {
			t.Errorf("-first +second\n%s", diff)
		}
	})
}

func TestHostIn(t *testing.T) {
	from := netip.MustParseAddr("192.0.2.7")
	got, err := hostIn(hostapi.HostDetail{
		HostID: "h", AgentLabel: "l", AgentVersionNumber: "v1", IPs: []string{"10.0.0.1"}, Memory: 1, NumCPU: 2, NumGPU: 2, GPUType: "T4",
		RunModes: "engine", ServerTypeID: "s", Labels: map[string]string{"zone": "a"}, Arch: "arm64", OS: "Debian", Kernel: "6.12",
	}, from)
	want := app.Host{
		ID: "h", Name: "l", Labels: map[string]string{"zone": "a"}, Addr: "192.0.2.7",
		Facts: app.Facts{
			Arch: "arm64", OS: "Debian", Kernel: "6.12", Version: "v1", MilliCPU: 2000, Memory: 1, GPUs: []app.GPU{{Model: "T4"}, {Model: "T4"}},
			Addrs: []string{"10.0.0.1"}, AgentLabel: "l", ServerTypeID: "s", RunModes: "engine",
		},
	}
	if diff := cmp.Diff(want, got, addrs); err != nil || diff != "" {
		t.Errorf("%v; -want +got\n%s", err, diff)
	}
	for i, bad := range []hostapi.HostDetail{
		{Address: "0.0.0.0"},
		{Address: "::1%"},
		{Address: "host.example"},
		{Address: "224.0.0.1"},
		{Name: "a\x00b"},
		{Name: strings.Repeat("x", 257)},
		{Labels: map[string]string{"": "x"}},
		{Labels: map[string]string{"k": "a\nb"}},
		{IPs: []string{"\t"}},
		{IPs: make([]string, 300)},
		{GPUs: []hostapi.GPU{{Model: "x", Memory: -1}}},
		{NumCPU: 1 << 20},
		{Memory: -1},
		{NumGPU: -1},
		{NumGPU: 1 << 30},
	} {
		if _, err := hostIn(bad, from); err == nil {
			t.Errorf("%d: %+v is accepted", i, bad)
		}
	}
	for id, want := range map[string]bool{
		"525400123456": true, "a.b-c_D": true, "f3976780-f369-45df-ab54-206149dc000e": true,
		"": false, ".": false, "..": false, "-a": false, "a/b": false, "a b": false, "é": false, strings.Repeat("a", 65): false,
	} {
		if saneID(id) != want {
			t.Errorf("saneID(%q) = %v", id, !want)
		}
	}
}

func TestDetailOut(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	h := app.Host{ID: "h", Mode: app.Terminate, Reason: "spot", Detail: "price", Terminated: at, Registered: at, Facts: app.Facts{MilliCPU: 1500}}
	d := detailOut(app.HostView{Host: h, Liveness: app.Alive, Replicas: 3})
	if d.IsActive || d.TerminationReason != "spot" || d.TerminationDetail != "price" || !d.TerminationDateTime.Equal(at) || d.LastUpdateDateTime != nil || d.NumCPU != 2 {
		t.Errorf("%+v", d)
	}
	h.Mode = app.Drain
	if d := detailOut(app.HostView{Host: h, Liveness: app.Alive, Replicas: 3}); !d.Drain || d.DrainReason != "spot" || !d.IsActive || d.TerminationReason != "" {
		t.Errorf("%+v", d)
	}
	if d := detailOut(app.HostView{Host: h, Liveness: app.Lost, Replicas: 3}); d.IsActive || d.Liveness != "lost" {
		t.Errorf("%+v", d)
	}
	free := app.Resources{MilliCPU: 250, Memory: -1, GPUs: 1} // more memory was given than there is now
	if d := detailOut(app.HostView{Host: h, Free: free}); *d.Free != (hostapi.Free{MilliCPU: 250, GPUs: 1}) {
		t.Errorf("%+v", d.Free)
	}
	if reflect.ValueOf(d.IPs).IsNil() {
		t.Error("ips is null")
	}
}

// TestMinimalAnswer: a host that says that it can do with less gets an answer
// without a body while there is nothing to do, and orders as all others.
func TestMinimalAnswer(t *testing.T) {
	f, s := server(t)
	host := join(t, s, "h1")
	f.orders["h1"] = app.Orders{Mode: app.Continue}
	got := ask(s, "POST", "/host/h1/updatestatus", `{}`, token(host), "Prefer: return=minimal")
	if got.Code != 204 || got.Body.Len() > 0 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	for _, o := range []app.Orders{
		{Mode: app.Continue, Full: true},
		{Mode: app.Continue, Start: []string{"l1"}},
		{Mode: app.Continue, Stop: []app.StopOrder{{Launch: "l1"}}},
	} {
		f.orders["h1"] = o
		got := ask(s, "POST", "/host/h1/updatestatus", `{}`, token(host), "Prefer: return=minimal")
		if a := into[hostapi.HostAction](t, got, 200); string(a.Mode) != string(o.Mode) {
			t.Errorf("%+v: %s", o, got.Body)
		}
	}
}

// TestBeforeTheFirstReport nothing is said that a host has not said.
func TestBeforeTheFirstReport(t *testing.T) {
	_, s := server(t)
	tok := into[hostapi.RegisterResponse](t, ask(s, "POST", "/host/register", `{"info":{"hostID":"n9","numGPU":2}}`, token(joinToken)), 201).HostToken
	if w := ask(s, "GET", "/host/n9/status", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "host n9 has not reported yet") {
		t.Errorf("status %d %s", w.Code, w.Body)
	}
	if w := ask(s, "GET", "/hosts/cpu_usage?hostID=n9", ""); !strings.Contains(w.Body.String(), `[{"hostID":"n9","values":[]}]`) {
		t.Errorf("cpu_usage: %s", w.Body)
	}
	if d := into[hostapi.HostDetail](t, ask(s, "GET", "/host/n9/detail", ""), 200); d.GPUAvailable != 2 {
		t.Errorf("%d of its GPUs are available", d.GPUAvailable)
	}
	if w := ask(s, "POST", "/host/n9/updatestatus", `{"CPUUtilized":5,"GPUAvailable":1}`, token(tok)); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if got := into[hostapi.HostStatus](t, ask(s, "GET", "/host/n9/status", ""), 200); got.CPUUtilized != 5 || got.GPUAvailable != 1 {
		t.Errorf("status %+v", got)
	}
	if d := into[hostapi.HostDetail](t, ask(s, "GET", "/host/n9/detail", ""), 200); d.GPUAvailable != 1 {
		t.Errorf("%d of its GPUs are available", d.GPUAvailable)
	}
}
