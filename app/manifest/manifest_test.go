package manifest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// one is the only app of a manifest.
func one(t *testing.T, text string) manifest.App {
	t.Helper()
	apps, err := manifest.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v, in:\n%s", err, text)
	}
	if len(apps) != 1 {
		t.Fatalf("%d apps", len(apps))
	}
	return apps[0]
}

// web is an App with more in its spec.
func web(more string) string {
	return "apiVersion: v1\nkind: App\nmetadata: {name: web}\nspec:\n  image: nginx:1\n" + more
}

func TestTheDocumentsExample(t *testing.T) {
	got := one(t, `{"apiVersion":"v1","kind":"App","metadata":{"name":"my-app","labels":{"app":"my-app","version":"v1"}},
		"spec":{"type":"http","image":"nginx:alpine","ports":[{"containerPort":80,"protocol":"HTTP"}]}}`)
	want := app.Spec{
		Name: "my-app", Kind: app.Service, Labels: map[string]string{"app": "my-app", "version": "v1"},
		Container: buoy.CreateRequest{Flist: "nginx:alpine", NICs: []buoy.NIC{{Type: "default"}}, StopGrace: 30},
		Ports:     []app.Port{{Container: 80, Proto: "http"}},
		Scaling: app.Scaling{
			Mode: app.Manual, Min: 1, Max: 100, RPS: 50, P95: 250 * time.Millisecond, CPU: 70, Memory: 75, Connections: 100,
			OutPct: 80, InPct: 30, Window: time.Minute, Cooldown: 3 * time.Minute, Stabilization: 5 * time.Minute, OutStep: 2, InStep: 1,
		},
		Drain: 30 * time.Second, Placement: app.Placement{Patience: 5 * time.Minute},
		Rollout: app.Rollout{MaxSurge: 1, Deadline: 5 * time.Minute, Revert: true},
	}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Error(diff)
	}
	if got := string(got.Source); !strings.HasPrefix(got, `{"apiVersion":"v1","kind":"App","metadata":{"name":"my-app",`) {
		t.Errorf("source %s", got)
	}
}

// TestFiles reads what lies in testdata: every field in both spellings. Beside
// each manifest lies the Spec that it means.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			apps, err := manifest.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".json"
			var out []any
			for _, a := range apps {
				out = append(out, map[string]any{"spec": a.Spec, "notes": a.Notes})
			}
			got, err := json.MarshalIndent(out, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
				t.Error(diff)
			}
			for _, a := range apps {
				again(t, a)
			}
		})
	}
}

// again: the source of an app, and what is written of its Spec, mean the same.
func again(t *testing.T, a manifest.App) {
	t.Helper()
	written, err := manifest.Of(a.Spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(a.Source), string(written)} {
		back, err := manifest.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%v, of %s", err, text)
		}
		if diff := cmp.Diff(a.Spec, back[0].Spec); diff != "" {
			t.Errorf("%s\nof %s", diff, text)
		}
		valid(t, text)
	}
}

func TestDefaults(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		ok   func(app.Spec) bool
	}{
		"scaling":           {web("scaling: {}\n"), func(s app.Spec) bool { return s.Scaling.Mode == app.Auto && s.Scaling.Max == 5 && s.Scaling.Min == 1 }},
		"manual":            {web("scaling: {mode: manual}\n"), func(s app.Spec) bool { return s.Scaling.Mode == app.Manual && s.Scaling.Max == 100 }},
		"least above most":  {web("scaling: {minReplicas: 7}\n"), func(s app.Spec) bool { return s.Scaling.Min == 7 && s.Scaling.Max == 7 }},
		"scaling in spec":   {web("  scaling: {maxReplicas: 9}\n"), func(s app.Spec) bool { return s.Scaling.Max == 9 }},
		"replicas":          {web("  replicas: 3\n"), func(s app.Spec) bool { return s.Replicas == 3 && s.Scaling.Min == 1 }},
		"standby":           {web("  standby: 2\n"), func(s app.Spec) bool { return s.Scaling.Standby == 2 }},
		"no nics":           {web("  nics: []\n"), func(s app.Spec) bool { return len(s.Container.NICs) == 0 && !s.Container.HostNetworking }},
		"host network":      {web("  hostNetwork: true\n"), func(s app.Spec) bool { return len(s.Container.NICs) == 0 && s.Container.HostNetworking }},
		"type of ports":     {web("  type: tcp\n  ports: [{containerPort: 6379}]\n"), func(s app.Spec) bool { return s.Ports[0].Proto == "tcp" }},
		"grpc":              {web("  ports: [{containerPort: 1, protocol: grpc}]\n"), func(s app.Spec) bool { return s.Ports[0].Proto == "h2c" }},
		"image by any name": {"apiVersion: v1\nkind: Worker\nmetadata: {name: w}\nspec: {flist: a}\n", func(s app.Spec) bool { return s.Container.Flist == "a" && s.Kind == app.Service }},
		"health": {web("  ports: [{containerPort: 81}]\nhealthCheck: {}\n"), func(s app.Spec) bool {
			h := s.Container.Health
			return h.Path == "/health" && h.Port == 81 && h.Type == "http" && h.InitialDelay == 30 && h.Restart && h.Drain == 30
		}},
		"health, never": {web("  ports: [{containerPort: 81}]\n  restartPolicy: Never\nhealthCheck: {protocol: TCP}\n"), func(s app.Spec) bool {
			h := s.Container.Health
			return h.Type == "tcp" && !h.Restart && s.Container.Restart == "no"
		}},
		"health by name":    {web("  ports: [{containerPort: 81}, {containerPort: 82, name: admin}]\nhealthCheck: {port: admin, drainSeconds: 0}\n"), func(s app.Spec) bool { h := s.Container.Health; return h.Port == 82 && h.Drain == 0 }},
		"health by command": {web("healthCheck: {command: [ok]}\n"), func(s app.Spec) bool { h := s.Container.Health; return h.Type == "exec" && h.Port == 0 }},
		"drain of the app":  {web("  ports: [{containerPort: 81}]\n  termination: {drainSeconds: 5}\nhealthCheck: {}\n"), func(s app.Spec) bool { return s.Drain == 5*time.Second && s.Container.Health.Drain == 5 }},
		"daemon": {strings.Replace(web(""), "App", "Daemon", 1), func(s app.Spec) bool {
			return s.Kind == app.Daemon && s.Rollout.MaxUnavailable == 1 && s.Rollout.MaxSurge == 0
		}},
		"job":               {strings.Replace(web(""), "App", "Job", 1), func(s app.Spec) bool { return s.Job == (app.JobSpec{Completions: 1, Parallelism: 1, Retries: 6}) }},
		"forever":           {web("  placement: {patience: forever}\n"), func(s app.Spec) bool { return s.Placement.Patience < 0 }},
		"null is not there": {web("  replicas:\n  scaling:\n  command: ~\n"), func(s app.Spec) bool { return s.Replicas == 0 && s.Scaling.Mode == app.Manual }},
		"env without value": {web("  env: [{name: A}, {name: B, source: sdk, key: app.name}, {name: C, value: }]\n"), func(s app.Spec) bool { return strings.Join(s.Container.Env, " ") == "A= C=" && s.Env[0].Name == "B" }},
		"whole numbers": {web("  replicas: 3.0\n  ports: [{containerPort: 8e1}]\n  shmSize: 1e6\n"), func(s app.Spec) bool {
			return s.Replicas == 3 && s.Ports[0].Container == 80 && s.Container.ShmSize == 1e6
		}},
		"a bit of CPU":     {web("  resources: {cpu: 0.0101}\n"), func(s app.Spec) bool { return s.Container.Limits.MilliCPU == 11 }},
		"any case":         {web("  type: Tcp\n  restartPolicy: onfailure:2\n  ports: [{containerPort: 1}]\n"), func(s app.Spec) bool { return s.Ports[0].Proto == "tcp" && s.Container.Restart == "on-failure:2" }},
		"env as an object": {web("  env: {A: 1, B: yes, C: true, D: 1.50, E: null}\n"), func(s app.Spec) bool { return strings.Join(s.Container.Env, " ") == "A=1 B=yes C=true D=1.50 E=" }},
		"odd numbers":      {web("  env: {A: 0644, B: 0x1F, C: .5, D: 1_000}\n"), func(s app.Spec) bool { return strings.Join(s.Container.Env, " ") == "A=0644 B=0x1F C=.5 D=1_000" }},
		"expose":           {web("  ports: [{containerPort: 80}]\n  expose: {host: a, hosts: [b], path: /p}\n"), func(s app.Spec) bool { return fmt.Sprint(s.Expose.Rules) == "[{a /p} {b /p}]" }},
		"expose by path":   {web("  ports: [{containerPort: 80}]\n  expose: {path: /p}\n"), func(s app.Spec) bool { return fmt.Sprint(s.Expose.Rules) == "[{ /p}]" }},
		"volume of the app": {web("  volumes: [{name: data, mountPath: /d}]\n"), func(s app.Spec) bool {
			return s.Container.Mounts[0] == buoy.Mount{Type: "volume", Source: "web.data", Target: "/d"}
		}},
		"volume of all apps": {web("  volumes: [{name: data, mountPath: /d, shared: true}]\n"), func(s app.Spec) bool { return s.Container.Mounts[0].Source == "data" }},
		"tmpfs": {web("  volumes: [{mountPath: /d, tmpfs: true, size: 1Mi}]\n"), func(s app.Spec) bool {
			return s.Container.Mounts[0] == buoy.Mount{Type: "tmpfs", Target: "/d", Size: 1 << 20}
		}},
	} {
		a := one(t, test.text)
		if !test.ok(a.Spec) {
			t.Errorf("%s: %+v", name, a.Spec)
		}
		again(t, a)
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]int64{`100m`: 100, `"0.5"`: 500, `0.5`: 500, `2`: 2000, `"2"`: 2000, `1.5`: 1500} {
		if got := one(t, web("  resources: {cpu: "+text+"}\n")).Spec.Container.Limits.MilliCPU; got != want {
			t.Errorf("cpu %s = %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]int64{`128Mi`: 128 << 20, `512M`: 512 << 20, `1Gi`: 1 << 30, `1G`: 1 << 30, `67108864`: 64 << 20, `"64 MiB"`: 64 << 20} {
		if got := one(t, web("  resources: {memory: "+text+"}\n")).Spec.Container.Limits.Memory; got != want {
			t.Errorf("memory %s = %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]time.Duration{`5`: 5 * time.Second, `"5"`: -1, `5s`: 5 * time.Second, `1m30s`: 90 * time.Second, `0.25`: 250 * time.Millisecond, `0`: 0} {
		apps, err := manifest.Parse([]byte(web("  termination: {drainSeconds: " + text + "}\n")))
		if want < 0 {
			if err == nil {
				t.Errorf("drain %s was taken", text)
			}
			continue
		}
		if err != nil || apps[0].Spec.Drain != want {
			t.Errorf("drain %s = %v, %v; want %v", text, apps, err, want)
		}
	}
}

func TestConstraints(t *testing.T) {
	for text, want := range map[string]app.Constraint{
		`label.zone == a`:             {Attribute: "label.zone", Op: "=", Values: []string{"a"}},
		`label.zone=a`:                {Attribute: "label.zone", Op: "=", Values: []string{"a"}},
		`label.zone != "a b"`:         {Attribute: "label.zone", Op: "!=", Values: []string{"a b"}},
		`gpu.model ~ H200`:            {Attribute: "gpu.model", Op: "~", Values: []string{"H200"}},
		`gpu.model =~ '^H[12]00 .*'`:  {Attribute: "gpu.model", Op: "~", Values: []string{"^H[12]00 .*"}},
		`arch in (amd64, arm64)`:      {Attribute: "arch", Op: "in", Values: []string{"amd64", "arm64"}},
		`arch not  in ( "amd64" )`:    {Attribute: "arch", Op: "not in", Values: []string{"amd64"}},
		`label.ssd exists`:            {Attribute: "label.ssd", Op: "exists"},
		`label.ssd not exists`:        {Attribute: "label.ssd", Op: "not exists"},
		`label.disks >= 4`:            {Attribute: "label.disks", Op: ">=", Values: []string{"4"}},
		`label.example.com/tier < 10`: {Attribute: "label.example.com/tier", Op: "<", Values: []string{"10"}},
	} {
		quoted, _ := json.Marshal(text)
		a := one(t, web("  placement: {constraints: ["+string(quoted)+"]}\n"))
		if diff := cmp.Diff([]app.Constraint{want}, a.Spec.Placement.Constraints); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		again(t, a)
	}
	for _, text := range []string{"", "zone", "label.zone ==", "arch in (a", "arch in ()", "label.ssd exists yes", "== a", "archin (a)", `arch == "a`} {
		quoted, _ := json.Marshal(text)
		if apps, err := manifest.Parse([]byte(web("  placement: {constraints: [" + string(quoted) + "]}\n"))); err == nil {
			t.Errorf("%q is %+v", text, apps[0].Spec.Placement)
		}
	}
}

// TestProblems: what is wrong is said with its path, its line and what to do.
func TestProblems(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "the manifest is empty"},
		{"# nothing\n---\n", "the manifest is empty"},
		{"- a\n", "the manifest is a list; it must be an object"},
		{"a: [\n", "the manifest is no YAML: line 1"},
		{`{"a":`, "the manifest is no JSON: it ends too early"},
		{"{\"a\": 1,\n\"b\": ]}", "is no JSON: invalid character ']' looking for beginning of value in line 2"},
		{"\xff\xfe", "the manifest is not UTF-8"},
		{"apiVersion: v2\n", `apiVersion is "v2"; it must be v1 (line 1)`},
		{"kind: Pod\n", `kind is "Pod"; it must be App, Worker, Job, CronJob or Daemon (line 1)`},
		{"{\n\"apiVersion\": \"v1\",\n\"kind\": \"Pod\"\n}", `kind is "Pod"; it must be App, Worker, Job, CronJob or Daemon (line 3)`},
		{`{"apiVersion": "v1", "kind": "Pod"}`, `kind is "Pod"; it must be App, Worker, Job, CronJob or Daemon; metadata is missing`},
		{"apiVersion: v1\nkind: App\nspec: {image: a}\n", "metadata is missing: it has the name of the app"},
		{web("  imagee: b\n"), `spec.imagee is not known here; did you mean "image"? (line 6)`},
		{web("  maxReplicas: 3\n"), `spec.maxReplicas is not known here; there is scaling.maxReplicas (line 6)`},
		{web("  frobnicate: 3\n"), `spec.frobnicate is not known here (line 6)`},
		{web("  image: b\n"), "spec.image is there twice, in lines 5 and 6"},
		{`{"kind":"App","spec":{"image":"a","image":"b"}}`, "spec.image is there twice"},
		{"{\"kind\":\"App\",\"spec\":{\"image\":\"a\",\n\"image\":\"b\"}}", "spec.image is there twice, in lines 1 and 2"},
		{web("  ports: [{port: 80}]\n"), `spec.ports[0].port is not known here; did you mean "containerPort"? (line 6)`},
		{web("  ports: [{containerPort: 80, host: 80}]\n"), `spec.ports[0].host is not known here; did you mean "hostPort"? (line 6)`},
		{web("  ? \"\"\n  : 1\n  a..b: 1\n"), `spec."" is not known here (line 6); spec."a..b" is not known here (line 8)`},
		{web("  restart: always\n"), `spec.restart is not known here; did you mean "restartPolicy"? (line 6)`},
		{web("  resources: {limits: {}}\n"), `spec.resources.limits is not known here; there are cpu, memory, gpus, gpu, swap, pids, cpuShares and cpuset (line 6)`},
		{web("  labels: {a.b/c: [], \"x y\": ~}\n"), "spec.labels.a.b/c is a list; it must be text (line 6); spec.labels.\"x y\" has no value (line 6)"},
		{web("  flist: b\n"), "spec.flist says the same as spec.image: keep one of them"},
		{web("  replicas: many\n"), `spec.replicas is the text "many"; it must be a whole number (line 6)`},
		{web("  replicas: '3'\n"), `spec.replicas is the text "3"; it must be a whole number, without quotes (line 6)`},
		{web("  hostname: 5\n"), `spec.hostname is the number 5; it must be text, in quotes (line 6)`},
		{`{"spec":{"replicas":1e99999999}}`, `spec.replicas is 1e99999999; it must be 1 to 1000`},
		{web("  ulimits: [{name: core, hard: 18446744073709551616}]\n"), "spec.ulimits[0].hard is 18446744073709551616; it must be 0 to 18446744073709551615 (line 6)"},
		{web("  resources: {pids: 0}\n"), "spec.resources.pids is the number 0; it must be 1 to 4194304, or -1 for no limit (line 6)"},
		{web("  resources: {memory: 1Mi, swap: -2}\n"), "spec.resources.swap is -2; it must be a size, or -1 for as much as there is (line 6)"},
		{web("  shmSize: 0\n"), "spec.shmSize is 0; it must be 1 to 1125899906842624 bytes (line 6)"},
		{web("  resources: {memory: 9999999T}\n"), `spec.resources.memory is "9999999T"; it must be 0 to 1125899906842624 bytes (line 6)`},
		{web("  healthCheck: {port: 1, periodSeconds: 0}\n"), "spec.healthCheck.periodSeconds is 0; it must be 0.1 to 86400 seconds (line 6)"},
		{web("  healthCheck: {port: 1, timeoutSeconds: 0s}\n"), `spec.healthCheck.timeoutSeconds is "0s"; it must be 0.01 to 600 seconds (line 6)`},
		{web("  healthCheck: {port: 1, failureThreshold: 0}\n"), "spec.healthCheck.failureThreshold is 0; it must be 1 to 1000 (line 6)"},
		{web("  termination: {drainSeconds: 9999999h}\n"), `spec.termination.drainSeconds is "9999999h"; it must be 0 to 86400 seconds (line 6)`},
		{web("  termination: {drainSeconds: -1s}\n"), `spec.termination.drainSeconds is "-1s"; it must be 0 to 86400 seconds (line 6)`},
		{web("  replicas: 1.5\n"), `spec.replicas is the number 1.5; it must be a whole number (line 6)`},
		{web("  replicas: -1\n"), `spec.replicas is -1; it must be 1 to 1000 (line 6)`},
		{web("  readOnly: yes\n"), `spec.readOnly is the text "yes"; it must be true or false (line 6)`},
		{web("  command: run it\n"), `spec.command is the text "run it"; it must be a list of texts (line 6)`},
		{web("  ports:\n  - containerPort: 70000\n"), "spec.ports[0].containerPort is 70000; it must be 1 to 65535 (line 7)"},
		{web("  ports: [{containerPort: 80, protocol: SCTP}]\n"), `spec.ports[0].protocol is "SCTP"; it must be HTTP, H2C, GRPC, TCP or UDP (line 6)`},
		{web("  resources: {memory: lots}\n"), `spec.resources.memory is the text "lots"; it must be a size, like "128Mi", "1G" or a number of bytes (line 6)`},
		{web("  resources: {cpu: [1]}\n"), `spec.resources.cpu is a list; it must be CPUs`},
		{web("  volumes: [{name: c, mountPath: /c, configMap: {name: x}}]\n"), "spec.volumes[0].configMap is refused: there are no config maps"},
		{web("  volumes: [{mountPath: /c}]\n"), "spec.volumes[0].name is missing"},
		{web("  volumes: [{mountPath: /c, tmpfs: true, hostPath: /d}]\n"), "spec.volumes[0] is several things at a time: keep one of name, hostPath, emptyDir and tmpfs (line 6)"},
		{web("  volumes: [{mountPath: /c, name: a, hostPath: /d}]\n"), "spec.volumes[0] is several things at a time"},
		{web("  volumes: [{mountPath: /c, name: a, tmpfs: true}]\n"), "spec.volumes[0] is several things at a time"},
		{web("  volumes: [{mountPath: /c, hostPath: /a, shared: true}]\n"), "spec.volumes[0].shared is for volumes that have a name (line 6)"},
		{web("  volumes: [{mountPath: /c, tmpfs: {size: 1}, size: 2}]\n"), "spec.volumes[0].size is there, and memory has a size of its own: keep one of them (line 6)"},
		{web("  volumes: [{mountPath: /c, name: a, hostPath: /a}, {mountPath: /, hostPath: /a}]\n"), `spec.volumes[1].mountPath is "/"; it must be an absolute path below / (line 6)`},
		{web("  volumes: [{mountPath: c, hostPath: a}]\n"), `spec.volumes[0].mountPath is "c"; it must be absolute (line 6); spec.volumes[0].hostPath is the text "a"; it must be a path of the host, which begins with / (line 6)`},
		{web("  devices: [fuse, /etc]\n"), `spec.devices[0] is the text "fuse"; it must be PATH, PATH:TARGET or PATH:TARGET:PERMISSIONS, with absolute paths, or an object (line 6); spec.devices[1] is "/etc"; it must be a path below /dev, or vendor.com/class=name (line 6)`},
		{web("  env: [{name: A, value: a}, {name: A, value: b}]\n"), "spec.env[1] sets A a second time (line 6)"},
		{web("  environment:\n    A: 1\n    B: \"\\0\"\n"), "spec.environment.B has a NUL byte in it (line 8)"},
		{web("  environment:\n  - {name: A, source: sdk, key: nowhere}\n  - {name: B, value: \"\\0\"}\n"), `spec.environment[0] has A from "nowhere"; it must be one of instance.ip,`},
		{web("  environment:\n  - {name: A, source: sdk, key: app.name}\n  - {name: B, value: \"\\0\"}\n"), "spec.environment[1] has a NUL byte in it (line 8)"},
		{strings.Replace(web("  pwd: x\n"), "image: nginx:1", "flist: 'a b'", 1), `spec.flist is "a b"; it must have no blanks (line 5); spec.pwd is "x"; it must be absolute (line 6)`},
		{web("  ports: [{containerPort: 1}]\n  expose:\n    host: a..b\n    hosts: [c, c]\n    path: /?\n"), `spec.expose.host is "a..b"; it must be a host name, *.NAME or an IP address (line 8); spec.expose.hosts[1] says "c/?" a second time (line 9); spec.expose.path is "/?"; it must begin with /`},
		{strings.Replace(web("rollout: {canary: 1}\n"), "App", "Job", 1), "rollout has no meaning: a run of a Job is not replaced (line 6)"},
		{strings.Replace(web("  restartPolicy: always\n"), "App", "Job", 1), `spec.restartPolicy is "always", and replicas of a job come to an end; it must be Never or OnFailure[:N] (line 6)`},
		{web("  environment: [{name: A, value: a, source: sdk, key: app.name}]\n"), "spec.environment[0] says in two ways what A is"},
		{web("  env: [{name: A, source: sdk}]\n"), "spec.env[0] has no key for A"},
		{web("  env: [{name: A, key: b}]\n"), "spec.env[0] has no source for A"},
		{web("  schedule: '@daily'\n"), "spec.schedule is for kind CronJob alone"},
		{strings.Replace(web(""), "App", "CronJob", 1), "spec.schedule is missing: a CronJob says when it runs"},
		{strings.Replace(web("  replicas: 2\n"), "App", "Daemon", 1), "spec.replicas has no meaning: a Daemon has one replica on each host that fits"},
		{strings.Replace(web("scaling: {}\n"), "App", "Job", 1), "scaling has no meaning: a Job has job.completions"},
		{web("  job: {completions: 2}\n"), "spec.job is for kind Job and CronJob alone"},
		{web("  type: worker\n  ports: [{containerPort: 1}]\n"), "spec.ports are there, and a worker has none"},
		{web("  type: http\n"), "spec.ports is missing: an app of type http has at least one"},
		{web("  scaling: {}\nscaling: {}\n"), "scaling is in spec, too: keep one of them (line 7)"},
		{web("  standby: 1\nscaling: {standby: 2}\n"), "spec.standby is 1, and scaling.standby 2: keep one of them (line 6)"},
		{web("healthCheck: {}\n"), "healthCheck.port is missing: the app has no ports"},
		{web("  healthCheck: {protocol: EXEC, command: [a], path: /x}\n"), "spec.healthCheck.path has no meaning for a check by exec (line 6)"},
		{web("  ports: [{containerPort: 1}]\n  healthCheck: {port: admin}\n"), `spec.healthCheck.port is "admin", and no port of the app has that name`},
		{web("  termination: {terminationGracePeriodSeconds: 1.5}\n"), "spec.termination.terminationGracePeriodSeconds is 1.5s; it must be whole seconds"},
		{web("  hostNetwork: true\n  nics: [{type: default}]\n"), "spec.nics are there, and with hostNetwork"},
		{web("  args: [a, ~]\n"), "spec.args[1] is empty"},
		{web("  env: !!binary aGFsbG8=\n"), "spec.env has the tag !!binary, which has no meaning here (line 6)"},
		{web("") + "---\n" + web(""), `documents[1].metadata.name is "web", which documents[0] has, too (line 9)`},
		{web("") + "---\n" + web("  replicas: x\n"), `documents[1].spec.replicas is the text "x"`},
	} {
		apps, err := manifest.Parse([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\nis %v, %v;\nwant %s", test.text, apps, err, test.want)
			continue
		}
		if _, ok := errors.AsType[app.Problems](err); !ok || !errors.Is(err, errs.Invalid) || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %T", test.text, err)
		}
	}
}

// TestAllProblems: they come all at a time, in the order of lines; nothing is told
// twice, and nothing is concluded of what could not be read.
func TestAllProblems(t *testing.T) {
	problems := func(lines ...string) string { return strings.Join(lines, "\n") }
	for name, test := range map[string]struct{ text, want string }{
		"of every kind": {`
apiVersion: v1
kind: App
metadata: {name: web}
spec:
  schedule: "@daily"
  image: "a b"
  replicas: 20
  ports:
  - {containerPort: 80}
  - {containerPort: 80, protocol: TCP}
  readOnly: "yes"
  readOnly: true
  resources: {cpu: 1m}
healthCheck: {port: admin, pariod: 1}
scaling: {mode: auto, windowSeconds: 0}
`, problems(
			`spec.schedule is for kind CronJob alone (line 6)`,
			`spec.image is "a b"; it must have no blanks (line 7)`,
			`spec.replicas is 20; it must be 0 to scaling.maxReplicas, which is 5 (line 8)`,
			`spec.ports[1].containerPort is 80 a second time (line 11)`,
			`spec.readOnly is the text "yes"; it must be true or false (line 12)`,
			`spec.readOnly is there twice, in lines 12 and 13`,
			`spec.resources.cpu is 1m; it must be at least 10m, or 0 for no limit (line 14)`,
			`healthCheck.pariod is not known here (line 15)`,
			`healthCheck.port is "admin", and no port of the app has that name (line 15)`,
			`scaling.windowSeconds is 0s; it must be 1s to 1h0m0s (line 16)`,
		)},
		"a kind that is none": {`
apiVersion: v1
kind: Cron
metadata: {name: web}
spec: {image: a, schedule: "@daily", workingDir: b}
job: {completions: 3}
rollout: {canary: 3}
`, problems(`kind is "Cron"; it must be App, Worker, Job, CronJob or Daemon (line 3)`, `spec.workingDir is "b"; it must be absolute (line 5)`)},
		"bounds of each other": {web(`  replicas: 20
  resources: {memory: x, swap: 1Gi}
  ulimits: [{name: nofile, soft: 3, hard: x}]
scaling: {maxReplicas: x, minReplicas: 7, scaleOutThresholdPct: x, scaleInThresholdPct: 90}
rollout: {maxSurge: 0, maxUnavailable: x, minHealthySeconds: 400, progressDeadlineSeconds: x}
`), problems(
			`spec.resources.memory is the text "x"; it must be a size, like "128Mi", "1G" or a number of bytes (line 7)`,
			`spec.ulimits[0].hard is the text "x"; it must be a whole number (line 8)`,
			`scaling.maxReplicas is the text "x"; it must be a whole number (line 9)`,
			`scaling.scaleOutThresholdPct is the text "x"; it must be a number (line 9)`,
			`rollout.maxUnavailable is the text "x"; it must be a whole number (line 10)`,
			`rollout.progressDeadlineSeconds is the text "x"; it must be a number of seconds, or a time like "30s" or "1m30s" (line 10)`,
		)},
		"ports that are none": {web(`  type: tcp
  ports: 80
  nics: [{type: vlan, id: 1}]
  expose: {host: a.example}
  healthCheck: {}
`), `spec.ports is the number 80; it must be a list (line 7)`},
		"ports of some kind": {web(`  ports:
  - {containerPort: 80, protocol: SCTP, listen: 80, name: web}
  - {containerPort: 80, protocol: UDP}
  expose: {host: a.example}
  healthCheck: {port: admin}
`), problems(
			`spec.ports[0].protocol is "SCTP"; it must be HTTP, H2C, GRPC, TCP or UDP (line 7)`,
			`spec.healthCheck.port is "admin", and no port of the app has that name (line 10)`,
		)},
		"what was meant": {web(`  ports: [{port: 80}]
  volumes: [{name: a, path: /a}]
  maxReplicas: 3
  replicas: 200
`), problems(
			`spec.ports[0].port is not known here; did you mean "containerPort"? (line 6)`,
			`spec.volumes[0].path is not known here; did you mean "mountPath"? (line 7)`,
			`spec.maxReplicas is not known here; there is scaling.maxReplicas (line 8)`,
		)},
		"volumes": {web(`  volumes:
  - {mountPath: /a, hostPath: 1}
  - {mountPath: /b, hostPath: /x, name: b}
  - {mountPath: /b, hostPath: /x}
  - {mountPath: /b/, name: c, shared: true}
`), problems(
			`spec.volumes[0].hostPath is the number 1; it must be a path of the host, which begins with / (line 7)`,
			`spec.volumes[1] is several things at a time: keep one of name, hostPath, emptyDir and tmpfs (line 8)`,
			`spec.volumes[3].mountPath is "/b/" a second time (line 10)`,
		)},
		"several documents": {web("  x: 1\n") + "---\n" + web("  workingDir: b\n") + "---\na: [\n", problems(
			`documents[0].spec.x is not known here (line 6)`,
			`documents[1].metadata.name is "web", which documents[0] has, too (line 10)`,
			`documents[1].spec.workingDir is "b"; it must be absolute (line 13)`,
			`the manifest is no YAML: line 15: did not find expected node content`,
		)},
		"JSON": {"{\"apiVersion\": \"v1\", \"kind\": \"App\", \"metadata\": {\"name\": \"web\"},\n\"spec\": {\"image\": \"a b\",\n\"args\": [1, null]},\n\"scaling\": {\"mode\": 1}}", problems(
			`spec.image is "a b"; it must have no blanks (line 2)`,
			`spec.args[1] is empty (line 3)`,
			`scaling.mode is the number 1; it must be text, in quotes (line 4)`,
		)},
	} {
		_, err := manifest.Parse([]byte(test.text))
		problems, _ := errors.AsType[app.Problems](err)
		var got []string
		for _, p := range problems {
			got = append(got, p.Path+" "+p.Text)
		}
		if diff := cmp.Diff(test.want, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestManyProblems: nobody reads thousands, nor waits for them.
func TestManyProblems(t *testing.T) {
	var unknown, wrong strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&unknown, "  x%d: 1\n", i)
		fmt.Fprintf(&wrong, "    vm.x%d: 1\n", i)
	}
	for _, text := range []string{web(unknown.String()), web("  sysctls:\n" + wrong.String())} {
		_, err := manifest.Parse([]byte(text))
		problems, _ := errors.AsType[app.Problems](err)
		if len(problems) != 51 || problems[50].Path+" "+problems[50].Text != "and 29950 more" {
			t.Errorf("%d problems, the last is %v", len(problems), problems[len(problems)-1])
		}
	}
}

// TestBounds: bombs do not go off.
func TestBounds(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	long := "a: &a " + strings.Repeat("x", 1<<19) + "\nb: [" + strings.Repeat("*a,", 100) + "]\n"
	for name, test := range map[string]struct{ text, want string }{
		"aliases":      {bomb, "more than 100000 values"},
		"long aliases": {long, "more than 4194304 bytes, with its aliases written out"},
		"self":         {"a: &a\n  b: *a\n", "more than 32 deep"},
		"merged self":  {"a: &a\n  <<: *a\n", "more than 32 deep"},
		"deep YAML":    {strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "more than 32 deep"},
		"deep JSON":    {strings.Repeat(`{"a":`, 50000) + "1" + strings.Repeat("}", 50000), "more than 32 deep"},
		"long":         {strings.Repeat("#", 1<<20+1), "larger than 1048576 bytes"},
		"documents":    {strings.Repeat("--- {}\n", 101), "more than 100 documents"},
		"JSONs":        {strings.Repeat("{}", 101), "more than 100 documents"},
	} {
		if _, err := manifest.Parse([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

func TestMerge(t *testing.T) {
	got := one(t, `
apiVersion: v1
kind: App
metadata: {name: web}
spec:
  image: a
  ports:
  - &p {containerPort: 80, protocol: TCP}
  - <<: *p
    containerPort: 81
  - <<: [{name: x, protocol: UDP}, *p]
    containerPort: 82
`)
	want := []app.Port{{Container: 80, Proto: "tcp"}, {Container: 81, Proto: "tcp"}, {Name: "x", Container: 82, Proto: "udp"}}
	if diff := cmp.Diff(want, got.Spec.Ports); diff != "" {
		t.Error(diff)
	}
	again(t, got)
}

func TestNotes(t *testing.T) {
	got := one(t, web("  volumes: [{name: data, mountPath: /d, size: 1Gi, storageClass: fast}]\n"))
	want := []string{"spec.volumes[0].size is not enforced: only tmpfs is bounded", "spec.volumes[0].storageClass is not used: there is one kind of volume"}
	if diff := cmp.Diff(want, got.Notes); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(web("  replicas: 3\n  env: {A: 1}\n  placement: {constraints: [arch in (a)]}\n")))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Job","metadata":{"name":"j"},"spec":{"image":"a"},"job":{"completions":3}}`))
	f.Add([]byte("name: shop\nservices:\n  web: {image: nginx, ports: ['8080:80'], healthcheck: {test: curl localhost}}\n"))
	f.Add([]byte("a: &a [*a]\n? [b]\n: {<<: *a}\n"))
	f.Add([]byte(web("  ports: [{port: 80, hostPort: x}]\n  expose: {hosts: [a..b], path: /?}\n  env: {A: [1], \"\": 2}\n  nics: [{type: vlan, config: {cidr: 1.2.3.4, rate: {in: 1}}}]\n  volumes: [{name: a, hostPath: /b, mountPath: /c}]\nscaling: {maxReplicas: 1e400}\n")))
	f.Add([]byte("services:\n  web: {image: a, ports: ['1-9:1-9/x'], tmpfs: /a:size=1, ulimits: {a: 1}, deploy: {replicas: 2}, environment: [A, B=1], expose: [1-5]}\nvolumes: {a: {}}\n"))
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		apps, err := manifest.Parse(data)
		if err != nil {
			problems, ok := errors.AsType[app.Problems](err)
			if !ok || len(problems) > 51 {
				t.Fatalf("%T of %d: %v", err, len(problems), err)
			}
			for _, p := range problems {
				if p.Path == "" || p.Text == "" || len(p.Text) > 1000 || len(p.Path) > 5000 || !utf8.ValidString(p.Path+p.Text) {
					t.Fatalf("%q %q", p.Path, p.Text)
				}
			}
			return
		}
		for _, a := range apps {
			back, err := manifest.Parse(a.Source)
			if err != nil || len(back) != 1 {
				t.Fatalf("%v, of %s", err, a.Source)
			}
			if diff := cmp.Diff(a.Spec, back[0].Spec); diff != "" {
				t.Fatalf("source: %s", diff)
			}
			written, err := manifest.Of(a.Spec)
			if err != nil {
				t.Fatal(err)
			}
			if back, err = manifest.Parse(written); err != nil {
				t.Fatalf("%v, of %s", err, written)
			}
			if diff := cmp.Diff(a.Spec, back[0].Spec); diff != "" {
				t.Fatalf("written: %s\n%s", diff, written)
			}
		}
	})
}
