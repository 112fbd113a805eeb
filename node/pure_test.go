package node

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/state"
)

// Docker's table: docs.docker.com/reference/dockerfile, "Understand how CMD and ENTRYPOINT interact".
func TestResolveCommand(t *testing.T) {
	ep, cmd := []string{"/entry", "-e"}, []string{"cmd", "-c"}
	for _, c := range []struct {
		name             string
		entrypoint, args []string
		img              images.RunConfig
		want             string
		init             bool
	}{
		{"nothing at all", nil, nil, images.RunConfig{}, "", true},
		{"image's command", nil, nil, images.RunConfig{Cmd: cmd}, "cmd -c", false},
		{"image's entrypoint", nil, nil, images.RunConfig{Entrypoint: ep}, "/entry -e", false},
		{"image's both", nil, nil, images.RunConfig{Entrypoint: ep, Cmd: cmd}, "/entry -e cmd -c", false},
		{"own command", nil, []string{"mine"}, images.RunConfig{Cmd: cmd}, "mine", false},
		{"own command for the image's entrypoint", nil, []string{"mine"}, images.RunConfig{Entrypoint: ep, Cmd: cmd}, "/entry -e mine", false},
		{"own entrypoint drops the image's command", []string{"/own"}, nil, images.RunConfig{Entrypoint: ep, Cmd: cmd}, "/own", false},
		{"own both", []string{"/own"}, []string{"mine"}, images.RunConfig{Entrypoint: ep, Cmd: cmd}, "/own mine", false},
		{"no entrypoint, own command", []string{}, []string{"mine"}, images.RunConfig{Entrypoint: ep, Cmd: cmd}, "mine", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := resolve(Spec{Name: "n", Entrypoint: c.entrypoint, Run: container.Spec{Args: c.args}}, c.img)
			if got := strings.Join(run.Args, " "); got != c.want || run.Init != c.init {
				t.Errorf("%q, init %v; want %q, %v", got, run.Init, c.want, c.init)
			}
		})
	}
	if img := (images.RunConfig{Entrypoint: ep[:1:2]}); len(resolve(Spec{Run: container.Spec{Args: cmd}}, img).Args) != 3 || ep[1] != "-e" {
		t.Error("the image's entrypoint was written over")
	}
}

func TestResolveTheRest(t *testing.T) {
	img := images.RunConfig{
		Env: []string{"PATH=/img", "A=img", "junk", "=x", "A=img2"}, WorkingDir: "/img", User: "web", StopSignal: "SIGQUIT",
	}
	got := resolve(Spec{Name: "n"}, img)
	want := container.Spec{Env: []string{"PATH=/img", "A=img2"}, Cwd: "/img", User: "web", StopSignal: "SIGQUIT", Hostname: "n", Init: true}
	if got.Args = nil; !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	own := container.Spec{Args: []string{"x"}, Env: []string{"A=own", "B="}, Cwd: "/own", User: "0", StopSignal: "INT", Hostname: "h", Init: true}
	got = resolve(Spec{Name: "n", Run: own}, img)
	want = own
	want.Env = []string{"PATH=/img", "A=own", "B="}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = resolve(Spec{Name: "n"}, images.RunConfig{WorkingDir: "relative", StopSignal: "SIGNONSENSE"})
	if got.Cwd != "" || got.StopSignal != "" {
		t.Errorf("an image's nonsense is taken: %q %q", got.Cwd, got.StopSignal)
	}
}

func TestMergeEnv(t *testing.T) {
	for _, c := range []struct{ base, over, want string }{
		{"", "", ""},
		{"A=1 B=2", "B=3 C=4", "A=1 B=3 C=4"},
		{"A=1", "A=", "A="},
		{"A=x=y", "AA=1", "A=x=y AA=1"},
		{"A B=1", "C", "B=1"},
		{"A=1 A=2", "a=3", "A=2 a=3"},
	} {
		if got := strings.Join(mergeEnv(strings.Fields(c.base), strings.Fields(c.over)), " "); got != c.want {
			t.Errorf("mergeEnv(%s; %s) = %q, want %q", c.base, c.over, got, c.want)
		}
	}
}

func TestHostsFile(t *testing.T) {
	const head = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if got, want := string(hostsFile("web", []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")})), head+"10.0.0.5\tweb\nfd00::5\tweb\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := string(hostsFile("web", nil)), head+"127.0.1.1\tweb\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestResolvConf(t *testing.T) {
	const host = "# made by hand\nnameserver 127.0.0.53\n nameserver\t9.9.9.9 \nnameserver ::1\nnameserver nonsense\nsearch a b\noptions ndots:2\nsortlist x\nnameserver\n"
	for _, c := range []struct {
		name string
		host string
		r    resolving
		want string
	}{
		{"own namespace", host, resolving{own: true}, "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"},
		{"the host's", host, resolving{}, "nameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver ::1\nsearch a b\noptions ndots:2\n"},
		{"asked for", host, resolving{asked: []string{"1.1.1.1", "8.8.8.8"}, ours: "10.0.0.1", own: true}, "nameserver 1.1.1.1\nnameserver 8.8.8.8\nsearch a b\noptions ndots:2\n"},
		{"on a bridge of ours", host, resolving{ours: "10.0.0.1", own: true}, "nameserver 10.0.0.1\nnameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"},
		{
			"told by DHCP", host,
			resolving{ours: "10.0.0.1", told: []string{"10.7.0.1", "10.7.0.2"}, search: []string{"shop.example"}, own: true},
			"nameserver 10.0.0.1\nnameserver 10.7.0.1\nnameserver 10.7.0.2\noptions ndots:2\nsearch shop.example\n",
		},
		{"once each", host, resolving{ours: "9.9.9.9", own: true}, "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"},
		{"no resolver", "", resolving{own: true}, ""},
		{"no newline at the end", "nameserver 9.9.9.9", resolving{own: true}, "nameserver 9.9.9.9\n"},
	} {
		if got := string(resolvConf([]byte(c.host), c.r)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func port(t *testing.T, s string) netcfg.Port {
	t.Helper()
	p, err := netcfg.ParsePort(s, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestClash(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"80:1", "80:2", true},
		{"127.0.0.1:80:1", "127.0.0.1:80:2", true},
		{"127.0.0.1:80:1", "80:2", true},
		{"80:1", "127.0.0.1:80:2", true},
		{"127.0.0.1:80:1", "127.0.0.2:80:2", false},
		{"80:1", "81:1", false},
		{"80:1/udp", "80:1", false},
		{"80:1/udp", "127.0.0.1:80:1/udp", true},
	} {
		a, b := Spec{Ports: []netcfg.Port{port(t, "9:9"), port(t, c.a)}}, Spec{Ports: []netcfg.Port{port(t, c.b), port(t, "10:9")}}
		p, got := clash(a, b)
		if got != c.want || got && p != a.Ports[1] {
			t.Errorf("%s and %s: %v, %v", c.a, c.b, p, got)
		}
		a.HostNetworking = true
		if _, got := clash(a, b); got {
			t.Errorf("%s on the host's network clashes: its ports mean nothing", c.a)
		}
	}
}

func TestAtBoot(t *testing.T) {
	no, onFailure := container.Restart{Policy: container.RestartNo}, container.Restart{Policy: container.RestartOnFailure}
	always, unless, unsaid := container.Restart{Policy: container.RestartAlways}, container.Restart{Policy: container.RestartUnlessStopped}, container.Restart{}
	now := time.Now()
	ran := state.Record{Wanted: state.Run, Person: true, Started: now}
	stopped := state.Record{Wanted: state.Halt, Person: true, Started: now, Finished: now, Reason: reasonStopped}
	ended := state.Record{Wanted: state.Halt, Started: now, Finished: now, Reason: reasonExited}
	due := state.Record{Wanted: state.Run, Started: now, Finished: now, Reason: reasonExited}
	for _, c := range []struct {
		name     string
		rec      state.Record
		rebooted bool
		starts   []container.Restart
	}{
		{"it ran", ran, true, []container.Restart{onFailure, always, unless, unsaid}},
		{"it ran, the daemon alone was away", ran, false, []container.Restart{onFailure, always, unless, unsaid}},
		{"a person stopped it", stopped, true, []container.Restart{always}},
		{"a person stopped it, no reboot", stopped, false, nil},
		{"it had ended for good", ended, false, nil},
		{"its restart was due", due, true, []container.Restart{no, onFailure, always, unless, unsaid}},
	} {
		n := &Node{rebooted: c.rebooted}
		for _, r := range []container.Restart{no, onFailure, always, unless, unsaid} {
			if got, want := n.atBoot(r, c.rec), slices.Contains(c.starts, r); got != want {
				t.Errorf("%s, policy %q: %v, want %v", c.name, r.Policy, got, want)
			}
		}
	}
}

func TestHistoryAndReasons(t *testing.T) {
	at := time.Now()
	for _, c := range []struct {
		wanted  state.Wanted
		person  bool
		stopped bool
	}{{state.Run, true, false}, {state.Run, false, false}, {state.Halt, true, true}, {state.Halt, false, false}} {
		got := history(state.Record{Wanted: c.wanted, Person: c.person, Started: at, Restarts: 3, Quick: 2})
		if want := (container.History{Started: at, Retries: 3, Quick: 2, Stopped: c.stopped}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for want, e := range map[string]shimapi.Exit{reasonExited: {Code: 1}, reasonOOM: {OOM: true, Signal: 9}, reasonLost: {Lost: true, OOM: true}} {
		if got := reasonOf(e); got != want {
			t.Errorf("%+v: %s, want %s", e, got, want)
		}
	}
}

func TestLayOut(t *testing.T) {
	dir := t.TempDir()
	n := &Node{cfg: Config{Data: dir + "/data", Run: dir + "/run"}}
	s := Spec{Name: "web", DNS: []string{"192.0.2.53"}, Filesystems: []string{"pool:fs.1"}}
	run := container.Spec{Hostname: "h", Mounts: []container.Mount{
		{Type: container.Volume, Source: "v", Target: "/v/", ReadOnly: true}, {Type: container.Tmpfs, Target: "/img/tmp"}, {Type: container.Bind, Source: "/", Target: "/host"},
	}}
	image := []string{"/img/data", "/v", "img/tmp/", "/", "rel/../up"}
	b := newBox(s, state.Record{})
	lay := func(s Spec) layout {
		b.spec = s
		l, err := n.layOut(t.Context(), b, run, image)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := lay(s)
	var got []string
	for _, m := range l.mounts[3:] {
		ro := ""
		if m.ReadOnly {
			ro = " ro"
		}
		got = append(got, strings.TrimPrefix(m.Source, dir)+" "+m.Target+ro)
	}
	want := []string{"/data/filesystems/pool/fs.1 /fs/pool/fs.1", "/data/volumes/v /v/ ro", "/data/containers/web/volumes/b861d3fd2fb50476 /img/data", "/data/containers/web/volumes/e7fb5626385408ef /up"}
	if !slices.Equal(got, want) || len(l.volumes) != len(want) {
		t.Errorf("mounts %q, want %q", got, want)
	}
	if err := n.writeNames(b, run.Hostname); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"hosts": "127.0.1.1\th\n", "resolv.conf": "nameserver 192.0.2.53\n", "hostname": "h\n"} {
		file := filepath.Join(dir, "data/containers/web/etc", name)
		raw, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(raw), text) {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
		if !slices.ContainsFunc(l.mounts[:3], func(m container.Mount) bool { return m.Source == file && m.Target == "/etc/"+name }) {
			t.Errorf("%s is not mounted: %v", name, l.mounts[:3])
		}
	}
	for _, d := range []string{"log", "work", "upper"} {
		if st, err := os.Stat(filepath.Join(n.dataDir("web"), d)); err != nil || !st.IsDir() {
			t.Errorf("%s: %v", d, err)
		}
	}
	// The writable layer goes at the next start, unless it is kept; volumes stay.
	old := []string{l.upper + "/file", l.work + "/file", dir + "/data/volumes/v/file", n.logFile("web")}
	fill := func() {
		for _, f := range old {
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() (there []string) {
		for _, f := range old {
			if _, err := os.Stat(f); err == nil {
				there = append(there, f)
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
		return there
	}
	fill()
	lay(s)
	if got := left(); !slices.Equal(got, old[2:]) {
		t.Errorf("left: %v", got)
	}
	fill()
	s.Keep = true
	lay(s)
	if got := left(); !slices.Equal(got, old) {
		t.Errorf("kept: %v", got)
	}
	// What cannot be made has the kind of a full disk.
	n.cfg.Run = "/dev/null"
	if _, err := n.layOut(t.Context(), b, run, nil); !errors.Is(err, errs.Unavailable) {
		t.Errorf("no directory to write to: %v", err)
	}
}

func TestOwn(t *testing.T) {
	got, err := own([]container.Mount{{Type: container.Volume, Source: "v"}, {Type: container.Bind, Source: "/"}, {Type: container.Tmpfs}})
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := own([]container.Mount{{Type: container.Bind, Source: "/no/such", Target: "/x"}}); !errors.Is(err, errs.Invalid) {
		t.Errorf("a source that is not there: %v", err)
	}
}

func TestNewBoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "boot")
	for i, want := range []bool{true, false, false} {
		if got, err := newBoot(file); err != nil || got != want {
			t.Errorf("look %d: %v, %v", i, got, err)
		}
	}
	if err := os.WriteFile(file, []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := newBoot(file); err != nil || !got {
		t.Errorf("after a reboot: %v, %v", got, err)
	}
	if _, err := newBoot("/dev/null/boot"); err == nil {
		t.Error("it cannot be remembered, and nobody says so")
	}
}

func TestSpecValidate(t *testing.T) {
	nic := netcfg.NIC{Type: netcfg.NICDefault}
	p := netcfg.Port{Proto: netcfg.TCP, Host: netip.MustParseAddrPort("0.0.0.0:80"), Guest: 80}
	good := Spec{Name: "a", Image: "i", NICs: []netcfg.NIC{nic}, Ports: []netcfg.Port{p}, Filesystems: []string{"p:f"}, InitProcesses: []InitProcess{{Args: []string{"x"}}}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Spec){
		`name "a/b" is not of 1 to 63 letters`:       func(s *Spec) { s.Name = "a/b" },
		`name ".." is not of 1 to 63 letters`:        func(s *Spec) { s.Name = ".." },
		`the image (flist) is missing`:               func(s *Spec) { s.Image = "" },
		`working directory "x" is not absolute`:      func(s *Spec) { s.Run.Cwd = "x" },
		`NIC type "zerotier" is not supported`:       func(s *Spec) { s.NICs = []netcfg.NIC{{Type: "zerotier", ID: "x"}} },
		`NIC default: the container has one already`: func(s *Spec) { s.NICs = append(s.NICs, nic) },
		`two NICs are called "lan"`: func(s *Spec) {
			s.NICs = []netcfg.NIC{{Type: "default", Name: "lan"}, {Type: "vlan", ID: "1", Name: "lan"}}
		},
		`ports need a NIC of type default`:                                            func(s *Spec) { s.NICs = nil },
		`port 0.0.0.0:80:80 is published twice`:                                       func(s *Spec) { s.Ports = append(s.Ports, p) },
		`filesystem "p" is not "pool:filesystem"`:                                     func(s *Spec) { s.Filesystems = []string{"p"} },
		`filesystem "p:../x" is not "pool:filesystem"`:                                func(s *Spec) { s.Filesystems = []string{"p:../x"} },
		`filesystem "..:x" is not "pool:filesystem"`:                                  func(s *Spec) { s.Filesystems = []string{"..:x"} },
		`storage "redis://h:1" is the chunk store of an flist, and image "i" is none`: func(s *Spec) { s.Storage = "redis://h:1" },
		`lazy is for flists, and image "i" is none`:                                   func(s *Spec) { s.Lazy = LazyAlways },
		`storage is not a URL like redis://`:                                          func(s *Spec) { s.Storage, s.Image = "/tmp/x", "http://h/x.flist" },
		`lazy "x" is not auto, always or never`:                                       func(s *Spec) { s.Lazy, s.Image = "x", "http://h/x.flist" },
		`an init process has no name`:                                                 func(s *Spec) { s.InitProcesses = []InitProcess{{}} },
		`environment entry "x" is not KEY=value`:                                      func(s *Spec) { s.InitProcesses = []InitProcess{{Args: []string{"a"}, Env: []string{"x"}}} },
	} {
		s := good
		s.NICs, s.Ports = slices.Clone(good.NICs), slices.Clone(good.Ports)
		change(&s)
		if err := s.Validate(); !errors.Is(err, errs.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	host := Spec{Name: "a", Image: "i", HostNetworking: true, Ports: []netcfg.Port{p, p}, NICs: []netcfg.NIC{nic, nic}}
	if err := host.Validate(); err != nil {
		t.Errorf("on the host's network NICs and ports mean nothing: %v", err)
	}
	if host.hasDefaultNIC() {
		t.Error("it has a default NIC on the host's network")
	}
}

// What the database gives back is what was asked for.
func TestSpecSurvivesTheDatabase(t *testing.T) {
	want := Spec{
		Name: "a", Image: "i", Entrypoint: []string{"e"}, Run: container.Spec{Args: []string{"x"}, Limits: container.Limits{Memory: 1 << 30}},
		NICs:    []netcfg.NIC{{Type: netcfg.NICDefault, Config: netcfg.NICConfig{DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1")}, CIDRs: []netip.Prefix{netip.MustParsePrefix("172.18.0.9/16")}}}},
		Ports:   []netcfg.Port{{Proto: netcfg.UDP, Host: netip.MustParseAddrPort("127.0.0.1:53"), Guest: 53}},
		Restart: container.Restart{Policy: container.RestartOnFailure, MaxRetries: 3}, Keep: true, Labels: map[string]string{"a": "b"},
	}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := restore(state.Record{Name: "a", Spec: raw, NICs: []byte(`[{"key":"default","index":2,"addrs":["10.0.0.2/24"]}]`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.spec, cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if b.status != Halted {
		t.Errorf("status %s", b.status)
	}
	if diff := cmp.Diff([]given{{Key: "default", Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}}, b.given, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("given (-want +got)\n%s", diff)
	}
	for _, garbage := range []state.Record{{Spec: []byte("{"), NICs: []byte("[]")}, {Spec: raw, NICs: []byte("{")}} {
		if _, _, err := restore(garbage, nil); err == nil {
			t.Errorf("%s with %s is a container", garbage.Spec, garbage.NICs)
		}
	}
}

func TestNewWantsItsParts(t *testing.T) {
	if _, err := New(Config{Data: "/d", Run: "/r", Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a node without parts")
	}
}
