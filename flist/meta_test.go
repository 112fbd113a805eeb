package flist

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// image is a list of era C whose files have the given contents.
func image(t *testing.T, contents map[string]string, entries map[string][]byte, statements ...string) (*List, Fetch) {
	t.Helper()
	stored := map[chunk.ID][]byte{}
	dirs := map[string][]file{"": nil, "etc": nil}
	dirs[""] = []file{{name: "etc"}}
	for path, s := range contents {
		dir, name := "", path
		if i := strings.LastIndex(path, "/"); i >= 0 {
			dir, name = path[:i], path[i+1:]
		}
		f := file{name: name, kind: kindFile, size: uint64(len(s)), unit: 128}
		if s != "" {
			id := chunk.ID(fmt.Sprintf("%016d", len(stored)))
			stored[id], f.chunks = []byte(s), []string{string(id)}
		}
		dirs[dir] = append(dirs[dir], f)
	}
	all := entriesC(dirs)
	maps.Copy(all, entries)
	fetch := func(_ context.Context, ref chunk.Ref, size int) ([]byte, error) {
		b, ok := stored[ref.ID]
		if !ok || len(b) != size {
			return nil, errs.E(errs.Unavailable, "no chunk %s", ref.ID)
		}
		return b, nil
	}
	return openFile(t, write(t, dbC(t, all, statements...))), fetch
}

// TestOwners: of before 2020-07-30 owners are names, which the image itself explains.
func TestOwners(t *testing.T) {
	passwd := "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:33:34::/:/bin/sh\nweb:x:99:99::/:/bin/sh\nmax:x:4294967295:1::/:\nroot:x:5:5::/:\n"
	for name, c := range map[string]struct {
		acl      []byte
		before   string
		resolved string
	}{
		"numbers":         {aclRecord("web", "www", 0o644, 7, 8), "7:8", "7:8"},
		"names":           {aclRecord("web", "www", 0o4755), "65534:65534", "33:55"},
		"stored as -1":    {aclRecord("web", "www", 0o644, -1, -1), "65534:65534", "33:55"},
		"root":            {aclRecord("root", "root", 0o644), "0:0", "0:65534"}, // a group that is given another number
		"half":            {aclRecord("web", "www", 0o644, -1, 8), "65534:8", "33:8"},
		"number as name":  {aclRecord("4242", "4343", 0o644), "4242:4343", "4242:4343"},
		"unknown":         {aclRecord("who", "", 0o644), "65534:65534", "65534:65534"},
		"no number":       {aclRecord("max", "4294967295", 0o644), "65534:65534", "65534:65534"},
		"mode with types": {aclRecord("web", "www", unix.S_IFDIR|0o1777), "65534:65534", "33:55"},
	} {
		l, fetch := image(t, map[string]string{"etc/passwd": passwd, "etc/group": "www:x:55:\nroot:x:65534:\n"}, map[string][]byte{"a": c.acl})
		for i := range l.Nodes {
			if got := fmt.Sprintf("%d:%d", l.Nodes[i].UID, l.Nodes[i].GID); got != c.before {
				t.Errorf("%s: %q is %s's before, not %s's", name, l.Path(i), got, c.before)
			}
		}
		fetches := 0
		err := l.ResolveOwners(t.Context(), func(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
			fetches++
			return fetch(ctx, ref, size)
		})
		if err != nil || fetches == 0 && c.before != "7:8" || fetches > 0 && c.before == "7:8" {
			t.Errorf("%s: %d chunks were fetched: %v", name, fetches, err)
		}
		for i := range l.Nodes {
			if got := fmt.Sprintf("%d:%d", l.Nodes[i].UID, l.Nodes[i].GID); got != c.resolved {
				t.Errorf("%s: %q is %s's, not %s's", name, l.Path(i), got, c.resolved)
			}
		}
		if err := check(l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOwnersUnavailable: a store that is down is no image without users; asked again, it may be up.
func TestOwnersUnavailable(t *testing.T) {
	l, fetch := image(t, map[string]string{"etc/passwd": "web:x:33:34::/:\n"}, map[string][]byte{"a": aclRecord("web", "www", 0o644)})
	down := func(context.Context, chunk.Ref, int) ([]byte, error) { return nil, errs.E(errs.Unavailable, "down") }
	if err := l.ResolveOwners(t.Context(), down); !errors.Is(err, errs.Unavailable) || l.Nodes[0].UID != nobody {
		t.Errorf("owner %d: %v", l.Nodes[0].UID, err)
	}
	if err := l.ResolveOwners(t.Context(), fetch); err != nil || l.Nodes[0].UID != 33 || l.Nodes[0].GID != nobody {
		t.Errorf("owner %d:%d: %v", l.Nodes[0].UID, l.Nodes[0].GID, err)
	}
}

// TestPermissions: a record that is missing gives nothing away, and one of before 2020 tells the types of special files.
func TestPermissions(t *testing.T) {
	tree := map[string][]file{"": {
		{name: "d", acl: "-"},
		{name: "f", kind: kindFile, acl: "nope"},
		{name: "l", kind: kindLink, link: "x", acl: "-"},
		{name: "p", kind: kindSpecial, data: "(nothing)", acl: "p"},
		{name: "b", kind: kindSpecial, data: "1,3", acl: "b"},
		{name: "c", kind: kindSpecial, data: "8,0", acl: "c"},
		{name: "x", kind: kindSpecial, data: "(nothing)", acl: "c"},
		{name: "r", kind: kindFile, acl: "b"},
	}, "d": nil}
	entries := entriesC(tree)
	for k, mode := range map[string]uint16{"ap": unix.S_IFIFO | 0o644, "ab": unix.S_IFBLK | 0o660, "ac": unix.S_IFCHR | 0o600} {
		entries[k] = aclRecord("root", "root", mode)
	}
	l := openFile(t, write(t, dbC(t, entries)))
	want := map[string]uint32{
		"": unix.S_IFDIR | 0o755, "d": unix.S_IFDIR | 0o755, "f": unix.S_IFREG | 0o400, "l": unix.S_IFLNK | 0o777,
		"p": unix.S_IFIFO | 0o644, "b": unix.S_IFBLK | 0o660, "c": unix.S_IFCHR | 0o600, "x": unix.S_IFSOCK | 0o600, "r": unix.S_IFREG | 0o660,
	}
	for i := range l.Nodes {
		if n := l.Nodes[i]; n.Mode != want[n.Name] {
			t.Errorf("%q has mode %o, not %o", n.Name, n.Mode, want[n.Name])
		}
	}
	delete(entries, "a")
	if n := openFile(t, write(t, dbC(t, entries))).Nodes[0]; n.Mode != unix.S_IFDIR|0o500 || n.UID != 0 {
		t.Errorf("a directory without permissions has %o", n.Mode)
	}
}

func TestLoadConfig(t *testing.T) {
	startup := "[startup]\n[startup.entry]\nname = \"core.system\"\nrunning_delay = -1\n[startup.entry.args]\nname = \"/start\"\n" +
		"dir = \"/data\"\nargs = [\"a b\", \"c\"]\n[startup.entry.args.env]\nB = \"2\"\nA = \"1\"\n"
	for name, c := range map[string]struct {
		file string
		sql  []string
		want *Config
	}{
		"none":    {"", nil, nil},
		"startup": {startup, nil, &Config{Cmd: []string{"/start", "a b", "c"}, WorkingDir: "/data", Env: []string{"A=1", "B=2"}}},
		"metadata": {
			startup,
			[]string{`INSERT INTO metadata VALUES ('entrypoint', '["/x"]')`},
			&Config{Entrypoint: []string{"/x"}},
		},
		"other": {"[startup.entry]\nname = \"core.web\"\n[startup.entry.args]\nname = \"x\"\n", nil, nil},
	} {
		l, fetch := image(t, map[string]string{".startup.toml": c.file}, nil, c.sql...)
		if err := l.LoadConfig(t.Context(), fetch); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, l.Meta.Config); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	l, fetch := image(t, map[string]string{".startup.toml": "[startup"}, nil)
	if err := l.LoadConfig(t.Context(), fetch); !errors.Is(err, errs.Invalid) || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	l, fetch = image(t, map[string]string{".startup.toml": strings.Repeat("#", maxStartup+1)}, nil)
	if err := l.LoadConfig(t.Context(), fetch); err != nil || l.Meta.Config != nil {
		t.Errorf("a vast file is read: %v", err)
	}
}

func TestMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		texts map[string]string
		want  Meta
	}{
		"nothing": {nil, Meta{}},
		"all": {map[string]string{
			"backend": `{"host":"hub.example","port":9900,"namespace":"a/b","password":"p@ss:/","socket":"/s"}`, "entrypoint": `["/a b","c"]`,
			"environ": `{"B":"x=y","A":""}`, "port": `{"udp/53":53,"tcp/80":8080}`, "volume": `{"/data":{},"/cfg":{"host":"/etc"}}`, "readme": `{"readme":"hi"}`,
		}, Meta{Backend: "zdb://:p%40ss%3A%2F@hub.example:9900/a/b", Texts: map[string]string{"readme": `{"readme":"hi"}`}, Config: &Config{
			Entrypoint: []string{"/a b", "c"}, Env: []string{"A=", "B=x=y"}, Ports: []string{"80/tcp", "53/udp"}, Volumes: []string{"/cfg", "/data"},
		}}},
		"own":     {map[string]string{"environ": `{"A":"1"}`, "buoy.config": `{"env":["A=2"],"user":"u","labels":{"x":"y"}}`}, Meta{Config: &Config{Env: []string{"A=2"}, User: "u", Labels: map[string]string{"x": "y"}}}},
		"token":   {map[string]string{"backend": `{"host":"::1","port":1,"token":"t"}`}, Meta{Backend: "zdb://:t@[::1]:1"}},
		"no port": {map[string]string{"backend": `{"host":"h"}`}, Meta{Backend: "zdb://h:9900"}},
		"socket":  {map[string]string{"backend": `{"socket":"/run/docker.sock"}`}, Meta{}},
		"empty":   {map[string]string{"environ": ""}, Meta{}},
	} {
		var m Meta
		if err := m.setC(c.texts); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, m); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for key, s := range map[string]string{"backend": `{"host":"a/b"}`, "environ": `["A=1"]`, "port": `{"80":1}`, "volume": `"x"`, "entrypoint": `["a\u0000"]`} {
		var m Meta
		if err := m.setC(map[string]string{key: s}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s %s: %v", key, s, err)
		}
	}
	for _, backend := range []string{`{"host":"h","port":65536}`, `{"host":"` + strings.Repeat("h", 254) + `"}`} {
		var m Meta
		if err := m.setC(map[string]string{"backend": backend}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", backend, err)
		}
	}
}

func TestRouter(t *testing.T) {
	var m Meta
	err := m.setRouter([]byte(`
pools:
  private: {"00:7F": "zdb://a:1", "80:ff": "zdb://b:1"}
  public: {"a": "ardb://c:1", "Bc": "redis://:pw@d:1"}
  near: {"0000:ffff": "zdb://e:1"}
  unused: {"00": "x"}
lookup: [public, private]
cache: [near, private]
`))
	want := []Route{
		{Pool: 0, From: "bc", To: "bc", URL: "redis://:pw@d:1"},
		{Pool: 0, From: "a0", To: "a0", URL: "ardb://c:1"},
		{Pool: 1, From: "00", To: "7f", URL: "zdb://a:1", Cache: true},
		{Pool: 1, From: "80", To: "ff", URL: "zdb://b:1", Cache: true},
		{Pool: 2, From: "0000", To: "ffff", URL: "zdb://e:1", Cache: true},
	}
	if diff := cmp.Diff(want, m.Routes); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, s := range []string{
		"pools: [", "lookup: [a]", "pools: {a: {\"\": x}}\nlookup: [a]", "pools: {a: {zz: x}}\nlookup: [a]", "pools: {a: {\"00:f000\": x}}\nlookup: [a]",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\npools: [*d,*d,*d,*d,*d,*d,*d]",
	} {
		var m Meta
		if err := m.setRouter([]byte(s)); !errors.Is(err, errs.Invalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
