package flist

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

// judge says whether a reader's answer to any bytes is one of the two it may give.
func judge(t *testing.T, l *List, err error) {
	t.Helper()
	switch {
	case err != nil && (!errors.Is(err, errs.Invalid) || l != nil):
		t.Errorf("error of another kind: %v", err)
	case err == nil:
		if err := check(l); err != nil {
			t.Error(err)
		}
		for i := range min(len(l.Nodes), 100) {
			if at, ok := l.Find(l.Path(i)); !ok || at != i {
				t.Errorf("node %d is found at %d", i, at)
			}
		}
		l.Stats()
	}
}

func seed(f *testing.F, name string) []byte {
	f.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzRecord: directory and permission records.
func FuzzRecord(f *testing.F) {
	for _, lay := range layouts {
		for _, files := range variety {
			f.Add(dirRecord(lay, files...))
		}
	}
	f.Add(aclRecord("root", "root", 0o755, 1, 2))
	f.Add(aclRecord("root", "root", 0o755))
	f.Add(bombOfStructs())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := recordReader{acls: &names{ids: map[string]uint32{}}, nodes: &atomic.Int64{}}
		d := r.read(dirKey{}, b)
		if d.err != nil {
			return
		}
		for i := range d.nodes {
			n := d.nodes[i]
			if n.Rdev == 0 { // setMode needs it to be right
				n.Mode |= 0o644
			}
			if err := checkNode(&n); err != nil {
				t.Errorf("%q: %v", n.Name, err)
			}
		}
		if _, err := readACL(b); err != nil && strings.Contains(err.Error(), "BUG") {
			t.Error(err)
		}
	})
}

// FuzzDatabase: SQLite files, of either era.
func FuzzDatabase(f *testing.F) {
	f.Add(seed(f, "testdata/mini/flistdb.sqlite3"))
	f.Add(dbC(f, entriesC(variety), "INSERT INTO metadata VALUES ('environ', '{}')"))
	f.Add(dbD(f, "INSERT INTO inode VALUES (2, 1, 'a', 1, 0, 0, 33188, 0, 0, 0), (3, 1, 'l', 1, 0, 0, 41471, 0, 0, 0)", "INSERT INTO extra VALUES (3, 'x')",
		"INSERT INTO block VALUES (2, zeroblob(32), zeroblob(32))", "INSERT INTO tag VALUES ('config', '{}')", "INSERT INTO route VALUES (0, 255, 'dir:///x')"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := openDatabase(t.Context(), b, true)
		judge(t, l, err)
	})
}

// FuzzOpen: whole files.
func FuzzOpen(f *testing.F) {
	f.Add(seed(f, mini))
	f.Add(archiveC(f, member{"flistdb.sqlite3", dbC(f, entriesC(variety))}, member{"router.yaml", []byte("lookup: []")}))
	f.Add(archiveC(f, member{"CURRENT", nil}, member{"MANIFEST-1", nil}))
	f.Add([]byte("a|b|c|d|e|f|g|h|i|j\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Open(t.Context(), write(t, b))
		judge(t, l, err)
	})
}

// FuzzRouter: a router.yaml gives ranges that can be compared with names of chunks.
func FuzzRouter(f *testing.F) {
	f.Add([]byte("pools:\n  a: {\"00:ff\": \"zdb://h:9900\", \"a\": x}\nlookup: [a]\ncache: [a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Meta
		if err := m.setRouter(b); err != nil && !errors.Is(err, errs.Invalid) {
			t.Error(err)
		}
		for _, r := range m.Routes {
			if len(r.From) != len(r.To) || r.From == "" || len(r.From)%2 != 0 || strings.Trim(r.From+r.To, "0123456789abcdef") != "" {
				t.Errorf("%+v", r)
			}
		}
	})
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte("[startup.entry]\nname = \"core.system\"\n[startup.entry.args]\nname = \"/x\"\nargs = [\"a\"]\n[startup.entry.args.env]\nA = \"1\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseStartup(b[:min(len(b), maxStartup)])
		judgeConfig(t, c, err)
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add("backend", `{"host":"h","port":1,"namespace":"n","password":"p"}`)
	f.Add("entrypoint", `["/bin/sh"]`)
	f.Add("environ", `{"A":"1"}`)
	f.Add("port", `{"tcp/80":8080}`)
	f.Add("volume", `{"/data":{"host":"/x"}}`)
	f.Add("buoy.config", `{"env":["A=1"],"labels":{"a":"b"}}`)
	f.Fuzz(func(t *testing.T, key, value string) {
		var m Meta
		err := m.setC(map[string]string{key: value})
		if err != nil {
			m.Config = nil
		}
		judgeConfig(t, m.Config, err)
	})
}

func judgeConfig(t *testing.T, c *Config, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, errs.Invalid) {
		t.Errorf("error of another kind: %v", err)
	}
	if err == nil && c != nil && c.check() != nil {
		t.Errorf("%+v has a NUL", c)
	}
}
