package osc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// full is OCL as OSC Runtime has it, but for its machine.
const full = `{"name":"edge-broker","category":"middleware","namespace":"plant-7","properties":{"owner":"ops","n":[1]},
 "image":{"base":[{"id":"","state":"inactive","name":"deb","type":"small","filters":{"name":"debian-12-*","id":"x"}}],
  "provisioners":[{"name":"setup","type":"shell","environments":["DATA=/srv/mq"],"inline":["mkdir -p $DATA"]},{"name":"old","type":"SHELL","environment_vars":["A=1"]}],
  "artifacts":[{"name":"mq","base":"$.image.base[0]","provisioners":["$.image.provisioners[0]"]},{"name":"kafka","type":"docker","url":"x","properties":{"a":"b"}}]},
 "compute":{%s},
 "network":{"vpc":[{"name":"v","cidr":"10.20.0.0/16"}],
  "subnet":[{"name":"s","vpc":"$.network.vpc[0]","cidr":"10.20.1.0/24","nic":{"type":"vlan","id":100,"config":{"dhcp":true,"uplink":"eth1"}}},{"name":"t","cidr":"10.20.2.0/24"}],
  "security":[{"name":"g","rules":[{"name":"mqtt","priority":1,"protocol":"TCP","cidr":"*","direction":"inbound","ports":"1883,8883","action":"allow"},
    {"name":"dns","priority":3,"protocol":"*","cidr":"0.0.0.0/0","direction":"INBOUND","ports":"50-54","action":"ALLOW"},
    {"name":"not","priority":2,"protocol":"Tcp","cidr":"*","direction":"inbound","ports":"51-53","action":"deny"},
    {"name":"ping","priority":2,"protocol":"icmp","cidr":"*","direction":"inbound","action":"deny"},
    {"name":"out","priority":9,"protocol":"*","cidr":"*","direction":"outbound","ports":"*","action":"allow"}]},
   {"name":"narrow","rules":[{"protocol":"Tcp","cidr":"10.0.0.0/8","direction":"inbound","ports":"22","action":"allow"}]}]},
 "storage":[{"name":"data","type":"ssd","size":"8GiB"},{"name":"cache","size":5}],
 "billing":{"model":"flat","period":"monthly","currency":"euro","fixedPrice":5,"variablePrice":1.5,"variableItem":"instance","backend":"https://billing.example/api","properties":{}},
 "console":{"backend":"https://console.example/api","properties":{}}}`

// TestMapping has what becomes of containers.
func TestMapping(t *testing.T) {
	vlan := buoy.NIC{Type: "vlan", ID: "100", Config: &buoy.NICConfig{DHCP: true, Uplink: "eth1"}}
	normal := buoy.NIC{Type: "default"}
	for _, tt := range []struct {
		name, containers string
		get              func(s *app.Spec) any // of the last one
		want             any
	}{
		{"image", `{"name":"a","image":"mq:1"}`, func(s *app.Spec) any {
			return []any{s.Name, s.Kind, s.Container.Flist, s.Container.Restart, s.Annotations[annotation], s.Scaling.Mode, s.Scaling.Min, s.Scaling.Max, s.Replicas}
		}, []any{"edge-broker", app.Service, "mq:1", "always", "edge-broker", app.Manual, 0, 1000, 0}},
		{"several", `{"name":"a","image":"mq:1"},{"name":"b","image":"mq:2"}`, func(s *app.Spec) any { return s.Name }, "edge-broker-b"},
		{"command", `{"name":"a","image":"mq:1","command":["/bin/mq"],"args":["-p",1883]}`, func(s *app.Spec) any {
			return [][]string{s.Container.Entrypoint, s.Container.Command}
		}, [][]string{{"/bin/mq"}, {"-p", "1883"}}},
		{"environment", `{"name":"a","image":"mq:1","environments":["A=1","B=x=y","C="]}`, func(s *app.Spec) any { return s.Container.Env }, []string{"A=1", "B=x=y", "C="}},
		{"older spelling", `{"name":"a","image":"mq:1","environment_vars":["A=1"]}`, func(s *app.Spec) any { return s.Container.Env }, []string{"A=1"}},
		{"resources", `{"name":"a","image":"mq:1","cpu":"500m","memory":"64MiB","replicas":3}`, func(s *app.Spec) any {
			return []int64{s.Container.Limits.MilliCPU, s.Container.Limits.Memory, int64(s.Replicas)}
		}, []int64{500, 64 << 20, 3}},
		{"no subnet", `{"name":"a","image":"mq:1"}`, func(s *app.Spec) any { return s.Container.NICs }, []buoy.NIC{normal}},
		{"subnet", `{"name":"a","image":"mq:1","subnet":["$.network.subnet[0]"]}`, func(s *app.Spec) any { return s.Container.NICs }, []buoy.NIC{vlan}},
		{"subnet and port", `{"name":"a","image":"mq:1","subnet":["$.network.subnet[0]"],"ports":["80"]}`, func(s *app.Spec) any { return s.Container.NICs }, []buoy.NIC{normal, vlan}},
		{
			"ports", `{"name":"a","image":"mq:1","ports":["53/udp",80,"8443:443"],"publicly":true}`, func(s *app.Spec) any { return s.Ports },
			[]app.Port{{Container: 53, Proto: "udp"}, {Container: 80, Proto: "http"}, {Container: 443, Host: 8443, Proto: "tcp"}},
		},
		{"port of the host", `{"name":"a","image":"mq:1","ports":["80:80"]}`, func(s *app.Spec) any { return []int{s.Rollout.MaxUnavailable, s.Rollout.MaxSurge} }, []int{1, 0}},
		{
			"allowed ports", `{"name":"a","image":"mq:1","security":["$.network.security[0]"],"ports":["1883/tcp","53/udp","54"]}`, func(s *app.Spec) any { return s.Ports },
			[]app.Port{{Container: 1883, Proto: "tcp"}, {Container: 53, Proto: "udp"}, {Container: 54, Proto: "tcp"}},
		},
		{"ports of rules", `{"name":"a","image":"mq:1","security":["$.network.security[0]"]}`, func(s *app.Spec) any {
			var all []string
			for _, p := range s.Ports {
				all = append(all, fmt.Sprintf("%d/%s", p.Container, p.Proto))
			}
			return strings.Join(all, " ")
		}, "50/http 50/udp 51/udp 52/udp 53/udp 54/tcp 54/udp 1883/tcp 8883/tcp"},
		{"not public", `{"name":"a","image":"mq:1","publicly":false}`, func(s *app.Spec) any { return len(s.Ports) }, 0},
		{
			"storage", `{"name":"a","image":"mq:1","storage":["$.storage[0]",{"ref":"$.storage[1]","mountPath":"/var/cache","readOnly":true}]}`, func(s *app.Spec) any { return s.Container.Mounts },
			[]buoy.Mount{{Type: "volume", Source: "edge-broker.data", Target: "/mnt/data"}, {Type: "volume", Source: "edge-broker.cache", Target: "/var/cache", ReadOnly: true}},
		},
		{"health", `{"name":"a","image":"mq:1","ports":["80"],"healthCheck":{"protocol":"HTTP","path":"/up","periodSeconds":3}}`, func(s *app.Spec) any {
			h := s.Container.Health
			return []any{h.Type, h.Port, h.Path, h.Period}
		}, []any{"http", uint16(80), "/up", 3.0}},
	} {
		_, all, err := parts(fmt.Appendf(nil, full, `"containers":[`+tt.containers+`]`), "")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, tt.get(&all[len(all)-1].spec)); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
}

// TestBadDescriptors has a line for each thing that is refused, with its path.
func TestBadDescriptors(t *testing.T) {
	const ok = `{"name":"a","image":"mq:1"}`
	in := func(fields string) string { return fmt.Sprintf(full, `"containers":[`+fields+`]`) }
	with := func(fields string) string { return in(`{"name":"a","image":"mq:1",` + fields + `}`) }
	plus := func(fields string) string { return `{"name":"x","compute":{"containers":[` + ok + `]},` + fields + `}` }
	rules := func(rule string) string {
		return `{"name":"x","compute":{"containers":[{"name":"a","image":"mq:1","security":["$.network.security[0]"]}]},"network":{"security":[{"rules":[` + rule + `]}]}}`
	}
	for _, tt := range []struct{ name, text, path, message string }{
		{"nothing", ``, "the descriptor", "is empty"},
		{"no JSON", `{"name"`, "the descriptor", "is no JSON"},
		{"YAML", `name: x`, "the descriptor", "is no JSON"},
		{"a list", `[]`, "the descriptor", "is a list; it must be an object"},
		{"null", `null`, "the descriptor", "is empty; it must be an object"},
		{"two", in(ok) + in(ok), "the descriptor", "goes on after"},
		{"twice the same", `{"name":"a","name":"b"}`, "name", "is there twice"},
		{"not UTF-8", "{\"name\":\"\xff\"}", "the descriptor", "is not UTF-8"},
		{"deep", strings.Repeat(`{"properties":`, 100) + "1" + strings.Repeat("}", 100), "the descriptor", "deep"},
		{"no name", `{"compute":{"containers":[` + ok + `]}}`, "name", "is missing"},
		{"bad name", `{"name":"my shop","compute":{"containers":[` + ok + `]}}`, "name", `is "my shop"; it must be of letters`},
		{"name of another type", `{"name":7,"compute":{"containers":[` + ok + `]}}`, "name", "is the number 7; it must be text"},
		{"no containers", `{"name":"x"}`, "compute.containers", "is missing"},
		{"machines", fmt.Sprintf(full, `"vm":[{"name":"mq-1","type":"small","image":"$.image.artifacts[0]","subnet":["$.network.subnet[0]"],"security":["$.network.security[0]"],"storage":["$.storage[0]"],"publicly":false}]`), "compute.vm", "asks for virtual machines, and buoy runs containers"},
		{"bad machine", fmt.Sprintf(full, `"vm":[{"image":"$.storage[0]"}]`), "compute.vm[0].image", "must lead to one of image.artifacts"},
		{"unknown field", plus(`"flavour":1`), "flavour", "is not known here"},
		{"unknown field, nearly", plus(`"storge":[]`), "storge", `did you mean "storage"?`},
		{"unknown field of a container", with(`"imag":"x"`), "compute.containers[0].imag", "is not known here"},
		{"unknown field of a rule", rules(`{"direction":"inbound","action":"allow","colour":1}`), "network.security[0].rules[0].colour", "is not known here"},
		{"no image", in(`{"name":"a"}`), "compute.containers[0].image", "is missing"},
		{"bad image", in(`{"name":"a","image":"a b"}`), "compute.containers[0].image", "must have no blanks"},
		{"no name of a container", in(`{"image":"mq:1"}`), "compute.containers[0].name", "is missing"},
		{"same name", in(ok + "," + ok), "compute.containers[1].name", `is "a" a second time`},
		{"bad name of a container", in(ok + `,{"name":"b c","image":"mq:1"}`), "compute.containers[1].name", `is "edge-broker-b c"`},
		{"long name", in(ok + `,{"name":"` + strings.Repeat("b", 50) + `","image":"mq:1"}`), "compute.containers[1].name", `has 62 characters`},
		{"both spellings", with(`"environments":[],"environment_vars":[]`), "compute.containers[0].environment_vars", "says the same as"},
		{"no variable", with(`"environments":["A=1","B"]`), "compute.containers[0].environments[1]", `is "B"; it must be NAME=VALUE`},
		{"variable twice", with(`"environments":["A=1","A=2"]`), "compute.containers[0].environments[1]", "sets A a second time"},
		{"replicas", with(`"replicas":0`), "compute.containers[0].replicas", "is 0; it must be 1 to 1000"},
		{"cpu", with(`"cpu":"many"`), "compute.containers[0].cpu", `it must be CPUs`},
		{"little memory", with(`"memory":"1Ki"`), "compute.containers[0].memory", `is 1024 bytes`},
		{"health", with(`"healthCheck":{"protocol":"ICMP"}`), "compute.containers[0].healthCheck.protocol", `must be HTTP, HTTPS, TCP or EXEC`},
		{"health without port", with(`"healthCheck":{}`), "compute.containers[0].healthCheck.port", `is missing`},
		{"port", with(`"ports":["80","http"]`), "compute.containers[0].ports[1]", `is "http"; it must be a port`},
		{"port twice", with(`"ports":["80","81:80"]`), "compute.containers[0].ports[1]", `is 80 a second time`},
		{"public without port", with(`"publicly":true`), "compute.containers[0].publicly", `has no port`},
		{"port not public", with(`"publicly":false,"ports":["80"]`), "compute.containers[0].publicly", `for everybody`},
		{"no reference", with(`"subnet":["s"]`), "compute.containers[0].subnet[0]", `must be a reference, like $.network.subnet[0]`},
		{"dangling", with(`"subnet":["$.network.subnet[2]"]`), "compute.containers[0].subnet[0]", `leads nowhere: network.subnet has 2`},
		{"wrong kind", with(`"subnet":["$.storage[0]"]`), "compute.containers[0].subnet[0]", `must lead to one of network.subnet`},
		{"no such list", with(`"security":["$.network.groups[0]"]`), "compute.containers[0].security[0]", `there is no network.groups`},
		{"negative", with(`"security":["$.network.security[-1]"]`), "compute.containers[0].security[0]", `must be a reference`},
		{"far", with(`"security":["$.network.security[9999999999999999999]"]`), "compute.containers[0].security[0]", `must be a reference`},
		{"reference of an image", `{"name":"x","compute":{"containers":[` + ok + `]},"image":{"artifacts":[{"base":"$.image.base[0]"}]}}`, "image.artifacts[0].base", "leads nowhere"},
		{"subnet without a wire", with(`"subnet":["$.network.subnet[1]"]`), "network.subnet[1].nic", `is missing: hosts have to know`},
		{"subnet twice", with(`"subnet":["$.network.subnet[0]","$.network.subnet[0]"]`), "compute.containers[0].subnet", `both vlan 100`},
		{"bad wire", `{"name":"x","compute":{"containers":[{"name":"a","image":"mq:1","subnet":["$.network.subnet[0]"]}]},"network":{"subnet":[{"nic":{"type":"string"}}]}}`, "network.subnet[0].nic.type", `must be default, bridge`},
		{"one address", `{"name":"x","compute":{"containers":[{"name":"a","image":"mq:1","replicas":2,"subnet":["$.network.subnet[0]"]}]},"network":{"subnet":[{"nic":{"type":"vlan","id":"1","config":{"cidr":"10.0.0.1/24"}}}]}}`, "compute.containers[0].replicas", `one replica alone`},
		{"vpc", plus(`"network":{"vpc":[{"cidr":"10.0.0.0"}]}`), "network.vpc[0].cidr", `must be a network`},
		{"outside", plus(`"network":{"vpc":[{"cidr":"10.0.0.0/16"}],"subnet":[{"vpc":"$.network.vpc[0]","cidr":"10.1.0.0/24"}]}`), "network.subnet[0].cidr", `is not within 10.0.0.0/16`},
		{"wider", plus(`"network":{"vpc":[{"cidr":"10.0.0.0/16"}],"subnet":[{"vpc":"$.network.vpc[0]","cidr":"10.0.0.0/8"}]}`), "network.subnet[0].cidr", `is not within`},
		{"storage", with(`"storage":[7]`), "compute.containers[0].storage[0]", `must be an object`},
		{"storage of a wrong kind", with(`"storage":["$.network.vpc[0]"]`), "compute.containers[0].storage[0]", `must lead to one of storage`},
		{"storage without reference", with(`"storage":[{"mountPath":"/x"}]`), "compute.containers[0].storage[0].ref", `is missing`},
		{"storage dangling", with(`"storage":[{"ref":"$.storage[7]"}]`), "compute.containers[0].storage[0].ref", `leads nowhere`},
		{"storage at the root", with(`"storage":[{"ref":"$.storage[0]","mountPath":"/"}]`), "compute.containers[0].storage[0].mountPath", `below /`},
		{"storage twice", with(`"storage":["$.storage[0]","$.storage[0]"]`), "compute.containers[0].storage[1].mountPath", `a second time`},
		{"nameless storage", `{"name":"x","compute":{"containers":[{"name":"a","image":"mq:1","storage":["$.storage[0]"]}]},"storage":[{}]}`, "storage[0].name", `is missing, and compute.containers[0].storage[0] mounts it`},
		{"badly named storage", `{"name":"x","compute":{"containers":[{"name":"a","image":"mq:1","storage":["$.storage[0]"]}]},"storage":[{"name":"a/b"}]}`, "storage[0].name", `it must be 1 to 63 letters`},
		{"size", plus(`"storage":[{"size":"much"}]`), "storage[0].size", `must be a size, like 8GiB`},
		{"closed port", with(`"security":["$.network.security[0]"],"ports":["1883","52"]`), "compute.containers[0].ports[1]", `is 52/tcp, which no rule`},
		{"port of the other transport", with(`"security":["$.network.security[0]"],"ports":["1883/udp"]`), "compute.containers[0].ports[0]", `is 1883/udp, which no rule`},
		{"cidr that nobody enforces", with(`"security":["$.network.security[1]"]`), "network.security[1].rules[0].cidr", `cannot restrict who reaches a port`},
		{"direction", rules(`{"direction":"up","action":"allow"}`), "network.security[0].rules[0].direction", `must be inbound or outbound`},
		{"no direction", rules(`{"action":"allow"}`), "network.security[0].rules[0].direction", `is missing`},
		{"action", rules(`{"direction":"inbound","action":"drop"}`), "network.security[0].rules[0].action", `must be allow or deny`},
		{"protocol", rules(`{"direction":"inbound","action":"allow","protocol":"sctp"}`), "network.security[0].rules[0].protocol", `must be tcp, udp, icmp or *`},
		{"ports", rules(`{"direction":"inbound","action":"allow","ports":"80-"}`), "network.security[0].rules[0].ports", `must be ports`},
		{"ports backwards", rules(`{"direction":"inbound","action":"allow","ports":"80-79"}`), "network.security[0].rules[0].ports", `must be ports`},
		{"port 0", rules(`{"direction":"inbound","action":"allow","ports":"0-79"}`), "network.security[0].rules[0].ports", `must be ports`},
		{"bad cidr", rules(`{"direction":"inbound","action":"allow","cidr":"all"}`), "network.security[0].rules[0].cidr", `must be a network`},
		{"ping", rules(`{"direction":"inbound","action":"allow","protocol":"Icmp"}`), "network.security[0].rules[0].protocol", `does not reach containers`},
		{"out", rules(`{"direction":"outbound","action":"deny"}`), "network.security[0].rules[0].direction", `does not filter what containers send`},
		{"some out", rules(`{"direction":"outbound","action":"allow","ports":"443"}`), "network.security[0].rules[0].direction", `does not filter`},
		{"all ports", rules(`{"direction":"inbound","action":"allow"}`), "compute.containers[0].ports", `is missing: the rules allow more than 64 ports`},
		{"many ports", rules(`{"direction":"inbound","action":"allow","protocol":"tcp","ports":"100-164"}`), "compute.containers[0].ports", `allow more than 64`},
		{"too many containers", `{"name":"x","compute":{"containers":[` + strings.Repeat(ok+",", 64) + ok + `]}}`, "compute.containers", `at most 64`},
		{"too many ports", with(`"ports":[` + strings.Repeat(`"80",`, 64) + `"80"]`), "compute.containers[0].ports", `at most 64`},
		{"too many rules", rules(strings.Repeat(`{"direction":"inbound","action":"allow"},`, 1000) + `{"direction":"inbound","action":"allow"}`), "network.security", `at most 1000`},
	} {
		_, _, err := parts([]byte(tt.text), "")
		problems, _ := errors.AsType[app.Problems](err)
		found := false
		for _, p := range problems {
			found = found || p.Path == tt.path && strings.Contains(p.Text, tt.message)
		}
		if !found || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v, want %s %s", tt.name, err, tt.path, tt.message)
		}
	}
}

// TestAllProblems are told, not the first one alone.
func TestAllProblems(t *testing.T) {
	_, _, err := parts([]byte(`{"name":"x","compute":{"vm":[{"image":"x"}],"containers":[{"name":"a","image":"a b","ports":["x"]},{"name":"b","image":"b c","replicas":2,"subnet":["$.network.subnet[0]"]}]},"storage":[{"size":"x"}]}`), "")
	var paths []string
	problems, _ := errors.AsType[app.Problems](err)
	for _, p := range problems {
		paths = append(paths, p.Path)
	}
	want := []string{"compute.vm[0].image", "compute.vm", "storage[0].size", "compute.containers[0].ports[0]", "compute.containers[0].image", "compute.containers[1].subnet[0]", "compute.containers[1].image"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestExample registers the example of the documentation, and runs it.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/osc.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```json\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/osc.md has no example")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/osc/register", example, "Content-Type: application/json")
		s.must(t, "POST", "/osc/start/shop", "")
		if w := s.ask("GET", "/osc/services", ""); w.Body.String() != "shop\n" {
			t.Errorf("services %q", w.Body)
		}
		for name, ready := range map[string]int{"shop-web": 1, "shop-db": 1} {
			if v, err := s.App(name); err != nil || v.Ready != ready {
				t.Errorf("%s: %d ready, %v", name, v.Ready, err)
			}
		}
		var given, kept any
		got := s.ask("GET", "/osc/register/shop", "").Body.Bytes()
		if err := errors.Join(json.Unmarshal([]byte(example), &given), json.Unmarshal(got, &kept)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(given, kept); diff != "" {
			t.Errorf("-given +kept\n%s", diff)
		}
	})
}

// TestCostly descriptors are read in no time all the same.
func TestCostly(t *testing.T) {
	many := strings.Repeat(`{"direction":"inbound","action":"deny","priority":1,"ports":"`+strings.Repeat("1-65535,", 100)+`1"},`, 999) + `{"direction":"inbound","action":"allow","priority":2,"ports":"1-65535"}`
	one := `{"name":"c%d","image":"mq:1","security":["$.network.security[0]"],"ports":["80"]}`
	var all []string
	for i := range maxContainers {
		all = append(all, fmt.Sprintf(one, i))
	}
	text := `{"name":"x","compute":{"containers":[` + strings.Join(all, ",") + `]},"network":{"security":[{"rules":[` + many + `]}]}}`
	if len(text) > 1<<20 {
		t.Fatalf("%d bytes", len(text))
	}
	if _, _, err := parts([]byte(text), ""); err == nil {
		t.Error("port 80 is open")
	}
}

// FuzzDescriptor has descriptors either refused as Invalid, or become apps that
// an engine takes.
func FuzzDescriptor(f *testing.F) {
	f.Add(fmt.Sprintf(full, `"containers":[{"name":"a","image":"mq:1","subnet":["$.network.subnet[0]"],"security":["$.network.security[0]"],"storage":["$.storage[0]",{"ref":"$.storage[1]","mountPath":"/x"}],"environments":["A=1"],"ports":["1883/tcp"],"cpu":1,"memory":"64Mi","healthCheck":{},"replicas":2}]`))
	f.Add(fmt.Sprintf(full, `"vm":[{"image":"$.image.artifacts[0]"}]`))
	f.Add(`{"name":"x","compute":{"containers":[{"name":"a","image":"b"},{"name":"c","image":"d"}]}}`)
	f.Add(`{"name":"x","network":{"security":[{"rules":[{"direction":"inbound","action":"deny","ports":"1-2,5"}]}]}}`)
	f.Add(`[[[`)
	f.Fuzz(func(t *testing.T, text string) {
		_, all, err := parts([]byte(text), "")
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Fatalf("%q: %v is not Invalid", text, err)
			}
			return
		}
		for _, p := range all {
			if err := p.spec.Validate(); err != nil {
				t.Fatalf("%q became a spec that is wrong: %v", text, err)
			}
		}
	})
}
