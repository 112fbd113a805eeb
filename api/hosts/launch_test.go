package hosts

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func TestLaunchOut(t *testing.T) {
	spec := app.Spec{
		Name: "web", Kind: app.Service, GPUs: 2,
		Container: buoy.CreateRequest{
			Name: "ignored", Flist: "docker.io/library/nginx:1.27", Entrypoint: []string{"/docker-entrypoint.sh"}, Command: []string{"nginx", "-g", "daemon off;"},
			Env: []string{"A=1", "B=2", "AIWARE_ENGINE_ID=mine"}, Ports: []string{"80:80"}, Labels: map[string]string{"team": "x"},
			Limits: buoy.Limits{MilliCPU: 500, Memory: 64 << 20}, NICs: []buoy.NIC{{Type: "default"}},
		},
		Ports: []app.Port{{Container: 80, Proto: "http"}, {Container: 53, Proto: "udp", Host: 5353}},
	}
	l := app.Launch{
		Replica: app.Replica{ID: launch1, App: "web", Index: 3, Revision: 7, Standby: true}, Spec: spec,
		Digest: "sha256:1", Env: []string{"B=two", "C=a=b"},
	}
	got, err := launchOut(&l, "node1", "https://c:8443")
	if err != nil {
		t.Fatal(err)
	}
	var c buoy.CreateRequest
	if err := json.Unmarshal(got.Container, &c); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"AIWARE_HOST_ID=node1", "AIWARE_ID=" + launch1, "AIWARE_ENGINE_ID=mine", "AIWARE_CONTROLLER=https://c:8443", "A=1", "B=two", "C=a=b",
	}
	wantContainer := spec.Container
	wantContainer.Name, wantContainer.Ports, wantContainer.Standby, wantContainer.Restart, wantContainer.Env = "web-3-k7qd", nil, true, "always", env
	wantContainer.Labels = map[string]string{"team": "x", "buoy.app": "web", "buoy.launch": launch1, "buoy.revision": "7", "buoy.replica": "3"}
	wantContainer.GPUs = &buoy.GPURequest{Count: 2}
	if diff := cmp.Diff(wantContainer, c); diff != "" {
		t.Errorf("container: -want +got\n%s", diff)
	}
	got.Container = nil
	want := hostapi.LaunchContainer{
		LaunchID: launch1, EngineID: "web", BuildID: "web@7", Name: "web-3-k7qd", DockerImage: "docker.io/library/nginx:1.27", ContainerType: "service",
		ContainerConfig: hostapi.ContainerConfig{CommandLine: []string{"/docker-entrypoint.sh", "nginx", "-g", "daemon off;"}},
		IsGPU:           true, GPUType: "cuda", GPUs: 2, SoftMinMemory: 64 << 20, SoftMinVCPU: 512, Digest: "sha256:1",
		Ports: []hostapi.LaunchPort{{Container: 80}, {Container: 53, UDP: true, Host: 5353}},
	}
	for _, e := range env {
		key, value, _ := strings.Cut(e, "=")
		want.Env = append(want.Env, hostapi.KeyValue{Key: key, Value: value})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if len(spec.Container.Labels) != 1 || len(spec.Container.Env) != 3 {
		t.Errorf("the spec was changed: %+v", spec.Container)
	}
}

func TestLaunchOfJob(t *testing.T) {
	l := app.Launch{
		Replica: app.Replica{ID: "ab", App: strings.Repeat("n", 63), Index: 12, Revision: 1},
		Spec:    app.Spec{Kind: app.Cron, Job: app.JobSpec{Timeout: 90 * time.Second}},
	}
	got, err := launchOut(&l, "h", "u")
	if err != nil {
		t.Fatal(err)
	}
	var c buoy.CreateRequest
	if err := json.Unmarshal(got.Container, &c); err != nil {
		t.Fatal(err)
	}
	if c.Restart != "no" || got.ContainerType != "engine" || got.RuntimeTTL != 90 || got.GPUType != "none" || got.IsGPU {
		t.Errorf("%s %+v", c.Restart, got)
	}
	if len(c.Name) != 63 || !strings.HasSuffix(c.Name, "n-12-ab") {
		t.Errorf("name %q has %d bytes", c.Name, len(c.Name))
	}
	l.Spec.Container.Restart = "on-failure:3"
	if c := containerOf(&l, "h", "u"); c.Restart != "on-failure:3" {
		t.Errorf("restart %q", c.Restart)
	}
}

func TestActionOut(t *testing.T) {
	got, err := actionOut(app.Orders{
		Mode: app.Drain, Stop: []app.StopOrder{{Launch: "a", Container: "web-1-a", Force: true}}, Start: []string{"b"}, Pull: []string{"nginx"}, Full: true,
	}, "h", "u")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"mode":"drain","launchContainer":[],"terminateContainer":[{"dockerContainerId":"web-1-a","launchId":"a","force":true}],` +
		`"pullDockerImages":[{"buildID":"","dockerImage":"nginx","engineID":""}],"registries":[],"mount":[],"agentProxyEnabled":false,` +
		`"launchNodeRedContainer":[],"terminateNodeRedContainer":[],"startContainer":[{"launchId":"b"}],"full":true}`
	if raw, _ := json.Marshal(got); string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
	if got, _ := actionOut(app.Orders{}, "h", "u"); got.Mode != hostapi.Continue {
		t.Errorf("no mode is %q", got.Mode)
	}
}

// TestOrdersOfATerminatedHost: it is told so, also when it has been forgotten meanwhile.
func TestOrdersOfATerminatedHost(t *testing.T) {
	f, s := server(t)
	if w := ask(s, "POST", "/host/node1/terminate", ""); w.Code != 200 {
		t.Fatal(w.Body)
	}
	a := into[hostapi.HostAction](t, ask(s, "POST", "/host/node1/updatestatus", `{}`, token("token1")), 200)
	if a.Mode != hostapi.Terminate {
		t.Errorf("mode %q", a.Mode)
	}
	f.fail = errNoHost
	a = into[hostapi.HostAction](t, ask(s, "POST", "/host/node1/updatestatus", `{}`, token("token1")), 200)
	if a.Mode != hostapi.Terminate {
		t.Errorf("forgotten: mode %q", a.Mode)
	}
}

// TestRegisteringAgain keeps the id and replaces the token.
func TestRegisteringAgain(t *testing.T) {
	_, s := server(t)
	first := join(t, s, "n5")
	second := join(t, s, "n5")
	if w := ask(s, "POST", "/host/n5/updatestatus", `{}`, token(first)); w.Code != 401 {
		t.Errorf("the former token is %d", w.Code)
	}
	if w := ask(s, "POST", "/host/n5/updatestatus", `{}`, token(second)); w.Code != 200 {
		t.Errorf("the token is %d %s", w.Code, w.Body)
	}
	own := into[hostapi.RegisterResponse](t, ask(s, "POST", "/host/register", `{"info":{}}`, token(second)), 201)
	if own.HostID != "n5" || own.HostToken == second || own.ConfigProperties.ReportIntervalSeconds != 10 {
		t.Errorf("%+v", own)
	}
}

// TestWhereTheControllerIs: containers are told where their host has found it;
// a socket is nothing that they could ask.
func TestWhereTheControllerIs(t *testing.T) {
	for _, tt := range []struct {
		url, want string
		from      []string
	}{
		{"http://127.0.0.1:8080", `"AIWARE_CONTROLLER","value":"http://127.0.0.1:8080"`, nil},
		{"", "", nil},
		{"http://127.0.0.1:8080", `"AIWARE_CONTROLLER","value":"http://127.0.0.1"`, []string{"Remote: 203.0.113.9:5555"}},
	} {
		f, s := server(t, func(c *Config) { c.URL = tt.url })
		f.orders["node1"] = app.Orders{Launch: []app.Launch{{Replica: f.replicas[launch1], Spec: f.specs["web"]}}}
		w := ask(s, "POST", "/host/node1/updatestatus", `{}`, append(tt.from, token("token1"))...)
		if got := w.Body.String(); !strings.Contains(got, tt.want) || (tt.want == "") == strings.Contains(got, "AIWARE_CONTROLLER") || !strings.Contains(got, "AIWARE_ID") {
			t.Errorf("%q %v: %s", tt.url, tt.from, got)
		}
	}
}
