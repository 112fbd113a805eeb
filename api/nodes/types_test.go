package nodes

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/transcript"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/inventory"
	"github.com/buoy-edge/buoy/node/probe"
)

// TestSeedBytes compares what we make of the seed's own figures with the
// seed's own bytes; "further keys are ours" at the end of an object is cut off.
func TestSeedBytes(t *testing.T) {
	seed := map[string]string{}
	steps, err := transcript.Read("testdata/seed001.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		var compact bytes.Buffer
		if s.Shape() == "" {
			continue
		}
		if err := json.Compact(&compact, []byte(s.Shape())); err != nil {
			t.Fatal(err)
		}
		seed[s.Name] = compact.String()
	}
	f := newFake()
	f.jobs[0].State = container.JobRunning
	for step, v := range map[string]any{
		"1 list nodes": []nodeObject{nodeOut(f.Info())},
		"2 memory of a node": []memInfo{memoryOut(inventory.Memory{
			Active: 197136384, Available: 1454743552, Cached: 372428800, Free: 1521983488, Inactive: 323203072,
			Total: 2102710272, Used: 647966720, UsedPercent: 30.815787064362617,
		})},
		"4 list containers": []containerItem{containerItemOut(f.specs["vfw_21"], everywhere)},
		"6 list jobs":       []jobItem{jobItemOut(f.jobs[0])},
		"8 list processes": []process{processOut(inventory.Process{
			PID: 1, RSS: 3399680, VMS: 8163328, User: 0.04,
			Cmdline: "/coreX -core-id 10 -redis-socket /redis.socket -reply-to corex:results -hostname vfw_22",
		})},
	} {
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSuffix(seed[step], "}]")
		if rest, ok := strings.CutPrefix(string(got), want); !ok || !strings.HasPrefix(rest, ",") && rest != "}]" {
			t.Errorf("%s = %s, want %s", step, got, seed[step])
		}
	}
}

func TestContainerOut(t *testing.T) {
	port, err := netcfg.ParsePort("10022:22", noAddr)
	if err != nil {
		t.Fatal(err)
	}
	c := node.Container{
		Spec: node.Spec{
			Name: "web", Image: "nginx", Ports: []netcfg.Port{port},
			NICs:          []netcfg.NIC{{Type: netcfg.NICDefault, ID: "7"}},
			InitProcesses: []node.InitProcess{{Args: []string{"/bin/a", "b"}, Env: []string{"K=V=W"}}},
			Run:           container.Spec{Limits: container.Limits{Memory: 64 << 20}},
			Secrets:       []node.Secret{{Env: "A", Value: "hush", Sealed: "hush"}, {Path: "/b", Value: "hush", Sealed: "hush"}},
		},
		Status: node.Halted, Reason: "Exited", ExitCode: 3, Created: time.Unix(0, 0), Finished: time.Unix(60, 0),
	}
	got, err := json.Marshal(containerOut(c, everywhere))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"nics":[{"config":{"dhcp":false,"cidr":"","gateway":"","dns":[]},"id":"7","type":"default","status":"down"}],` +
		`"filesystems":[],"flist":"nginx","hostNetworking":false,"hostname":"web",` +
		`"initprocesses":[{"name":"/bin/a","args":["b"],"environment":["K=V=W"]}],"ports":["10022:22"],` +
		`"status":"halted","storage":"","id":"web","name":"web",` +
		`"state":"halted","reason":"Exited","message":"","image":"nginx","digest":"","pid":0,"address":"",` +
		`"created":"1970-01-01T00:00:00Z","finished":"1970-01-01T00:01:00Z","exitCode":3,"oomKilled":false,` +
		`"restarts":0,"restart":"","labels":{},"command":[],"secrets":[{"env":"A"},{"path":"/b"}],"limits":{"memory":67108864}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}

	c.Health = &probe.State{Status: probe.Unknown}
	c.Spec.Labels = map[string]string{"tier": "back"}
	if got, _ := json.Marshal(containerItemOut(c, everywhere)); !strings.HasSuffix(string(got), `"labels":{"tier":"back"},"health":{"status":"unknown","failures":0,"responseTime":0}}`) {
		t.Errorf("a container that is checked = %s", got)
	}

	c.Status, c.PID = node.Running, 7
	if o := containerOut(c, everywhere); o.ExitCode != nil || o.Status != "running" {
		t.Errorf("running container has exit code %v, status %s", o.ExitCode, o.Status)
	}
}

func TestStatusOut(t *testing.T) {
	for s, want := range map[node.Status]string{
		node.Creating: "halted", node.Standby: "halted", node.Running: "running", node.Stopping: "running",
		node.Restarting: "halted", node.Halted: "halted", node.Deleting: "halted", "new": "halted",
	} {
		if got := statusOut(s); got != want {
			t.Errorf("statusOut(%s) = %s, want %s", s, got, want)
		}
	}
}

// everywhere is where ports are published that name no address.
var everywhere = netip.IPv4Unspecified()

// What was read can be sent back and means the same.
func TestPorts(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	for _, c := range []struct {
		publish    netip.Addr
		text, want string
	}{
		{everywhere, "8080:80", "8080:80"},
		{everywhere, "0.0.0.0:8080:80", "8080:80"},
		{everywhere, "127.0.0.1:53:53/udp", "127.0.0.1:53:53/udp"},
		{everywhere, "53:53/udp", "53:53/udp"},
		{everywhere, "[::]:8080:80", "[::]:8080:80"},
		{everywhere, "eth0:8080-8081:80", "eth0:8080-8081:80"},
		{local, "8080:80", "8080:80"},
		{local, "127.0.0.1:8080:80", "8080:80"},
		{local, "0.0.0.0:8080:80", "0.0.0.0:8080:80"},
	} {
		p, err := netcfg.ParsePort(c.text, c.publish)
		if err != nil {
			t.Fatal(err)
		}
		got := portsOut([]netcfg.Port{p}, c.publish)[0]
		if again, err := netcfg.ParsePort(got, c.publish); got != c.want || err != nil || again != p {
			t.Errorf("%s published at %s = %s, want %s; read again %v, %v", c.text, c.publish, got, c.want, again, err)
		}
	}
}

func TestJobOut(t *testing.T) {
	j := newFake().jobs[0]
	got, _ := json.Marshal(jobOut(j, container.Output{}))
	if want := `{"id":"` + jobID + `","name":"core.system","level":0,"startTime":1491984742526,"stdout":"","stderr":"",` +
		`"state":"running","data":"","args":["/bin/sleep","9"]}`; string(got) != want {
		t.Errorf("running job = %s, want %s", got, want)
	}
	j.State, j.Exit = container.JobError, exited(2)
	if got := jobOut(j, container.Output{Stderr: "x", Truncated: true}); *got.ExitCode != 2 || got.State != "ERROR" || !got.Truncated {
		t.Errorf("ended job = %+v", got)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		`1048576`: 1 << 20, `"1048576"`: 1 << 20, `"64Mi"`: 64 << 20, `"1g"`: 1 << 30, `"1.5 GiB"`: 3 << 29, `"2KB"`: 2048,
		`"10b"`: 10, `-1`: -1, `1e6`: 1e6, `"0"`: 0, `null`: 0, `9223372036854775807`: 1<<63 - 1,
	} {
		var s size
		if err := json.Unmarshal([]byte(text), &s); err != nil || int64(s) != want {
			t.Errorf("size %s = %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{`"x"`, `""`, `"1q"`, `"g"`, `1.5`, `true`, `[]`, `{}`, `"0x10"`, `"inf"`, `"nan"`, `"9999999p"`, `1e300`, `"1gi2"`, `"1kk"`, `"b"`} {
		var s size
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("size %s = %d, want an error", text, s)
		}
	}
}
