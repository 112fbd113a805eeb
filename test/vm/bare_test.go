package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// registry is one of a single image, "box", at 10.0.2.2 for guests.
func registry(t *testing.T, layer []byte) (host string) {
	blobs := map[string][]byte{}
	blob := func(kind string, data []byte) map[string]any {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
		blobs[digest] = data
		return map[string]any{"mediaType": kind, "digest": digest, "size": len(data)}
	}
	document := func(v any) []byte {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	const oci = "application/vnd.oci.image."
	config := blob(oci+"config.v1+json", document(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/sleep", "100000"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	}))
	manifest := document(map[string]any{
		"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": []any{blob(oci+"layer.v1.tar", layer)},
	})
	digest := blob("", manifest)["digest"].(string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if name == "1" {
			name = digest
		}
		data, there := blobs[name]
		if !there && r.URL.Path != "/v2/" {
			http.NotFound(w, r)
			return
		}
		if name == digest {
			w.Header().Set("Content-Type", oci+"manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", digest)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.Listener.Addr().String(), "127.0.0.1", "10.0.2.2", 1)
}

// bareTest is a machine that boots from the files of "make boot" alone.
type bareTest struct {
	m     *Machine
	disk  *Disk
	n     *Node
	store *chunkStore
	sums  string // of what is in the flist
	image string // the one from the registry

	bundle string // of the next version
}

// nextVersion is that of the bundle.
const nextVersion = "v999.0.0"

// TestBareMachine has a machine boot without a system, keep its state on a disk
// that it makes itself, and come back: when buoyd is killed, after a power cut
// in the middle of an upgrade, without a network, and after a reboot.
func TestBareMachine(t *testing.T) {
	t.Parallel()
	b := &bareTest{store: newChunkStore(t), disk: BlankDisk(t, "empty", 600)}
	flist, sums := tree(t, "bare", 4, mib/4)
	b.sums = sums
	meta, err := os.ReadFile(packed(t, flist, b.store.dir, "bare.flist").From)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.store.dir, "bare.flist"), meta, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.store.back()
	host := registry(t, Rootfs(t, append(Busybox(t, "/"), File{Path: "/www/hello", Perm: 0o644, Data: []byte("hello from inside\n")})...))
	b.image = host + "/box:1"
	bundle, key := Bundle(t, nextVersion)
	b.bundle = bundle
	b.m = Start(t, Config{
		Name: "bare", Files: []File{key}, Memory: 640, Bare: true, Wires: []*Wire{NewWire(t)}, RTC: "1971-02-03T04:05:06", Disks: []*Disk{b.disk}, Forward: []int{APIPort, webPort},
		Kernel: append(BareAPI(), "buoy.data=create:/dev/vda", "buoy.plain-http="+host, "buoy.token=a-secret", "buoy.nonsense=1", "buoy.controller=nowhere", "buoy.lazy=always"),
	})
	for _, part := range []func(t *testing.T){b.boots, b.containers, b.crash, b.cut, b.reboot, b.off} {
		part(t)
	}
}

// boots: a node is there, called by its MAC, and the console has said what is
// wrong with its parameters.
func (b *bareTest) boots(t *testing.T) {
	b.n = b.m.API()
	want := fmt.Sprintf("%x", []byte(MAC("bare", 0)))
	nodes, err := b.n.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || nodes[0].ID != want {
		t.Errorf("nodes are %+v, %v; want %s alone", nodes, err, want)
	}
	for _, text := range []string{
		"buoy.nonsense: there is no such parameter", "buoy.controller=nowhere: it is not http", "the clock showed 1971-02-03", "a file system for state was made", "i6300ESB timer restarts the machine",
	} {
		b.m.Says(text)
	}
	if strings.Contains(b.m.Console(), "a-secret") {
		t.Error("the console has the token")
	}
}

func (b *bareTest) containers(t *testing.T) {
	b.n.create(t, buoy.CreateRequest{
		Name: "flist", Flist: b.store.url() + "/bare.flist", Storage: b.store.url(), Init: true, Restart: "always", Command: []string{"/bin/sleep", "100000"},
	})
	web := web("oci")
	web.Flist, web.Restart = b.image, "always"
	b.n.create(t, web)
	awaitWeb(b.m)
	if got := b.n.inside("flist", "sha256sum /d/*"); got+"\n" != b.sums {
		t.Errorf("the flist has\n%s", got)
	}
	if got := b.n.inside("oci", "cat /proc/self/cgroup; cat /proc/cmdline; ls /sys/fs/cgroup/cgroup.controllers"); got != "0::/\n/sys/fs/cgroup/cgroup.controllers" {
		t.Errorf("in a container: %q, want cgroup v2 alone and no command line of the kernel", got)
	}
	// One that shows on the console that it runs, without a network, and one that looks at the machine.
	b.n.create(t, buoy.CreateRequest{
		Name: "beacon", Flist: b.image, Init: true, Restart: "always", Devices: []buoy.Device{{Path: "/dev/ttyS0"}},
		Command: []string{"/bin/sh", "-c", "echo beacon: oci is lit >/dev/ttyS0; sleep 100000"},
	})
	b.n.create(t, buoy.CreateRequest{
		Name: "looker", Flist: b.image, Init: true, Restart: "always", Privileged: true, Mounts: []buoy.Mount{{Type: "bind", Source: "/var/lib/buoy", Target: "/data", ReadOnly: true}, {Type: "bind", Source: "/proc", Target: "/machine"}, {Type: "bind", Source: "/sys", Target: "/system"}},
		Command: []string{"/bin/sleep", "100000"},
	})
	b.n.create(t, buoy.CreateRequest{
		Name: "writer", Flist: b.image, Init: true, Restart: "always", Keep: true,
		Command: []string{"/bin/sh", "-c", `n=$(cat /count 2>/dev/null || echo 0); while n=$((n + 1)); do echo $n >/count.new && sync /count.new && mv /count.new /count; done`},
	})
	b.m.Says("beacon: oci is lit")
	// The other NIC is nobody's until a container wants it, and then not the machine's.
	const other = "grep eth1 /machine/1/net/if_inet6; cat /system/class/net/eth1/flags"
	if got := b.n.inside("looker", other); got != "0x1002" {
		t.Errorf("eth1 is as nobody has set it: addresses, then flags: %s", got)
	}
	branch := sleeper("branch", nic("macvlan", "eth1", "10.77.0.2/24"))
	branch.Flist = b.image
	b.n.create(t, branch)
	if got := b.n.inside("looker", other); got != "0x1003" {
		t.Errorf("eth1 with a container on it: addresses, then flags: %s", got)
	}
}

// bareNames are the containers.
var bareNames = []string{"beacon", "branch", "flist", "looker", "oci", "writer"}

// pids are those of the containers' first processes.
func (b *bareTest) pids() map[string]int {
	b.m.t.Helper()
	pids := map[string]int{}
	for _, name := range bareNames {
		pids[name] = b.n.Await(name, "running").PID
	}
	return pids
}

// back checks that all run that did, and nothing else is left.
func (b *bareTest) back(t *testing.T) {
	t.Helper()
	b.pids()
	awaitWeb(b.m)
	if got := b.n.inside("flist", "sha256sum /d/*"); got+"\n" != b.sums {
		t.Errorf("the flist has\n%s", got)
	}
	if diff := cmp.Diff(bareNames, strings.Fields(b.n.inside("looker", "ls /data/containers"))); diff != "" {
		t.Errorf("directories of containers (-want +there):\n%s", diff)
	}
	if left := b.n.inside("looker", "ls -A /data/images/tmp; find /data -name upper -prune -o -name '*.part*' -print -o -name '.tmp*' -print"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// crash has the kernel kill buoyd, as if memory had run out; process 1 starts it
// again, and containers do not notice.
func (b *bareTest) crash(t *testing.T) {
	before := b.pids()
	b.n.inside("looker", `for p in /machine/[0-9]*; do
		case "$(tr '\0' ' ' <$p/cmdline)" in "/usr/bin/buoyd machine "*) echo 1000 >$p/oom_score_adj; echo f >/proc/sysrq-trigger;; esac
	done &`)
	b.m.Says("out of memory: it needs more, or its containers need limits; containers run on; it is started again in")
	b.n = b.m.API()
	if diff := cmp.Diff(before, b.pids()); diff != "" {
		t.Errorf("processes of containers (-before +after):\n%s", diff)
	}
}

// upgrade sends the bundle, and returns while its programs are on trial.
func (b *bareTest) upgrade(t *testing.T) {
	t.Helper()
	in, err := os.Open(b.bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := b.n.Upgrade(t.Context(), in, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	b.m.Await("the next version is on trial", func() bool {
		s, err := b.n.Upgrading(t.Context())
		return err == nil && s.Trial != nil && s.Version == nextVersion
	})
}

// upgraded waits until the trial has ended, and buoyd has been started anew.
func (b *bareTest) upgraded(t *testing.T) {
	t.Helper()
	b.m.Await("the trial has an end", func() bool {
		_, after, ended := strings.Cut(b.m.ConsoleOfBoot(), "the trial has ended")
		return ended && strings.Contains(after, "msg=listening")
	})
	b.n = b.m.API()
	b.serves(t)
}

// serves checks that it is the next version that does, and how that came.
func (b *bareTest) serves(t *testing.T) {
	t.Helper()
	if s, err := b.n.Upgrading(t.Context()); err != nil || s.Version != nextVersion || s.Installed == nextVersion || s.Last == nil || s.Last.Result != "confirmed" {
		t.Errorf("upgraded: %+v (last: %+v), %v", s, s.Last, err)
	}
}

// reboot: what ran runs again, the upgrade lasts, and a disk that was damaged
// meanwhile is mended.
func (b *bareTest) reboot(t *testing.T) {
	if err := b.n.Reboot(t.Context(), false); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.m.AwaitOff(ctx); err != nil {
		t.Fatal(err)
	}
	if said := b.m.ConsoleOfBoot(); strings.Contains(said, "not unmounted") || !strings.Contains(said, "the machine restarts") {
		t.Error("it did not end in good order")
	}
	const inSuperblock = 1024 + 0x40
	if _, err := b.disk.file.WriteAt([]byte{0x77}, inSuperblock); err != nil {
		t.Fatal(err)
	}
	b.m.PowerOn()
	b.n = b.m.API()
	b.m.Says("/dev/vda was mended: ")
	b.back(t)
	b.serves(t)
	told := 0
	for e, err := range b.n.NodeEvents(t.Context(), buoy.NodeEventQuery{Types: []string{"disk.mended"}}) {
		if told++; err != nil || !strings.Contains(e.Data.Message, "Superblock") {
			t.Errorf("event of the disk: %+v, %v", e, err)
		}
	}
	if told != 1 {
		t.Errorf("%d events tell of the disk", told)
	}
}

// cut: with writes under way, an upgrade on trial and without a network, all comes
// back by itself.
func (b *bareTest) cut(t *testing.T) {
	count := func() int {
		n, err := strconv.Atoi(b.n.inside("writer", "cat /count"))
		if err != nil {
			t.Errorf("what was written is torn: %v", err)
		}
		return n
	}
	before := count()
	b.m.Await("it writes", func() bool { return count() > before+5 })
	wrote := count()
	b.upgrade(t)
	b.m.Kill()
	b.store.away()
	b.m.PowerOn()
	b.m.Plug(false)
	b.m.Says("beacon: oci is lit")
	b.m.Says("buoy: ready")
	if said := b.m.ConsoleOfBoot(); strings.Contains(said, "msg=address") {
		t.Error("it had an address")
	}
	b.m.Plug(true)
	b.upgraded(t)
	b.back(t)
	if now := count(); now < wrote {
		t.Errorf("it had written %d, and %d is left", wrote, now)
	}
}

// off: the power button is an orderly end.
func (b *bareTest) off(t *testing.T) {
	b.m.PressPower()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.m.AwaitOff(ctx); err != nil {
		t.Fatal(err)
	}
	if said := b.m.ConsoleOfBoot(); strings.Contains(said, "not unmounted") || !strings.Contains(said, "the machine is switched off") {
		t.Error("it did not end in good order")
	}
}

// TestBareMachineInTrouble: a machine says on its console what it lacks, touches
// nothing that is not its own, and goes on as far as that goes.
func TestBareMachineInTrouble(t *testing.T) {
	t.Parallel()
	theirs := NewDisk(t, "somebody", 300)
	before := sum(t, theirs)
	m := Start(t, Config{Name: "cut", Bare: true, Lacks: mib})
	m.Says("the initramfs is not whole")
	m.Kill()

	m = Start(t, Config{Name: "trouble", Memory: 352, Bare: true, Disks: []*Disk{theirs}, Kernel: append(BareAPI(), "buoy.data=create:/dev/vda"), Forward: []int{APIPort}})
	m.Says("give it more") // of memory
	m.Says("/dev/vda is not touched: it is not blank")
	m.Kill()
	if sum(t, theirs) != before {
		t.Error("a disk of somebody else is not as it was")
	}

	// Nobody answers on the wire, the controller is nowhere, and of the disk for
	// state the end is missing.
	half := NewDisk(t, "BUOY-DATA", 300)
	if err := half.file.Truncate(200 << 20); err != nil {
		t.Fatal(err)
	}
	m = Start(t, Config{
		Name: "alone", Memory: 512, Bare: true, Wires: []*Wire{NewWire(t)}, Disks: []*Disk{theirs, half}, Forward: []int{APIPort},
		Kernel: append(BareAPI(), "buoy.data=disk", "buoy.uplink="+MAC("alone", 1).String(), "buoy.controller=https://10.9.9.9:8443", "buoy.token=a-secret"),
	})
	m.Says("the disk for state is broken")
	m.Says("buoy: ready")
	m.Says("no DHCP server answers")
	m.Says("10.9.9.9")
	m.Kill()
	if sum(t, theirs) != before {
		t.Error("a disk of somebody else is not as it was")
	}
}

// sum is of all that is on a disk.
func sum(t *testing.T, d *Disk) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(d.file, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
