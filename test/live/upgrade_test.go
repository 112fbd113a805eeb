package live

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/testroot"
)

const window = 10 * time.Second // the least that buoyd takes

// upgrades are builds of different versions and bundles of them.
type upgrades struct {
	t    *testing.T
	dir  string
	keys string // that nodes trust
}

func newUpgrades(t *testing.T) *upgrades {
	testroot.Require(t)
	u := &upgrades{t: t, dir: t.TempDir()}
	if err := os.Chmod(u.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	u.keys = filepath.Join(u.dir, "keys")
	if err := os.Mkdir(u.keys, 0o755); err != nil {
		t.Fatal(err)
	}
	u.key("ours", true)
	u.key("strangers", false)
	for _, v := range []string{"v1.0.0", "v2.0.0"} {
		u.build(v)
	}
	for _, how := range []string{"crash", "hang", "deaf", "migrate", "wipe", "forget"} {
		u.run(nil, "cp", "-r", filepath.Join(u.dir, "v2.0.0"), filepath.Join(u.dir, brokenVersion(how)))
		u.buoyd(brokenVersion(how), how)
		u.bundle(brokenVersion(how), runtime.GOARCH, "ours")
	}
	return u
}

// key makes a pair.
func (u *upgrades) key(name string, trusted bool) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		u.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		u.t.Fatal(err)
	}
	putFile(u.t, filepath.Join(u.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	if raw, err = x509.MarshalPKIXPublicKey(public); err != nil {
		u.t.Fatal(err)
	}
	if trusted {
		putFile(u.t, filepath.Join(u.keys, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw}))
	}
}

func putFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (u *upgrades) run(env []string, program string, args ...string) {
	u.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		u.t.Fatalf("%s %s: %v\n%s", program, args, err, out)
	}
}

func stamp(version string) string {
	return "-s -w -X github.com/buoy-edge/buoy/internal/version.Version=" + version
}

// build makes the programs of a version.
func (u *upgrades) build(version string) {
	u.t.Helper()
	dir := filepath.Join(u.dir, version)
	u.buoyd(version, "")
	u.run([]string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-ldflags", stamp(version), "-o", dir+"/", "./cmd/buoy-flist")
	u.run([]string{"CGO_ENABLED=1"}, "go", "build", "-buildvcs=false", "-trimpath", "-tags", "netgo,osusergo,seccomp,runc_nocriu",
		"-ldflags", stamp(version)+" -linkmode external -extldflags -static", "-o", dir+"/", "./cmd/buoy-shim")
	u.run(nil, "cp", filepath.Join(bin(u.t), "buoy-reaper"), filepath.Join(bin(u.t), "buoy-init"), dir)
}

// buoyd makes the daemon of a version alone.
func (u *upgrades) buoyd(version, broken string) {
	u.t.Helper()
	u.run([]string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-tags", "buoyfail", "-ldflags", stamp(version)+" -X main.broken="+broken,
		"-o", filepath.Join(u.dir, version, "buoyd"), "./cmd/buoyd")
}

// bundle packs a version as scripts/bundle does.
func (u *upgrades) bundle(version, arch, key string) string {
	u.t.Helper()
	file := filepath.Join(u.dir, version+"-"+arch+"-"+key+".bundle")
	if _, err := os.Stat(file); err != nil {
		u.run([]string{"ZSTD_CLEVEL=1"}, "scripts/bundle", filepath.Join(u.dir, version), version, arch, filepath.Join(u.dir, key+".key"), file)
	}
	return file
}

// brokenVersion is one whose buoyd is not fit to serve.
func brokenVersion(how string) string { return "v2.0.1-" + how }

// node is a node of v1.0.0 with containers.
func (u *upgrades) node(t *testing.T, args ...string) (d *daemon, pids map[string]int) {
	t.Helper()
	d = newInstance(t, append([]string{"--upgrade-keys", u.keys}, args...)...)
	d.bin = filepath.Join(u.dir, "v1.0.0")
	d.env = []string{"BUOY_FAIL_FILE=" + u.failFile(d)}
	d.start()
	pids = map[string]int{}
	for _, name := range []string{"one", "two"} {
		d.create(sh(t, name, "while echo alive; do sleep 0.1; done"))
		pids[name] = d.awaitState(name, "running").PID
	}
	return d, pids
}

func (u *upgrades) failFile(d *daemon) string { return filepath.Join(u.dir, "fail-"+d.instance()) }

// send has a node take a bundle.
func (d *daemon) send(file string) error {
	d.t.Helper()
	in, err := os.Open(file)
	if err != nil {
		d.t.Fatal(err)
	}
	defer in.Close()
	_, err = d.client.Upgrade(d.t.Context(), in, window)
	return err
}

// outcome waits for the end of an upgrade.
func (d *daemon) outcome() (s buoy.UpgradeState) {
	d.t.Helper()
	d.await("the upgrade has an end", func() bool {
		var err error
		s, err = d.client.Upgrading(d.t.Context())
		return err == nil && s.Last != nil && s.Trial == nil && s.Phase == "idle"
	})
	return s
}

// same says whether the same processes still run.
func (d *daemon) same(pids map[string]int) {
	d.t.Helper()
	for name, pid := range pids {
		if c := d.awaitState(name, "running"); c.PID != pid {
			d.t.Errorf("container %s was process %d and is %d", name, pid, c.PID)
		}
	}
}

// unmixed says that the programs that run are of one version, the one that is told.
func (d *daemon) unmixed(version string) {
	d.t.Helper()
	v, err := d.client.Version(d.t.Context())
	if err != nil || v.Version != version {
		d.t.Errorf("version = %v, %v; want %s", v.Version, err, version)
	}
	shim := shimapi.NewClient(filepath.Join(d.run(), "shim.sock"))
	defer shim.Close()
	if h, err := shim.Hello(d.t.Context()); err != nil || h.Build != version {
		d.t.Errorf("the shim is of version %v, %v; want %s", h.Build, err, version)
	}
	link, err := os.Readlink(filepath.Join(d.run(), "buoy-shim"))
	if err != nil {
		d.t.Fatal(err)
	}
	self, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	if filepath.Dir(link) != filepath.Dir(self) {
		d.t.Errorf("buoyd is %s, and the reaper would start %s", self, link)
	}
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	u := newUpgrades(t)
	good := u.bundle("v2.0.0", runtime.GOARCH, "ours")
	for name, test := range map[string]func(*testing.T, string){
		"stays": u.stays, "goes back": u.goesBack, "refused": u.refused, "full disk": u.fullDisk,
		"fetched": u.fetched, "fleet": u.fleet, "power cut": u.powerCut,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			test(t, good)
		})
	}
}

func (u *upgrades) stays(t *testing.T, good string) {
	d, pids := u.node(t)
	pid := d.cmd.Process.Pid
	if err := d.send(good); err != nil {
		t.Fatal(err)
	}
	s := d.outcome()
	if s.Last.Result != "confirmed" || s.Version != "v2.0.0" || s.Installed != "v1.0.0" {
		t.Fatalf("upgrade = %+v, %+v; want it to be confirmed", s, s.Last)
	}
	d.same(pids)
	d.unmixed("v2.0.0")
	if d.cmd.Process.Pid != pid || d.cmd.ProcessState != nil {
		t.Error("buoyd is another process; its service manager would not know it")
	}
	d.stop()
	d.start()
	d.same(pids)
	d.unmixed("v2.0.0")
	if err := d.send(good); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("the same bundle again: %v, want a conflict", err)
	}
	types := []string{}
	for _, e := range d.events(buoy.NodeEventQuery{}) {
		if strings.HasPrefix(e.Type, "node.upgrad") {
			types = append(types, e.Type)
			if e.Data.Actor.Kind != "api" || e.Data.Actor.Request == "" || e.Data.Attributes["version"] != "v2.0.0" {
				t.Errorf("event %+v lacks who asked, or for what", e)
			}
		}
	}
	if want := []string{"node.upgrading", "node.upgraded"}; !slices.Equal(types, want) {
		t.Errorf("events %v, want %v", types, want)
	}

	// Who installs a package since is right.
	u.run(nil, "cp", "-r", filepath.Join(u.dir, "v1.0.0"), filepath.Join(u.dir, "installed"))
	u.buoydAt(filepath.Join(u.dir, "installed"), "v3.0.0")
	d.stop()
	d.bin = filepath.Join(u.dir, "installed")
	d.start()
	if v, err := d.client.Version(t.Context()); err != nil || v.Version != "v3.0.0" {
		t.Errorf("version = %v, %v; want that of the package", v.Version, err)
	}
	d.same(pids)
}

// buoydAt makes the daemon of a version alone, somewhere.
func (u *upgrades) buoydAt(dir, version string) {
	u.run([]string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-tags", "buoyfail", "-ldflags", stamp(version), "-o", filepath.Join(dir, "buoyd"), "./cmd/buoyd")
}

func (u *upgrades) goesBack(t *testing.T, _ string) {
	d, pids := u.node(t)
	for _, tt := range []struct{ how, reason string }{
		{"crash", "Exited"}, {"hang", "Unhealthy"}, {"deaf", "Unhealthy"}, {"migrate", "Exited"}, {"wipe", "Exited"}, {"forget", "ContainersLost"},
	} {
		version := brokenVersion(tt.how)
		if err := d.send(u.bundle(version, runtime.GOARCH, "ours")); err != nil {
			t.Fatalf("%s: %v", tt.how, err)
		}
		if tt.how == "hang" {
			d.second()
		}
		d.await("an end of "+tt.how, func() bool {
			s, err := d.client.Upgrading(t.Context())
			return err == nil && s.Last != nil && s.Last.Version == version && s.Phase == "idle"
		})
		s := d.outcome()
		if s.Last.Result != "failed" || s.Last.Reason != tt.reason || s.Version != "v1.0.0" {
			t.Errorf("%s: %+v, %+v; want it to fail for %s", tt.how, s, s.Last, tt.reason)
		}
		if tt.how == "forget" { // its containers have ended, but are not forgotten
			for name := range pids {
				pids[name] = d.awaitState(name, "running").PID
			}
		}
		d.same(pids)
		d.unmixed("v1.0.0")
	}
	left, err := filepath.Glob(filepath.Join(d.data(), "upgrade", "*"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(d.data(), "upgrade", "versions", "*"))
	if err != nil || len(left) > 3 || len(more) > 0 {
		t.Errorf("left: %v, %v; want the state, its lock and no version", left, more)
	}
}

// second starts another buoyd in the middle of a trial.
func (d *daemon) second() {
	d.t.Helper()
	d.await("the trial", func() bool { return strings.Contains(d.log.String(), "version=v2.0.1-hang") })
	cmd := exec.Command(filepath.Join(d.programs(), "buoyd"), "--data", d.data(), "--run", d.run())
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "another buoyd runs") {
		d.t.Errorf("a second buoyd: %v, want it to be refused\n%s", err, out)
	}
}

func (u *upgrades) refused(t *testing.T, good string) {
	own := *u
	own.keys = filepath.Join(u.dir, "own-keys") // they come and go
	u.run(nil, "cp", "-r", u.keys, own.keys)
	d, pids := own.node(t, "--no-downgrade")
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(raw)
	damaged[len(damaged)/2] ^= 1
	u.run(nil, "cp", "-r", filepath.Join(u.dir, "v1.0.0"), filepath.Join(u.dir, "v0.9.0"))
	u.buoyd("v0.9.0", "")
	u.run(nil, "cp", "-r", filepath.Join(u.dir, "v2.0.0"), filepath.Join(u.dir, "v2.0.2"))
	bad := map[string]struct {
		bundle []byte
		kind   error
		says   string
	}{
		"nothing":          {nil, buoy.ErrInvalid, "ends too early"},
		"no archive":       {bytes.Repeat([]byte("x"), 4096), buoy.ErrInvalid, "cannot be read"},
		"truncated":        {raw[:len(raw)/2], buoy.ErrInvalid, "ends too early"},
		"only a manifest":  {raw[:1024], buoy.ErrInvalid, "ends too early"},
		"damaged":          {damaged, buoy.ErrInvalid, ""},
		"by a stranger":    {u.read(u.bundle("v2.0.0", runtime.GOARCH, "strangers")), buoy.ErrInvalid, "not signed"},
		"for another arch": {u.read(u.bundle("v2.0.0", "mips", "ours")), buoy.ErrInvalid, "is for mips"},
		"older":            {u.read(u.bundle("v0.9.0", runtime.GOARCH, "ours")), buoy.ErrConflict, "older than v1.0.0"},
		"another inside":   {u.read(u.bundle("v2.0.2", runtime.GOARCH, "ours")), buoy.ErrInvalid, "calls itself"},
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		b := bad[name]
		_, err := d.client.Upgrade(t.Context(), bytes.NewReader(b.bundle), window)
		if !errors.Is(err, b.kind) || !strings.Contains(fmt.Sprint(err), b.says) {
			t.Errorf("%s: %v, want %v saying %q", name, err, b.kind, b.says)
		}
	}
	for _, w := range []time.Duration{time.Second, 2 * time.Hour, -time.Minute} {
		if _, err := d.client.Upgrade(t.Context(), bytes.NewReader(raw), w); !errors.Is(err, buoy.ErrInvalid) {
			t.Errorf("window %v: %v, want it to be refused", w, err)
		}
	}
	if err := os.Rename(own.keys, own.keys+".away"); err != nil {
		t.Fatal(err)
	}
	if err := d.send(good); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("no key: %v, want a conflict", err)
	}
	if err := os.Rename(own.keys+".away", own.keys); err != nil {
		t.Fatal(err)
	}
	d.same(pids)
	d.unmixed("v1.0.0")
	if left, err := filepath.Glob(filepath.Join(d.data(), "upgrade", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func (u *upgrades) read(file string) []byte {
	raw, err := os.ReadFile(file)
	if err != nil {
		u.t.Fatal(err)
	}
	return raw
}

// powerCut kills buoyd at each step of an upgrade. Afterwards one version runs
// whole, the containers run on, and the next upgrade works.
func (u *upgrades) powerCut(t *testing.T, good string) {
	bad := u.bundle(brokenVersion("migrate"), runtime.GOARCH, "ours")
	for _, tt := range []struct {
		at, bundle, version string
		times               int
	}{
		{"unpacking buoy-init", good, "v1.0.0", 1},
		{"unpacked", good, "v1.0.0", 1},
		{"placed", good, "v1.0.0", 1},
		{"pending", good, "v2.0.0", 1},
		{"chosen", good, "v2.0.0", 1},
		{"saved", good, "v2.0.0", 2},
		{"saved", good, "v1.0.0", 3},
		{"ended", good, "v2.0.0", 1},
		{"concluded", good, "v2.0.0", 1},
		{"ended", bad, "v1.0.0", 1},
		{"restored", bad, "v1.0.0", 1},
		{"concluded", bad, "v1.0.0", 1},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tt.at, tt.version, tt.times), func(t *testing.T) {
			t.Parallel()
			d, pids := u.node(t)
			putFile(t, u.failFile(d), []byte(tt.at))
			_ = d.send(tt.bundle) // buoyd may have died before it could answer
			for n := 1; ; n++ {
				select {
				case <-d.exit:
				case <-time.After(30 * time.Second):
					t.Fatalf("buoyd never came to %q", tt.at)
				}
				if n == tt.times {
					break
				}
				putFile(t, u.failFile(d), []byte(tt.at))
				d.begin()
			}
			d.start()
			d.await("version "+tt.version+" serves alone", func() bool {
				s, err := d.client.Upgrading(t.Context())
				return err == nil && s.Version == tt.version && s.Phase == "idle"
			})
			d.same(pids)
			d.unmixed(tt.version)
			if tt.version == "v1.0.0" {
				if err := d.send(good); err != nil {
					t.Fatal(err)
				}
				d.await("the next upgrade is confirmed", func() bool {
					s, err := d.client.Upgrading(t.Context())
					return err == nil && s.Last != nil && s.Last.Result == "confirmed" && s.Phase == "idle"
				})
				d.same(pids)
				d.unmixed("v2.0.0")
			}
		})
	}
}

func (u *upgrades) fullDisk(t *testing.T, good string) {
	d := newInstance(t, "--upgrade-keys", u.keys)
	d.bin = filepath.Join(u.dir, "v1.0.0")
	if err := os.Mkdir(d.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", d.data(), "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill()
		if err := syscall.Unmount(d.data(), 0); err != nil {
			t.Error(err)
		}
	})
	d.start()
	if err := d.send(good); !errors.Is(err, buoy.ErrUnavailable) || !strings.Contains(err.Error(), "no room") {
		t.Errorf("%v, want it to say that there is no room", err)
	}
	if v, err := d.client.Version(t.Context()); err != nil || v.Version != "v1.0.0" {
		t.Errorf("version = %v, %v", v.Version, err)
	}
	if left, err := filepath.Glob(filepath.Join(d.data(), "upgrade", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// fetched has the node get the bundle by itself from a server that cuts each
// connection, and kills buoyd on the way.
func (u *upgrades) fetched(t *testing.T, good string) {
	raw := u.read(good)
	most := int64(len(raw)/5 + 1)
	var first atomic.Int64
	var begun atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("Range") == "" {
			first.Add(1)
		}
		begun.Add(1)
		http.ServeContent(&cutWriter{w, most}, r, "", time.Time{}, bytes.NewReader(raw))
	}))
	t.Cleanup(server.Close)
	d, pids := u.node(t)
	if _, err := d.client.UpgradeFrom(t.Context(), server.URL+"/bundle", window); err != nil {
		t.Fatal(err)
	}
	d.await("the second connection", func() bool { return begun.Load() >= 2 })
	if s, err := d.client.Upgrading(t.Context()); err != nil || s.Phase != "fetching" || s.Fetch == nil {
		t.Errorf("%+v, %v; want it to fetch", s, err)
	}
	d.kill()
	d.start()
	s := d.outcome()
	if s.Last.Result != "confirmed" || s.Version != "v2.0.0" {
		t.Errorf("%+v, %+v; want it to be confirmed", s, s.Last)
	}
	if first.Load() != 1 {
		t.Errorf("the node began %d times, want once", first.Load())
	}
	d.same(pids)
	d.unmixed("v2.0.0")
}

// cutWriter lets some bytes through, and then breaks the connection.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left <= 0 {
		panic(http.ErrAbortHandler)
	}
	p = p[:min(int64(len(p)), w.left)]
	w.left -= int64(len(p))
	return w.ResponseWriter.Write(p)
}

// fleet upgrades a node through its controller, and again without one.
func (u *upgrades) fleet(t *testing.T, good string) {
	f := newFleet(t, 1)
	member := []string{
		"--node-id", "n2", "--report-interval", "1s", "--controller", "http://" + f.addr, "--join-token", "@" + filepath.Join(f.data(), "join-token"),
	}
	d, pids := u.node(t, member...)
	linked := func() bool {
		return slices.ContainsFunc(f.hosts(), func(h host) bool { return h.HostID == "n2" && h.Linked })
	}
	d.await("the node is linked", linked)
	through, err := buoy.New("http://"+f.addr, buoy.WithNode("n2"))
	if err != nil {
		t.Fatal(err)
	}
	defer through.Close()
	in, err := os.Open(good)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := through.Upgrade(t.Context(), in, window); err != nil {
		t.Fatal(err)
	}
	var s buoy.UpgradeState
	d.await("the controller hears of the end", func() bool {
		s, err = through.Upgrading(t.Context())
		return err == nil && s.Last != nil && s.Phase == "idle"
	})
	if s.Last.Result != "confirmed" || s.Version != "v2.0.0" || s.Controller != "reached" {
		t.Errorf("%+v, %+v; want it to be confirmed", s, s.Last)
	}
	d.same(pids)
	d.unmixed("v2.0.0")

	// Who could not reach its controller could not be helped any more.
	u.run(nil, "cp", "-r", filepath.Join(u.dir, "v2.0.0"), filepath.Join(u.dir, "v2.1.0"))
	u.buoyd("v2.1.0", "")
	if err := d.send(u.bundle("v2.1.0", runtime.GOARCH, "ours")); err != nil {
		t.Fatal(err)
	}
	f.kill()
	d.await("the trial has failed", func() bool {
		s, err = d.client.Upgrading(t.Context())
		return err == nil && s.Last != nil && s.Last.Version == "v2.1.0" && s.Phase == "idle"
	})
	if s.Last.Result != "failed" || !strings.Contains(s.Last.Message, "controller") || s.Version != "v2.0.0" {
		t.Errorf("%+v, %+v; want it to have failed for its controller", s, s.Last)
	}
	d.same(pids)
	d.unmixed("v2.0.0")
	f.start() // for those who clean up
}
