package nodes

import (
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/probe"
)

var noAddr netip.Addr

func decodeCreate(t *testing.T, body string) (node.Spec, error) {
	t.Helper()
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	c, err := api.Decode[createContainer](httptest.NewRecorder(), r)
	if err != nil {
		return node.Spec{}, err
	}
	return specIn(c, netip.IPv4Unspecified())
}

func TestSpecIn(t *testing.T) {
	least := node.Spec{
		Name: "a", Image: "i", Run: container.Spec{Hostname: "a"},
	}
	with := func(change func(*node.Spec)) node.Spec {
		s := least
		change(&s)
		return s
	}
	for body, want := range map[string]node.Spec{
		`{"id":"a","flist":"i"}`:                                   least,
		`{"name":"a","image":"i"}`:                                 least,
		`{"id":"a","name":"a","flist":"i","image":"i"}`:            least,
		`{"NAME":"a","Flist":"i","initProcesses":null,"env":null}`: least,
		`{"name":"x","name":"a","image":"i"}`:                      least,
		`{"name":"a","image":"i","env":["A=1=2"],"environment":["B="]}`: with(func(s *node.Spec) {
			s.Run.Env = []string{"B=", "A=1=2"}
		}),
		`{"name":"a","image":"i","secrets":[{"env":"A","value":"hush"},{"path":"/run/a","value":"b\u0000"}]}`: with(func(s *node.Spec) {
			s.Secrets = []node.Secret{{Env: "A", Value: "hush"}, {Path: "/run/a", Value: "b\x00"}}
		}),
		`{"name":"a","image":"i","initprocesses":[{"name":"/p","args":["x"],"env":["K=V=W"],"pwd":"/t","stdin":"in"}]}`: with(func(s *node.Spec) {
			s.InitProcesses = []node.InitProcess{{Args: []string{"/p", "x"}, Env: []string{"K=V=W"}, Cwd: "/t", Stdin: "in"}}
		}),
		`{"name":"a","image":"i","nics":[{"type":"vlan","id":0,"config":{"cidr":"1.2.3.4/24","dns":["8.8.8.8"]}},{"type":"default"}]}`: with(func(s *node.Spec) {
			s.NICs = []netcfg.NIC{
				{Type: "vlan", ID: "0", Config: netcfg.NICConfig{CIDRs: []netip.Prefix{netip.MustParsePrefix("1.2.3.4/24")}, DNS: []netip.Addr{netip.MustParseAddr("8.8.8.8")}}}, {Type: "default"},
			}
		}),
		`{"name":"a","image":"i","command":["c"],"entrypoint":["e"],"limits":{"memory":"64Mi","milliCPU":500,"swap":-1},"restart":"on-failure:3","stopGrace":1.5,"shmSize":"1m","logs":{"maxSize":"1m","maxFiles":2}}`: with(func(s *node.Spec) {
			s.Entrypoint = []string{"e"}
			s.Run.Args = []string{"c"}
			s.Run.Limits = container.Limits{Memory: 64 << 20, MilliCPU: 500, Swap: -1}
			s.Restart = container.Restart{Policy: container.RestartOnFailure, MaxRetries: 3}
			s.Run.StopGraceMillis = 1500
			s.Run.ShmSize = 1 << 20
			s.Run.Logs = container.LogLimits{MaxSize: 1 << 20, MaxFiles: 2}
		}),
		`{"name":"a","image":"i","health":{"type":"http","port":80,"path":"/h","headers":[{"name":"A","value":"b"}],"statuses":[200],"period":1.5,"initialDelay":30,"timeout":0.25,"failureThreshold":2,"restart":true,"drain":5}}`: with(func(s *node.Spec) {
			s.Health = &probe.Check{
				Type: probe.HTTP, Port: 80, Path: "/h", Headers: []probe.Header{{Name: "A", Value: "b"}}, Statuses: []int{200},
				Period: 1500 * time.Millisecond, InitialDelay: 30 * time.Second, Timeout: 250 * time.Millisecond, FailureThreshold: 2, Restart: true, Drain: 5 * time.Second,
			}
		}),
		`{"name":"a","image":"i","health":{"type":"exec","command":["x","y"]}}`: with(func(s *node.Spec) {
			s.Health = &probe.Check{Type: probe.Exec, Args: []string{"x", "y"}}
		}),
		`{"name":"a","image":"i","gpus":2}`:     with(func(s *node.Spec) { s.GPUs = &gpu.Wish{Count: 2} }),
		`{"name":"a","image":"i","gpus":0}`:     least,
		`{"name":"a","image":"i","gpus":"all"}`: with(func(s *node.Spec) { s.GPUs = &gpu.Wish{Count: gpu.All} }),
		`{"name":"a","image":"i","gpus":{}}`:    with(func(s *node.Spec) { s.GPUs = &gpu.Wish{} }),
		`{"name":"a","image":"i","gpus":{"count":"all","vendor":"nvidia","model":"A100","memory":"40Gi","slices":4,"capabilities":["compute"]}}`: with(func(s *node.Spec) {
			s.GPUs = &gpu.Wish{Count: gpu.All, Vendor: "nvidia", Model: "A100", Memory: 40 << 30, Slices: 4, Capabilities: []string{"compute"}}
		}),
		`{"name":"a","image":"i","gpus":{"devices":["MIG-1"]},"devices":[{"path":"vendor.com/card=one"},{"path":"/dev/null"}]}`: with(func(s *node.Spec) {
			s.GPUs = &gpu.Wish{Devices: []string{"MIG-1"}}
			s.CDI, s.Run.Devices = []string{"vendor.com/card=one"}, []container.Device{{Path: "/dev/null"}}
		}),
		`{"name":"a","image":"i","mounts":[{"type":"tmpfs","target":"/t","size":"1m"}],"devices":[{"path":"/dev/null"}],"ulimits":[{"name":"nofile","soft":1,"hard":2}]}`: with(func(s *node.Spec) {
			s.Run.Mounts = []container.Mount{{Type: container.Tmpfs, Target: "/t", Size: 1 << 20}}
			s.Run.Devices = []container.Device{{Path: "/dev/null"}}
			s.Run.Ulimits = []container.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}
		}),
	} {
		got, err := decodeCreate(t, body)
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Errorf("%s:\n%s", body, diff)
		}
	}
}

func TestSpecInRefuses(t *testing.T) {
	for body, want := range map[string]string{
		`{"image":"i"}`:                                                             `field "name" is ""`,
		`{"name":"a"}`:                                                              `field "flist"`,
		`{"name":"..","image":"i"}`:                                                 `field "name" is ".."`,
		`{"name":"a/b","image":"i"}`:                                                `field "name" is "a/b"`,
		`{"id":"a","name":"b","image":"i"}`:                                         `fields "id" and "name"`,
		`{"name":"a","image":"i","flist":"j"}`:                                      `fields "flist" and "image"`,
		`{"name":"a","image":"i","colour":"x"}`:                                     `there is no field "colour"`,
		`{"name":7,"image":"i"}`:                                                    `field "name" must be text, not a number`,
		`{"name":"a","image":"i","ports":"80"}`:                                     `field "ports" must be a list, not text`,
		`{"name":"a","image":"i","ports":["x"]}`:                                    `port "x"`,
		`{"name":"a","image":"i","health":{"port":65536}}`:                          `field "health.port" is 65536`,
		`{"name":"a","image":"i","health":{"period":-1}}`:                           `field "health.period" is -1`,
		`{"name":"a","image":"i","health":{"timeout":"1s"}}`:                        `field "health.timeout" must be a number`,
		`{"name":"a","image":"i","health":{"cmd":"x"}}`:                             `there is no field "cmd"`,
		`{"name":"a","image":"i","secrets":[{"env":"A","data":"x"}]}`:               `there is no field "data"`,
		`{"name":"a","image":"i","env":["K"]}`:                                      `environment entry "K"`,
		`{"name":"a","image":"i","env":["=v"]}`:                                     `environment entry "=v"`,
		`{"name":"a","image":"i","nics":[{}]}`:                                      `field "nics.type"`,
		`{"name":"a","image":"i","nics":[{"type":"vlan"}]}`:                         `field "nics.id"`,
		`{"name":"a","image":"i","nics":[{"type":"vlan","id":1.5}]}`:                `field "nics.id" must be text or a whole number, not the number 1.5`,
		`{"name":"a","image":"i","nics":[{"type":"default","token":"t"}]}`:          `field "nics.token"`,
		`{"name":"a","image":"i","limits":{"memory":"lots"}}`:                       `field "limits.memory" must be a size`,
		`{"name":"a","image":"i","limits":{"memory":-5}}`:                           `field "limits.memory" is negative`,
		`{"name":"a","image":"i","gpus":"some"}`:                                    `field "gpus" must be a number of GPUs, "all" or an object, not text`,
		`{"name":"a","image":"i","gpus":[1]}`:                                       `field "gpus" must be a number of GPUs, "all" or an object, not a list`,
		`{"name":"a","image":"i","gpus":1.5}`:                                       `field "gpus" must be a number of GPUs`,
		`{"name":"a","image":"i","gpus":65}`:                                        `GPUs: 65 is no number of them`,
		`{"name":"a","image":"i","gpus":{"count":"x"}}`:                             `field "gpus.count" must be a whole number or "all"`,
		`{"name":"a","image":"i","gpus":{"uuid":"x"}}`:                              `there is no field "uuid"`,
		`{"name":"a","image":"i","gpus":{"memory":"much"}}`:                         `field "gpus.memory" must be a size`,
		`{"name":"a","image":"i","gpus":{"count":1,"devices":["0"]}}`:               `their number is not asked for, too`,
		`{"name":"a","image":"i","devices":[{"path":"a.b/c=d","permissions":"r"}]}`: `is described by a CDI spec`,
		`{"name":"a","image":"i","stopGrace":-1}`:                                   `field "stopGrace"`,
		`{"name":"a","image":"i","stopGrace":1e300}`:                                `field "stopGrace"`,
		`{"name":"a","image":"i","shmSize":-1}`:                                     `field "shmSize"`,
		`{"name":"a","image":"i","restart":"often"}`:                                `restart policy "often"`,
		`{"name":"a","image":"i","initProcesses":[{}]}`:                             `field "name" is missing`,
		`{"name":"a","image":"i","entrypoint":["a\u0000b"]}`:                        `NUL`,
		`{"name":"a","image":"i","initProcesses":[{"name":"a","user":"x"}]}`:        `initProcesses.user`,
	} {
		_, err := decodeCreate(t, body)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %s", body, err, want)
		}
	}
}

// FuzzCreate wants no panic and no 500, whatever is sent.
func FuzzCreate(f *testing.F) {
	for _, body := range []string{
		`{"id":"a","flist":"i"}`, `{"name":"a","image":"i","nics":[{"id":0,"type":"vlan"}],"limits":{"memory":"1.5g"}}`,
		`[`, `null`, `{"name":"a","image":"i","ports":["1:2"],"env":["A=B"],"restart":"on-failure:3","stopGrace":1e9}`, "\xff", ``,
	} {
		f.Add([]byte(body))
	}
	_, s := server(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		w := ask(s, "POST", here+"/containers", string(body))
		if w.Code != 204 && w.Code != 400 && w.Code != 409 {
			t.Errorf("%q = %d %s", body, w.Code, w.Body)
		}
		if w.Code != 204 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q: error is no JSON: %q", body, w.Body)
		}
	})
}
