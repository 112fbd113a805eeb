package inventory

import (
	"os"
	"syscall"
	"testing"
	"unicode/utf8"
)

// FuzzParsers gives every parser every text: none may panic, no text that
// comes out may be unfit for JSON.
func FuzzParsers(f *testing.F) {
	for _, name := range []string{
		"vm/proc/cpuinfo", "arm64/proc/cpuinfo", "vm/proc/meminfo", "vm/proc/mounts", "arm64/proc/mounts", "vm/proc/42/stat", "vm/proc/42/status",
		"vm/proc/42/cmdline", "arm64/proc/stat", "vm/proc/diskstats", "vm/proc/net/dev", "vm/proc/net/route", "vm/proc/net/ipv6_route", "vm/etc/os-release",
	} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 4096)])
	}
	for _, text := range []string{"1 (", "1 )(", "1 (a) (b)) R 1", "processor\nprocessor:", "MemTotal: 99999999999999999999 kB", "a \\ b\\04 \\999 c", "\\x2", "cpu", "cpu-1 2"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cpus, _ := parseCPUs(text)
		for _, c := range cpus {
			if c.ID < 0 || c.MHz < 0 || c.CacheSize < 0 {
				t.Errorf("cpu %+v", c)
			}
		}
		m := parseMemory(text)
		if m.Used < 0 || m.UsedPercent < 0 || m.UsedPercent > 100 || m.Available < 0 {
			t.Errorf("memory %+v", m)
		}
		for _, m := range parseMounts(text) {
			if !utf8.ValidString(m.Device + m.Mountpoint + m.FSType + m.Opts) {
				t.Errorf("mount %+q", m)
			}
		}
		p := Process{NSPID: 1}
		p.parseStat(text, 65536)
		p.parseStatus(text)
		p.Cmdline = cmdline(text, p.Comm)
		if p.RSS < 0 || p.VMS < 0 || p.Swap < 0 || p.User < 0 || p.NSPID <= 0 || !utf8.ValidString(p.Comm+p.Cmdline+p.State) {
			t.Errorf("process %+v", p)
		}
		parseStat(text)
		parseRoutes4(text)
		parseRoutes6(text)
		parseRelease(string(text))
		unescape(text, 2, 16)
		probe(text)
		linkKind(text)
		parseAddr(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: syscall.RTM_NEWADDR}, Data: text})
		parseLinks([]syscall.NetlinkMessage{{Header: syscall.NlMsghdr{Type: syscall.RTM_NEWLINK}, Data: text}})
		s := samples{}
		s.disks(text)
		s.network(text)
		s.pressure("cpu", string(text))
		s.load(string(text))
	})
}
