package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/internal/errs"
)

var asText = cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})

func TestLife(t *testing.T) {
	b := newBench(t)
	b.plugin("one", good)
	b.plugin("two", `[ $CNI_COMMAND != ADD ] || echo "$conf" | sed 's/.*"prevResult"://; s/,"type".*//'`)
	b.network("net", "1.0.0", "one", "two")

	got, err := b.cni.Add(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	mac, _ := net.ParseMAC("02:00:00:00:00:07")
	want := Result{
		Addrs:    []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd01::2/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
		Routes: []Route{
			{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.1.0.1")},
			{netip.MustParsePrefix("10.9.0.0/16"), netip.Addr{}},
		},
		DNS: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, Search: []string{"lan"}, MAC: mac, Links: []string{"br0"},
	}
	if d := cmp.Diff(want, got, asText); d != "" {
		t.Errorf("result: %s", d)
	}
	if again, err := b.cni.Result(web); err != nil || cmp.Diff(got, again, asText) != "" {
		t.Errorf("result from memory: %v, %v", again, err)
	}
	if err := b.cni.Verify(t.Context(), web); err != nil {
		t.Error(err)
	}
	have, err := b.cni.Attachments()
	if err != nil || cmp.Diff([]Attachment{web}, have) != "" {
		t.Errorf("attachments %v, %v", have, err)
	}
	if got, want := b.calls(), "one ADD web eth0, two ADD web eth0, one CHECK web eth0, two CHECK web eth0"; got != want {
		t.Errorf("calls %s", got)
	}

	// The network is changed, then removed; the attachment goes by what it was.
	b.network("net", "1.0.0", "two")
	gone := web
	gone.Netns = ""
	if err := os.Remove(filepath.Join(b.conf, "net.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := b.cni.Verify(t.Context(), web); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := b.cni.Del(t.Context(), gone); err != nil {
			t.Error(err)
		}
	}
	if got, want := b.calls(), "one CHECK web eth0, two CHECK web eth0, two DEL web eth0, one DEL web eth0"; got != want {
		t.Errorf("calls %s", got)
	}
	if have, err := b.cni.Attachments(); err != nil || len(have) != 0 {
		t.Errorf("attachments %v, %v", have, err)
	}
	if err := b.cni.Verify(t.Context(), web); !errors.Is(err, errs.NotFound) {
		t.Errorf("Verify of what is not there = %v", err)
	}
	if _, err := b.cni.Result(web); !errors.Is(err, errs.NotFound) {
		t.Errorf("Result of what is not there = %v", err)
	}
}

// TestDelWithoutRecord: Add died with its process, and left none.
func TestDelWithoutRecord(t *testing.T) {
	b := newBench(t)
	b.plugin("one", good)
	b.network("net", "1.0.0", "one")
	for range 2 {
		if err := b.cni.Del(t.Context(), web); err != nil {
			t.Error(err)
		}
	}
	if got := b.calls(); got != "one DEL web eth0, one DEL web eth0" {
		t.Errorf("calls %s", got)
	}
	// Or left half a one.
	if _, err := b.cni.Add(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(b.cni.cfg.CacheDir, "net", "eth0", "results", "net-web-eth0")
	if err := os.Truncate(record, 40); err != nil {
		t.Fatal(err)
	}
	if err := b.cni.Verify(t.Context(), web); !errors.Is(err, errs.NotFound) {
		t.Errorf("Verify with half a record = %v", err)
	}
	b.calls()
	if err := b.cni.Del(t.Context(), web); err != nil {
		t.Error(err)
	}
	if got := b.calls(); got != "one DEL web eth0" {
		t.Errorf("calls %s", got)
	}
	if _, err := os.Stat(record); err == nil {
		t.Error("the half record is still there")
	}
}

// TestNamesThatLookAlike: their records would have one name in one directory.
func TestNamesThatLookAlike(t *testing.T) {
	b := newBench(t)
	b.plugin("one", good)
	b.network("lan", "1.0.0", "one")
	b.network("lan-a", "1.0.0", "one")
	all := []Attachment{
		{Container: "a-b", Network: "lan", Ifname: "c", Netns: "/1"},
		{Container: "b", Network: "lan-a", Ifname: "c", Netns: "/2"},
		{Container: "a", Network: "lan", Ifname: "b-c", Netns: "/3"},
	}
	for _, a := range all {
		if _, err := b.cni.Add(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := b.cni.Attachments(); err != nil || len(have) != 3 {
		t.Errorf("attachments %v, %v", have, err)
	}
	for i, a := range all {
		if err := b.cni.Del(t.Context(), a); err != nil {
			t.Error(err)
		}
		if have, err := b.cni.Attachments(); err != nil || len(have) != 2-i {
			t.Errorf("attachments after %d: %v, %v", i+1, have, err)
		}
	}
}

func TestNetworks(t *testing.T) {
	b := newBench(t)
	b.plugin("one", good)
	if names, err := b.cni.Networks(); err != nil || len(names) != 0 {
		t.Errorf("networks %v, %v", names, err)
	}
	b.network("zebra", "1.0.0", "one")
	b.write(b.conf, "00-bad.conflist", `{"name": "bad", "plugins": [{`, 0o644)
	b.write(b.conf, "01-odd.conflist", `{"name": "../../etc", "plugins": [{"type": "one"}]}`, 0o644)
	b.write(b.conf, "02-none.conflist", `{"name": "none", "plugins": []}`, 0o644)
	b.write(b.conf, "10-single.conf", `{"name": "single", "cniVersion": "0.4.0", "type": "one"}`, 0o644)
	b.write(b.conf, "20-unversioned.json", `{"name": "unversioned", "type": "one"}`, 0o644)
	b.write(b.conf, "30-again.conf", `{"name": "single", "type": "two"}`, 0o644)
	b.write(b.conf, "README", `nothing`, 0o644)
	if err := os.Mkdir(filepath.Join(b.conf, "split"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.write(b.conf, "40-split.conflist", `{"name": "split", "cniVersion": "1.1.0"}`, 0o644)
	b.write(filepath.Join(b.conf, "split"), "10-one.conf", `{"type": "one"}`, 0o644)

	names, err := b.cni.Networks()
	if got := strings.Join(names, " "); err != nil || got != "single unversioned split zebra" {
		t.Errorf("networks %s, %v", got, err)
	}
	_, err = b.cni.Add(t.Context(), Attachment{Container: "web", Network: "bad", Ifname: "eth0", Netns: "/x"})
	if !errors.Is(err, errs.Invalid) {
		t.Errorf("Add to an unknown network = %v", err)
	}
	for _, want := range []string{`"bad"`, b.conf, "single, unversioned, split, zebra", "00-bad.conflist", "01-odd.conflist"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	for _, name := range names {
		a := web
		a.Network = name
		if _, err := b.cni.Add(t.Context(), a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.cni.Verify(t.Context(), a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What lay in a file of its own is in the record.
	b.calls()
	if err := os.RemoveAll(filepath.Join(b.conf, "split")); err != nil {
		t.Fatal(err)
	}
	if err := b.cni.Del(t.Context(), Attachment{Container: "web", Network: "split", Ifname: "eth0"}); err != nil {
		t.Error(err)
	}
	if got := b.calls(); got != "one DEL web eth0" {
		t.Errorf("calls %s", got)
	}
}

// TestFailures wants a sentence for each, all undone, and nothing recorded.
func TestFailures(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Timeout = 300 * time.Millisecond })
	b.plugin("one", good)
	b.plugin("fails", `[ $CNI_COMMAND != ADD ] || { printf %s '{"code": 100, "msg": "no bridge\nto be had", "details": "it rains"}'; exit 1; }`)
	b.plugin("later", `[ $CNI_COMMAND != ADD ] || { echo '{"code": 11, "msg": "again"}'; exit 1; }`)
	b.plugin("crashes", `[ $CNI_COMMAND != ADD ] || { echo "panic: oh" >&2; exit 2; }`)
	b.plugin("mute", `[ $CNI_COMMAND != ADD ] || exit 3`)
	b.plugin("garbage", `[ $CNI_COMMAND != ADD ] || printf 'a\001\377b {'`)
	b.plugin("null", `[ $CNI_COMMAND != ADD ] || echo null`)
	b.plugin("nulls", `[ $CNI_COMMAND != ADD ] || echo '{"cniVersion": "0.4.0", "interfaces": [null]}'`)
	b.plugin("future", `[ $CNI_COMMAND != ADD ] || echo '{"cniVersion": "9.0.0"}'`)
	b.plugin("endless", `[ $CNI_COMMAND != ADD ] || head -c 3000000 /dev/zero`)
	b.plugin("hangs", `[ $CNI_COMMAND != ADD ] || { sleep 1000 & echo $! >`+b.log+`.pid; sleep 1000; }`)
	b.write(b.bin, "data", "no program", 0o644)
	for _, c := range []struct {
		plugin string
		want   string // calls, without what is one's
		kind   errs.Kind
		says   []string
	}{
		{"fails", "ADD DEL", errs.Unavailable, []string{"ADD by plugin fails", "no bridge to be had; it rains"}},
		{"later", "ADD DEL", errs.Unavailable, []string{"plugin later", "again"}},
		{"crashes", "ADD DEL", errs.Unavailable, []string{"plugin crashes", "panic: oh", "exit status 2"}},
		{"mute", "ADD DEL", errs.Unavailable, []string{"plugin mute", "exit status 3"}},
		{"garbage", "ADD DEL", errs.Unavailable, []string{"plugin garbage", "no result"}},
		{"nulls", "ADD DEL", errs.Unavailable, []string{"plugin nulls", "null"}},
		{"future", "ADD DEL", errs.Internal, []string{"9.0.0"}},
		{"endless", "ADD DEL", errs.Unavailable, []string{"plugin endless printed more than 1048576 bytes"}},
		{"hangs", "ADD DEL", errs.Unavailable, []string{"plugin hangs", "was stopped after "}},
		{"missing", "", errs.Unavailable, []string{"plugin missing is not installed", b.bin, "no-such"}},
		{"data", "", errs.Unavailable, []string{"plugin data is not installed"}},
		{"../x", "", errs.Unavailable, []string{"plugin ../x is not installed"}},
	} {
		b.network("net", "1.0.0", "one", c.plugin)
		began := time.Now()
		_, err := b.cni.Add(t.Context(), web)
		took := time.Since(began)
		if errs.KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: %v", c.plugin, err)
		}
		for _, s := range append(c.says, `CNI network "net"`) {
			if !strings.Contains(fmt.Sprint(err), s) {
				t.Errorf("%s: %v does not say %q", c.plugin, err, s)
			}
		}
		if s := fmt.Sprint(err); strings.Contains(s, "\n") || strings.Contains(s, "netplugin") || len(s) > 900 {
			t.Errorf("%s: %q is no sentence", c.plugin, s)
		}
		if took > 5*time.Second {
			t.Errorf("%s: %s", c.plugin, took)
		}
		var of []string
		calls := b.calls()
		for call := range strings.SplitSeq(calls, ", ") {
			if f := strings.Fields(call); len(f) > 1 && f[0] == c.plugin {
				of = append(of, f[1])
			}
		}
		if strings.Join(of, " ") != c.want || c.want != "" && !strings.HasSuffix(calls, "one DEL web eth0") {
			t.Errorf("%s: calls %s", c.plugin, calls)
		}
		if have, err := b.cni.Attachments(); err != nil || len(have) != 0 {
			t.Errorf("%s: recorded as %v, %v", c.plugin, have, err)
		}
	}
	// Its child has gone along.
	pid, err := os.ReadFile(b.log + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); running(n); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child of the plugin that was stopped still runs")
		}
	}
}

// running says whether a process is there and no zombie, which it is until
// its new parent looks.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && syscall.Kill(pid, 0) == nil
}

// TestCancelled: who asked has gone; what was done is undone all the same.
func TestCancelled(t *testing.T) {
	b := newBench(t)
	b.plugin("one", good)
	b.plugin("hangs", `[ $CNI_COMMAND != ADD ] || { : >`+b.log+`.here; sleep 1000; }`)
	b.network("net", "1.0.0", "one", "hangs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			if _, err := os.Stat(b.log + ".here"); err == nil || ctx.Err() != nil {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if _, err := b.cni.Add(ctx, web); !errors.Is(err, context.Canceled) {
		t.Errorf("Add = %v", err)
	}
	if got := b.calls(); got != "one ADD web eth0, hangs ADD web eth0, hangs DEL web eth0, one DEL web eth0" {
		t.Errorf("calls %s", got)
	}
}

// TestUndoFails has both failures.
func TestUndoFails(t *testing.T) {
	b := newBench(t)
	b.plugin("fails", `echo '{"code": 100, "msg": "not '$CNI_COMMAND'"}'; exit 1`)
	b.network("net", "1.0.0", "fails")
	_, err := b.cni.Add(t.Context(), web)
	if s := fmt.Sprint(err); !strings.Contains(s, "not ADD") || !strings.Contains(s, "not DEL") {
		t.Errorf("Add = %v", err)
	}
}

func TestBadAttachments(t *testing.T) {
	b := newBench(t)
	b.plugin("one", good)
	b.network("net", "1.0.0", "one")
	for what, edit := range map[string]func(*Attachment){
		"no container":     func(a *Attachment) { a.Container = "" },
		"container a path": func(a *Attachment) { a.Container = "../x" },
		"no name":          func(a *Attachment) { a.Ifname = "" },
		"name a path":      func(a *Attachment) { a.Ifname = "../x" },
		"name too long":    func(a *Attachment) { a.Ifname = "abcdefghijklmnop" },
		"two arguments":    func(a *Attachment) { a.Args = map[string]string{"A": "1;B=2"} },
		"network a path":   func(a *Attachment) { a.Network = "../net" },
	} {
		a := web
		edit(&a)
		_, err := b.cni.Add(t.Context(), a)
		for i, err := range []error{err, b.cni.Verify(t.Context(), a), b.cni.Del(t.Context(), a)} {
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("%s: call %d: %v", what, i, err)
			}
		}
	}
	if got := b.calls(); got != "" {
		t.Errorf("calls %s", got)
	}
}

// TestArguments: MAC and arguments reach those who want them.
func TestArguments(t *testing.T) {
	b := newBench(t)
	b.plugin("one", `echo "$CNI_ARGS" >>$log; echo "$conf" >>$log; `+good)
	b.network("net", "1.0.0", `{"type": "one", "capabilities": {"mac": true, "portMappings": true}}`)
	a := web
	a.MAC, _ = net.ParseMAC("02:00:00:00:00:07")
	a.Args = map[string]string{"K8S": "no", "A": "b"}
	a.Capabilities = map[string]any{"portMappings": []int{1}, "other": 2}
	if _, err := b.cni.Add(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	got := b.calls()
	for _, want := range []string{"A=b;IgnoreUnknown=1;K8S=no;MAC=02:00:00:00:00:07", `"runtimeConfig":{"mac":"02:00:00:00:00:07","portMappings":[1]}`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	// Del has the same, though nobody says so.
	if err := b.cni.Del(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	if got := b.calls(); !strings.Contains(got, "K8S=no") || !strings.Contains(got, `"portMappings":[1]`) {
		t.Errorf("DEL has %s", got)
	}
	// Without any there is no CNI_ARGS; and a MAC that was not given is said.
	if _, err := b.cni.Add(t.Context(), web); err != nil || !strings.Contains(b.calls(), "eth0, , {") {
		t.Errorf("without arguments: %v", err)
	}
	if err := b.cni.Del(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	a.MAC[5] = 8
	if _, err := b.cni.Add(t.Context(), a); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "02:00:00:00:00:07 instead of 02:00:00:00:00:08") {
		t.Errorf("with another MAC: %v", err)
	}
	if have, _ := b.cni.Attachments(); len(have) != 0 {
		t.Errorf("it is attached all the same: %v", have)
	}
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	b.plugin("one", `[ $CNI_COMMAND != STATUS ] || [ ! -e `+b.log+`.down ] || { echo '{"code": 50, "msg": "agent is down"}'; exit 1; }`)
	b.network("old", "1.0.0", "one")
	b.network("new", "1.1.0", "one")
	b.network("ipam", "1.0.0", `{"type": "one", "ipam": {"type": "missing"}}`)
	for _, n := range []string{"old", "new"} {
		if err := b.cni.Status(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	if got := b.calls(); got != "one STATUS  " && got != "one STATUS" {
		t.Errorf("calls %q", got)
	}
	b.write(filepath.Dir(b.log), filepath.Base(b.log)+".down", "", 0o644)
	if err := b.cni.Status(t.Context(), "new"); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "agent is down") {
		t.Errorf("Status = %v", err)
	}
	if err := b.cni.Status(t.Context(), "ipam"); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "plugin missing") {
		t.Errorf("Status = %v", err)
	}
	if err := b.cni.Status(t.Context(), "nope"); !errors.Is(err, errs.Invalid) {
		t.Errorf("Status = %v", err)
	}
}

func TestGC(t *testing.T) {
	b := newBench(t)
	b.plugin("one", `[ $CNI_COMMAND != GC ] || echo "$conf" >>$log; `+good)
	b.network("net", "1.1.0", "one")
	b.network("other", "1.0.0", "one")
	keep := web
	var stale []Attachment
	for _, a := range []Attachment{{Container: "old", Network: "net", Ifname: "eth0"}, {Container: "web", Network: "net", Ifname: "eth1"}} {
		a.Netns = "/proc/self/ns/net"
		stale = append(stale, a)
	}
	elsewhere := Attachment{Container: "old", Network: "other", Ifname: "eth0", Netns: "/proc/self/ns/net"}
	for _, a := range append(stale, keep, elsewhere) {
		if _, err := b.cni.Add(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	b.calls()
	if err := b.cni.GC(t.Context(), "net", []Attachment{keep}); err != nil {
		t.Error(err)
	}
	got := b.calls()
	for _, want := range []string{"one DEL old eth0", "one DEL web eth1", "one GC", `"cni.dev/valid-attachments":[{"containerID":"web","ifname":"eth0"}]`} {
		if !strings.Contains(got, want) {
			t.Errorf("calls %s lack %s", got, want)
		}
	}
	have, err := b.cni.Attachments()
	if err != nil || len(have) != 2 {
		t.Errorf("attachments %v, %v", have, err)
	}
	// Of a network that is not configured any more.
	if err := os.Remove(filepath.Join(b.conf, "other.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := b.cni.GC(t.Context(), "other", nil); err != nil {
		t.Error(err)
	}
	if got := b.calls(); got != "one DEL old eth0" {
		t.Errorf("calls %s", got)
	}
	// The network is shared with others.
	b.write(b.conf, "net.conflist", `{"cniVersion": "1.1.0", "name": "net", "disableGC": true, "plugins": [{"type": "one"}]}`, 0o644)
	if err := b.cni.GC(t.Context(), "net", nil); err != nil {
		t.Error(err)
	}
	if got := b.calls(); got != "one DEL web eth0" {
		t.Errorf("calls %s", got)
	}
}

// FuzzResult takes whatever a plugin prints, through all that reads it.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.1.0.2/24", "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}]}`))
	f.Add([]byte(`{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.2/24"}], "routes": [{"dst": "::/0", "gw": "fe80::1"}]}`))
	f.Add([]byte(`{"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]}, "dns": {"nameservers": ["x"]}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkResult(b) != nil {
			return
		}
		made, err := create.CreateFromBytes(b)
		if err != nil {
			return
		}
		r, err := translate(made, web)
		if err != nil {
			return
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if in, err := types100.NewResultFromResult(made); err != nil || len(r.Addrs) > len(in.IPs) {
			t.Fatalf("%d addresses of %v", len(r.Addrs), in)
		}
	})
}
