package cni

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A bench has networks and plugins of its own. Plugins are scripts; each call
// adds "PLUGIN COMMAND CONTAINER IFNAME" to a log.
type bench struct {
	t              testing.TB
	conf, bin, log string
	cni            *CNI
}

func newBench(t testing.TB, edit ...func(*Config)) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "bin"), log: filepath.Join(dir, "log")}
	for _, d := range []string{b.conf, b.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{ConfDir: b.conf, PluginDirs: []string{filepath.Join(dir, "no-such"), b.bin}, CacheDir: filepath.Join(dir, "cache"), Timeout: 10 * time.Second}
	for _, e := range edit {
		e(&cfg)
	}
	b.cni = New(cfg)
	return b
}

func (b *bench) write(dir, name, text string, mode os.FileMode) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
}

// plugin installs a script, which has its configuration in $conf.
func (b *bench) plugin(name, script string) {
	b.t.Helper()
	b.write(b.bin, name, "#!/bin/sh\nconf=$(cat)\nlog="+b.log+"\necho \"${0##*/} $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME\" >>$log\n"+script+"\n", 0o755)
}

// network configures one of these plugins in a chain.
func (b *bench) network(name, version string, plugins ...string) {
	b.t.Helper()
	var list []string
	for _, p := range plugins {
		if !strings.HasPrefix(p, "{") {
			p = `{"type": "` + p + `"}`
		}
		list = append(list, p)
	}
	b.write(b.conf, name+".conflist", `{"cniVersion": "`+version+`", "name": "`+name+`", "plugins": [`+strings.Join(list, ",")+`]}`, 0o644)
}

// calls are the lines of the log since the last time.
func (b *bench) calls() string {
	b.t.Helper()
	all, err := os.ReadFile(b.log)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	if err := os.RemoveAll(b.log); err != nil {
		b.t.Fatal(err)
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(all)), "\n"), ", ")
}

// good gives a result on ADD and is content with everything.
const good = `[ $CNI_COMMAND != ADD ] || cat <<END
{"cniVersion": "1.0.0",
 "interfaces": [{"name": "br0"}, {"name": "$CNI_IFNAME", "mac": "02:00:00:00:00:07", "sandbox": "$CNI_NETNS"}],
 "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}, {"address": "fd01::2/64", "interface": 1}, {"address": "10.1.0.1/24", "interface": 0}],
 "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "10.9.1.0/16"}],
 "dns": {"nameservers": ["10.1.0.1", "nonsense"], "search": ["lan"]}}
END`

var web = Attachment{Container: "web", Network: "net", Ifname: "eth0", Netns: "/proc/self/ns/net"}
