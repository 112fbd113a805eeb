package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestConfigFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	write(t, file, `
# all kinds of flags
dev: true
data: /tmp/d
run: /tmp/r
cidr: 10.1.0.0/16
image-gc: off
rate-limit: 7
flist-timeout: 90s
join-token: hush
label: [zone=a, disk=ssd]
mirror: docker.io=m1   # one needs no list
listen: ["127.0.0.1:1"]
`)
	c, err := parse([]string{"--config", file}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !c.dev || c.data != "/tmp/d" || c.prefix.String() != "10.1.0.0/16" || c.images.gc != (thresholds{}) || c.fleet.rate != 7 || len(c.listen) != 2 ||
		c.flist.timeout.String() != "1m30s" || !cmp.Equal(c.fleet.labels, map[string]string{"zone": "a", "disk": "ssd"}) || len(c.images.mirrors) != 1 {
		t.Errorf("%+v", c)
	}
	// The command line replaces, also what may be repeated.
	c, err = parse([]string{"--config", file, "--label", "zone=b", "--rate-limit", "8", "--image-gc", "70:60"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.fleet.rate != 8 || c.images.gc != (thresholds{70, 60}) || !cmp.Equal(c.fleet.labels, map[string]string{"zone": "b"}) {
		t.Errorf("%+v", c)
	}

	var out bytes.Buffer
	if err := configure([]string{"show", "--config", file, "--label", "zone=b"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"dev: true # " + file + ":3\n", "label: [zone=b] # command line\n", "reserve: 256MiB # default\n", "join-token: (redacted) #", "bridge: br-"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "hush") {
		t.Errorf("it tells secrets:\n%s", &out)
	}
	out.Reset()
	if err := configure([]string{"check", "--config", file}, &out, io.Discard); err != nil || out.String() != file+": well\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestConfigFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"dve: true":                        `:1: there is no key "dve"`,
		"\nyes: true":                      `:2: there is no key "yes"`,
		"config: x":                        `:1: there is no key "config"`,
		"dev: 1":                           `:1: dev takes true or false, not 1`,
		"dev: [true]":                      `:1: dev takes one value, and this is a list`,
		"dev: {a: b}":                      `:1: dev takes true or false, and this is something else`,
		"bridge: true":                     `:1: bridge takes NAME, not true`,
		"bridge:":                          `:1: bridge has no value`,
		"label: {a: b}":                    `:1: label takes a list of KEY=VALUE, and this is something else`,
		"label: [a=b, c]":                  `:1: label "c": it is not KEY=VALUE`,
		"tls: [a.crt, a.key]":              `:1: tls "a.crt": it is not CERT,KEY`,
		"rate-limit: many":                 `:1: rate-limit "many": `,
		"cidr: 10.0.0.1":                   `:1: cidr "10.0.0.1": it is not a prefix like`,
		"# x\nbridge: a\nbridge: b":        `:3: bridge is set in`,
		"- dev":                            `:1: it is not of lines like KEY: VALUE`,
		"bridge: a\n  b: c":                `:2: mapping values are not allowed`,
		"bridge: a\n---\nuplink: b":        `:2: a second document`,
		"\tdev: true":                      `: found character that cannot start any token`,
		"dev: true\nlisten: ['0.0.0.0:1']": `:2: listen 0.0.0.0:1: with --dev`,
		"https: [':1']":                    `:1: https needs --tls`,
	} {
		file := filepath.Join(dir, "b.yaml")
		write(t, file, text)
		_, err := parse([]string{"--config", file}, io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), file+want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v\nwant %s%s", text, err, file, want)
		}
	}
	// What only serving minds.
	file := filepath.Join(dir, "b.yaml")
	write(t, file, "http: [':80']")
	if err := configure([]string{"check", "--config", file}, io.Discard, io.Discard); err == nil || !strings.HasPrefix(err.Error(), file+":1: http is a controller's") {
		t.Error(err)
	}
	if _, err := parse([]string{"--config", filepath.Join(dir, "none")}, io.Discard); err == nil {
		t.Error("a file that is not there is read")
	}
}

func TestDropins(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "buoyd.yaml")
	if files, err := withDropins(main); len(files) > 0 || err != nil {
		t.Error(files, err)
	}
	one, two := filepath.Join(dir, "conf.d/10-one.yaml"), filepath.Join(dir, "conf.d/20-two.yaml")
	write(t, two, "uplink: eth2\nlabel: [b=2]\n")
	write(t, one, "uplink: eth1\nbridge: br1\n")
	write(t, filepath.Join(dir, "conf.d/old.yaml.dpkg-old"), "no: yes\n")
	if files, err := withDropins(main); !cmp.Equal(files, []string{one, two}) || err != nil {
		t.Error(files, err)
	}
	write(t, main, "bridge: br0\nlabel: [a=1]\nnode-id: n\n")
	files, err := withDropins(main)
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	c, all := newConfig(), map[string]setting{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.readFile(file, raw, all); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"uplink": "eth2 " + two + ":1", "label": "b=2 " + two + ":2", "bridge": "br1 " + one + ":2", "node-id": "n " + main + ":3"}
	got := map[string]string{}
	for key, s := range all {
		got[key] = strings.Join(s.texts, ",") + " " + s.at
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestReference: the file that packages install has every flag, and each line
// of it can be used.
func TestReference(t *testing.T) {
	shipped, err := os.ReadFile("../../packaging/buoyd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(shipped), string(reference())); diff != "" {
		t.Errorf("packaging/buoyd.yaml is not what the flags say; go run ./cmd/buoyd config reference >packaging/buoyd.yaml\n%s", diff)
	}
	operate, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	sections, flags := 0, 0
	c := newConfig()
	c.flags.VisitAll(func(*flag.Flag) { flags++ })
	c.keys(func(_ string, f *flag.Flag) {
		sections++
		if !strings.Contains(string(operate), "`--"+f.Name) {
			t.Errorf("docs/operate.md says nothing of --%s", f.Name)
		}
	})
	if flags != sections+2 { // --config and --yes
		t.Errorf("%d flags and %d keys: register flags in a section", flags, sections)
	}
	// Defaults are values: what has one may be given it.
	c.keys(func(_ string, f *flag.Flag) {
		if f.DefValue == "" {
			return
		}
		file := filepath.Join(t.TempDir(), "b.yaml")
		write(t, file, f.Name+": "+f.DefValue)
		c := newConfig()
		all, raw := map[string]setting{}, []byte(f.Name+": "+f.DefValue)
		if err := c.readFile(file, raw, all); err != nil {
			t.Error(err)
		} else if err := c.set(all[f.Name]); err != nil || c.flags.Lookup(f.Name).Value.String() != f.DefValue {
			t.Errorf("%s: %s is read as %s, %v", f.Name, f.DefValue, c.flags.Lookup(f.Name).Value, err)
		}
	})
}
