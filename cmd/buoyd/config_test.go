package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestParseDefaults(t *testing.T) {
	c, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.data != "/var/lib/buoy" || c.run != "/run/buoy" || c.bridge != "buoy0" || c.prefix.String() != "172.18.0.0/16" ||
		c.publish.String() != "0.0.0.0" || c.instance() != "buoy" || c.level() != slog.LevelInfo || !cmp.Equal(c.listen, []string{"/run/buoy/buoy.sock"}) {
		t.Errorf("%+v", c)
	}
	// Instances beside one another have nothing in common.
	a, err := parse([]string{"--dev", "--run", "/tmp/a", "--data", "rel", "--listen", "127.0.0.1:1", "--listen", "[::1]:2"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	b, err := parse([]string{"--data", "/tmp/bd", "--run", "/tmp/b"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if a.data != filepath.Join(wd, "rel") || a.publish.String() != "127.0.0.1" || len(a.listen) != 3 || a.listen[0] != "/tmp/a/buoy.sock" {
		t.Errorf("%+v", a)
	}
	if a.instance() == b.instance() || a.bridge == b.bridge || a.prefix.Overlaps(b.prefix) || len(a.instance()) > 8 || len(a.bridge) > 15 {
		t.Errorf("%s %s %s, %s %s %s", a.instance(), a.bridge, a.prefix, b.instance(), b.bridge, b.prefix)
	}
	if same, err := parse([]string{"--data", "/tmp/bd", "--run", "/tmp/x/../b/"}, io.Discard); err != nil || same.instance() != b.instance() {
		t.Errorf("another spelling is another instance: %s, %v", same.instance(), err)
	}
}

func TestParseAll(t *testing.T) {
	c, err := parse([]string{
		"--node-id", "n.1", "--bridge", "br9", "--cidr", "10.1.0.0/24", "--publish", "192.0.2.1", "--mirror", "docker.io=m1", "--mirror", "docker.io=m2/x=y",
		"--plain-http", "a:1", "--plain-http", "b", "--auth-file", "/a", "--log-level", "debug", "--yes", "--allow-reboot",
		"--hub", "http://hub.example/x", "--image-gc", "70:60", "--reserve", "1GiB", "--image-policy", "/p.json",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.nodeID != "n.1" || c.bridge != "br9" || c.prefix.String() != "10.1.0.0/24" || c.publish.String() != "192.0.2.1" || c.images.authFile != "/a" ||
		c.level() != slog.LevelDebug || !c.yes || !c.allowReboot || c.dev || !slices.Equal(c.images.plainHTTP, []string{"a:1", "b"}) ||
		!slices.Equal(c.images.mirrors, []mirror{{"docker.io", "m1"}, {"docker.io", "m2/x=y"}}) ||
		c.images.hub != "http://hub.example/x" || c.images.gc != (thresholds{70, 60}) || c.images.reserve != 1<<30 || c.images.policy != "/p.json" {
		t.Errorf("%+v", c)
	}
	c, err = parse(nil, io.Discard)
	if err != nil || c.images.gc != (thresholds{85, 80}) || c.images.reserve != 256<<20 || c.images.hub != "https://hub.grid.tf" {
		t.Errorf("%+v, %v", c.images, err)
	}
	if c, err = parse([]string{"--image-gc", "off", "--reserve", "0"}, io.Discard); err != nil || c.images.gc != (thresholds{}) || c.images.reserve != 0 {
		t.Errorf("%+v, %v", c.images, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for want, args := range map[string]string{
		"flag provided but not defined: -x":                                      "--x",
		"--host-rate-limit -1 is negative":                                       "--host-rate-limit -1",
		"flag needs an argument: -data":                                          "--data",
		`"reset" is out of place`:                                                "--yes reset",
		`invalid value "a" for flag -mirror: it is not REGISTRY=HOST`:            "--mirror a",
		`invalid value "=a" for flag -mirror: it is not REGISTRY=HOST`:           "--mirror =a",
		`invalid value "a=" for flag -mirror: it is not REGISTRY=HOST`:           "--mirror a=",
		`invalid value "x" for flag -hub: it is not a URL like`:                  "--hub x",
		`invalid value "ftp://h" for flag -hub`:                                  "--hub ftp://h",
		`invalid value "http://u:p@h" for flag -hub`:                             "--hub http://u:p@h",
		`invalid value "80" for flag -image-gc: it is not two percentages`:       "--image-gc 80",
		`invalid value "80:85" for flag -image-gc`:                               "--image-gc 80:85",
		`invalid value "101:5" for flag -image-gc`:                               "--image-gc 101:5",
		`invalid value "80:0" for flag -image-gc`:                                "--image-gc 80:0",
		`invalid value "/tmp/x" for flag -flist-store: store /tmp/x`:             "--flist-store /tmp/x",
		`invalid value "http://h:1/nodes/x" for flag -flist-mirror: it is not a`: "--flist-mirror http://h:1/nodes/x",
		`invalid value "buoy+http://h:1" for flag -flist-mirror: it is not a no`: "--flist-mirror buoy+http://h:1",
		`invalid value "0s" for flag -flist-timeout: it is not a time`:           "--flist-timeout 0s",
		`invalid value "0" for flag -flist-cache: chunks that are read must`:     "--flist-cache 0",
		`invalid value "x" for flag -lazy: it is not auto, always or never`:      "--lazy x",
		`invalid value "x" for flag -flist-suid: it is not keep or drop`:         "--flist-suid x",
		`invalid value "lots" for flag -reserve`:                                 "--reserve lots",
		`invalid value "x" for flag -listen: listen at "x": it must be`:          "--listen x",
		`--listen 0.0.0.0:1: with --dev, everybody who reaches it may`:           "--dev --listen 0.0.0.0:1",
		`--listen-tls does not go with --dev`:                                    "--dev --listen-tls a,b",
		`--data and --run belong together`:                                       "--data /tmp/x",
		`--run /tmp/` + strings.Repeat("x", 100):                                 "--data /tmp/d --run /tmp/" + strings.Repeat("x", 100),
		`invalid value "a/b" for flag -node-id: it is not of 1 to 63`:            "--node-id a/b",
		`invalid value "` + strings.Repeat("a", 64) + `" for flag -node-id: it`:  "--node-id " + strings.Repeat("a", 64),
		`invalid value "10.1.0.0" for flag -cidr: it is not a prefix`:            "--cidr 10.1.0.0",
		`invalid value "fd00::1" for flag -cidr6: it is not a prefix`:            "--cidr6 fd00::1",
		`invalid value "host" for flag -publish: it is not an IP addr`:           "--publish host",
		`invalid value "loud" for flag -log-level: it is not debug, `:            "--log-level loud",
		`invalid value "x" for flag -controller: it is not http://`:              "--controller x",
		`invalid value "x" for flag -address: it is not an IP address`:           "--address x",
		`invalid value "x" for flag -label: it is not KEY=VALUE`:                 "--label x",
		`invalid value "9-8" for flag -port-range: it is not FIRST-`:             "--port-range 9-8",
		`invalid value "x" for flag -tls: it is not CERT,KEY`:                    "--tls x",
		`invalid value "x" for flag -trust-proxy: it is not a prefix`:            "--trust-proxy x",
		`invalid value "/" for flag -osc-path: it is not a path like`:            "--osc-path /",
		`invalid value "hosting" for flag -osc-path: paths of hosts an`:          "--osc-path hosting",
		`invalid value "9ms" for flag -report-interval: it is not a ti`:          "--report-interval 9ms",
		`--rate-limit -1 is negative`:                                            "--rate-limit -1",
		`--https needs --tls`:                                                    "--https :1",
		`--tls needs --https`:                                                    "--tls a,b",
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	if _, err := parse([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

func TestRunExitCodes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"version", 0, "buoyd ", ""},
		{"--help", 0, "", "Usage: buoyd [boot | config | doctor | halt | reset | seal | version] [flags]"},
		{"reset -h", 0, "", "for reset: really do it"},
		{"boot serve --help", 0, "", "Usage: buoy boot serve --interface NAME"},
		{"boot", 2, "", `buoyd: boot has one verb: "boot serve"`},
		{"boot serve", 2, "", "buoyd: --interface is missing"},
		{"boot serve --interface lo now", 2, "", `buoyd: "now" is out of place`},
		{"boot serve --interface lo --http-port 0", 2, "", `invalid value "0" for flag -http-port: it is not a port`},
		{"boot serve --interface lo --dhcp 10.9.0.1", 2, "", "it is not a prefix like 10.9.0.128/25"},
		{"boot serve --interface lo --router 10.9.0.1", 2, "", "--router goes with --dhcp"},
		{"boot serve --interface lo --join-token @/no/such", 2, "", "read the join token: open /no/such"},
		{"boot serve --interface lo --param a=$b", 1, "", "cannot be a parameter of a kernel"},
		{"boot serve --interface no-such", 1, "", "there is no interface no-such; there are "},
		{"boot serve --interface lo --dir /no/such", 1, "", "there is no amd64/vmlinuz with its initrd.img in /no/such"},
		{"--no-such", 2, "", "buoyd: flag provided but not defined: -no-such"},
		{"serve", 2, "", `buoyd: "serve" is out of place`},
		{"reset --data " + dir + "/d --run " + dir + "/r", 1, "", "say --yes if you mean it"},
	} {
		var out, err bytes.Buffer
		if code := run(context.Background(), strings.Fields(c.args), &out, &err); code != c.code {
			t.Errorf("%s: %d, want %d", c.args, code, c.code)
		}
		if !strings.HasPrefix(out.String(), c.out) || !strings.Contains(err.String(), c.err) || c.code != 0 && strings.Count(err.String(), "\n") != 1 {
			t.Errorf("%s: stdout %q, stderr %q", c.args, &out, &err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a reset without --yes has made %v", left)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	cfg := config{data: dir + "/a/data", run: dir + "/a/run"}
	unlock, err := lock(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(cfg.data); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others may enter the data directory: %v, %v", st.Mode(), err)
	}
	if _, err := lock(cfg); !errors.Is(err, errs.Conflict) {
		t.Errorf("a second daemon: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = lock(cfg); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestOutcomeOfReset(t *testing.T) {
	dir := t.TempDir()
	for want, dirs := range map[string][]string{
		"reset: removed " + dir + " and /; cgroups":                     {dir, "/"},
		"reset: removed " + dir + ", there was no /no/such; cgroups":    {dir, "/no/such"},
		"reset: there is no " + dir + "/a and no /no/such/dir; cgroups": {dir + "/a", "/no/such/dir"},
	} {
		there, absent, err := present(dirs...)
		if got := outcome(there, absent, "b1"); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%v: %s, %v; want %s", dirs, got, err, want)
		}
	}
	if _, _, err := present("/dev/null/x"); err == nil {
		t.Error("what cannot be looked at passes for absent")
	}
}

func TestRemoveData(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"images/x", "containers/a/upper", "volumes", "filesystems"} {
		if err := os.MkdirAll(filepath.Join(dir, "d", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mine := filepath.Join(dir, "d/thesis.tex")
	if err := errors.Join(os.WriteFile(mine, nil, 0o600), os.WriteFile(dir+"/d/node.db", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := removeData(dir + "/d"); !errors.Is(err, errs.Conflict) {
		t.Errorf("a directory with other things: %v", err)
	}
	if left, err := os.ReadDir(dir + "/d"); err != nil || len(left) != 1 || left[0].Name() != "thesis.tex" {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := errors.Join(os.Remove(mine), removeData(dir+"/d"), removeData(dir+"/d")); err != nil {
		t.Error(err)
	}
}
