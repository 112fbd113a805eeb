// Package live tests the programs together: a buoyd of this tree on this
// machine, asked over REST, with real containers.
package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/testns"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// bin is the directory of the built programs.
func bin(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("BUOY_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "buoyd")); err != nil {
		t.Fatalf("%v: run \"make build\", or \"make test\", which does", err)
	}
	return dir
}

// daemon is a buoyd and the instance it looks after. The instance outlives the
// daemon: tests kill and start it as they like.
type daemon struct {
	t      testing.TB
	dir    string // data and run are below it
	ns     string // network namespace that it takes for the machine's, "" for the machine's
	addr   string
	args   []string
	bin    string   // where its programs are; "": those of this tree
	env    []string // besides ours
	locked bool     // without --dev
	alone  bool     // when it was made, there was no other instance: what they share is its to clean up
	client *buoy.Client
	http   *http.Client // of d.addr, without what client knows; both check the answers

	told error // what the client heard of the last disturbed operation

	cmd  *exec.Cmd
	log  *lockedBuffer
	exit chan struct{} // closed when cmd has ended
}

// newDaemon starts an instance of its own.
func newDaemon(t testing.TB, args ...string) *daemon {
	t.Helper()
	d := newInstance(t, args...)
	d.start()
	return d
}

// newInstance is one that has not been started. When the test ends, everything
// of it must be gone after "buoyd reset".
func newInstance(t testing.TB, args ...string) *daemon {
	t.Helper()
	testroot.Require(t)
	d := &daemon{t: t, addr: freeAddr(t), args: args, log: &lockedBuffer{}}
	d.settle()
	if err := os.Chmod(d.dir, 0o711); err != nil { // root of a user namespace must get through
		t.Fatal(err)
	}
	before := traces(t)
	t.Cleanup(func() { d.finish(before) })
	var err error
	d.http = &http.Client{Transport: checked(t, http.DefaultTransport)}
	d.client, err = buoy.New("http://"+d.addr, buoy.WithHTTPClient(d.http))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// instances are those that there are, by what buoyd makes their addresses of.
var instances = struct {
	sync.Mutex
	dirs map[[2]byte]string
}{dirs: map[[2]byte]string{}}

// network is where buoyd's default prefix for the instance comes from.
func (d *daemon) network() [2]byte {
	sum := sha256.Sum256([]byte(d.run()))
	return [2]byte{sum[0] & 63, sum[1] & 0xf0}
}

// settle gives the instance a directory with which it meets no other in the
// addresses that follow from it: there are but a thousand.
func (d *daemon) settle() {
	d.t.Helper()
	instances.Lock()
	defer instances.Unlock()
	d.alone = len(instances.dirs) == 0
	for {
		// A test's own directory may have too long a name for a socket's path, and what is left must be seen.
		dir, err := os.MkdirTemp("", "buoy-live-")
		if err != nil {
			d.t.Fatal(err)
		}
		d.dir = dir
		if instances.dirs[d.network()] == "" {
			instances.dirs[d.network()] = dir
			return
		}
		if err := os.Remove(dir); err != nil {
			d.t.Fatal(err)
		}
	}
}

// others says whether there is another instance.
func others() bool {
	instances.Lock()
	defer instances.Unlock()
	return len(instances.dirs) > 1
}

func (d *daemon) programs() string {
	if d.bin != "" {
		return d.bin
	}
	return bin(d.t)
}

func (d *daemon) data() string { return filepath.Join(d.dir, "data") }
func (d *daemon) run() string  { return filepath.Join(d.dir, "run") }

// instance is the name that buoyd gives to what it makes outside its directories.
func (d *daemon) instance() string {
	sum := sha256.Sum256([]byte(d.run()))
	return "b" + hex.EncodeToString(sum[:])[:7]
}

// start starts buoyd and waits until it answers.
func (d *daemon) start() {
	d.t.Helper()
	d.begin()
	d.await("buoyd answers", func() bool {
		select {
		case <-d.exit:
			d.t.Fatalf("buoyd ended:\n%s", d.log)
		default:
		}
		h, err := d.client.Health(d.t.Context())
		return err == nil && h.Ready
	})
}

// begin starts buoyd.
func (d *daemon) begin() {
	d.t.Helper()
	args := []string{"--dev"}
	if d.locked {
		args = nil
	}
	args = append(args, append([]string{"--listen", d.addr, "--data", d.data(), "--run", d.run(), "--node-id", "525400123456"}, d.args...)...)
	d.cmd = exec.Command(filepath.Join(d.programs(), "buoyd"), args...)
	d.cmd.Env = append(os.Environ(), d.env...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.within(d.cmd.Start); err != nil {
		d.t.Fatal(err)
	}
	d.exit = make(chan struct{})
	go func(cmd *exec.Cmd, exit chan struct{}) {
		_ = cmd.Wait()
		close(exit)
	}(d.cmd, d.exit)
}

// within runs f where the instance's network is. f starts processes, but no goroutines.
func (d *daemon) within(f func() error) error {
	if d.ns == "" {
		return f()
	}
	return testns.In(d.ns, f)
}

// kill ends buoyd as a crash would.
func (d *daemon) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
}

// stop ends buoyd as a service manager would.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("buoyd exited with %d:\n%s", code, d.log)
	}
}

func (d *daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
	select {
	case <-d.exit:
	case <-time.After(20 * time.Second):
		d.t.Fatalf("buoyd does not end on %v:\n%s", sig, d.log)
	}
}

// finish ends the instance and looks for what it has left on the machine.
func (d *daemon) finish(before []string) {
	if d.t.Failed() {
		shim, _ := os.ReadFile(filepath.Join(d.run(), "shim.log"))
		d.t.Logf("buoyd said:\n%s\nbuoy-shim said:\n%s", d.log, shim)
	}
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		<-d.exit
	}
	d.client.Close()
	var out []byte
	err := d.within(func() (err error) {
		out, err = exec.Command(filepath.Join(d.programs(), "buoyd"), append([]string{"reset", "--yes", "--data", d.data(), "--run", d.run()}, d.args...)...).CombinedOutput()
		return err
	})
	if err != nil {
		d.t.Errorf("reset: %v\n%s", err, out)
	}
	if err := os.Remove(d.dir); err != nil { // not RemoveAll: reset must have emptied it
		d.t.Error(err)
		_ = os.RemoveAll(d.dir)
	}
	// The kernel takes down closed network namespaces in its own time.
	after := traces(d.t)
	for deadline := time.Now().Add(10 * time.Second); len(d.mine(added(before, after))) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		after = traces(d.t)
	}
	if left := d.mine(added(before, after)); len(left) > 0 {
		d.t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
	}
	instances.Lock()
	defer instances.Unlock()
	delete(instances.dirs, d.network())
}

// traces lists what an instance could leave on the machine.
func traces(t testing.TB) []string {
	t.Helper()
	var all []string
	add := func(kind, text string) {
		for line := range strings.Lines(text) {
			all = append(all, kind+" "+strings.TrimSpace(line))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	add("mount", string(mounts))
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		alias, _ := os.ReadFile("/sys/class/net/" + l.Name + "/ifalias") // it may have gone
		add("link", l.Name+" "+string(alias))
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		t.Fatalf("nft list tables: %v", err)
	}
	add("nft", string(tables))
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	add("ip_forward", string(forward))
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			add("cgroup", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if raw, err := os.ReadFile(p); err == nil && bytes.Contains(raw, []byte("buoy-live-")) {
			add("process", p+" "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	return all
}

func added(before, after []string) []string {
	had := map[string]bool{}
	for _, s := range before {
		had[s] = true
	}
	var out []string
	for _, s := range after {
		if !had[s] {
			out = append(out, s)
		}
	}
	return out
}

// mine leaves out what is not this instance's: others may be at work on this
// machine too. Nameless is only a link that lost its alias on the way.
func (d *daemon) mine(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		nameless := strings.HasPrefix(line, "link bv") && !strings.Contains(line, "buoy:")
		shared := strings.HasPrefix(line, "ip_forward") && d.alone && !others()
		return !nameless && !shared && !strings.Contains(line, d.instance()) && !strings.Contains(line, d.dir)
	})
}

// await waits for a condition that something else brings about.
func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			d.t.Fatalf("waited in vain: %s\nbuoyd said:\n%s", what, d.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// awaitStatus waits until a container has a state.
func (d *daemon) awaitState(name, state string) buoy.Container {
	d.t.Helper()
	var c buoy.Container
	d.await(name+" is "+state, func() bool {
		var err error
		c, err = d.client.Container(context.WithoutCancel(d.t.Context()), name)
		return err == nil && c.State == state
	})
	return c
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func freePort(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// taken is how many ports takePorts has given out.
var taken atomic.Int32

// takePorts gives n ports, the first of which it says, that no other test has:
// one that is published is not in use as bind(2) sees it, so that freePort may
// give it twice. The kernel gives none below 32768 to who asks for any.
func takePorts(t testing.TB, n int) int {
	t.Helper()
	first := 20000 + int(taken.Add(int32(n))) - n
	if first+n > 32768 {
		t.Fatal("all ports are taken")
	}
	return first
}

// portRange is of a node's own, for what it publishes.
func portRange(t testing.TB) string {
	t.Helper()
	const many = 100
	first := takePorts(t, many)
	return fmt.Sprintf("%d-%d", first, first+many-1)
}

// lockedBuffer is a buffer that a process may write while a test reads.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var rootfs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "buoy-rootfs-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	for _, d := range []string{"bin", "etc", "tmp", "www"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return "", fmt.Errorf("%w: install busybox-static, as \"make test\" does", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		return "", err
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return "", err
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
				return "", err
			}
		}
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n",
		"etc/group":  "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n",
		"www/hello":  "hello from inside\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv(testroot.Env) != "" {
		if dir, err := rootfs(); err == nil {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// image is a directory with busybox.
func image(t testing.TB) string {
	t.Helper()
	dir, err := rootfs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// raw sends a request as text and gives status, headers and body.
func (d *daemon) raw(method, path, body string) (int, http.Header, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+d.addr+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	var dialer net.Dialer
	client := http.Client{Transport: checked(d.t, &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if d.ns != "" { // whose loopback is not ours
			network, addr = "unix", filepath.Join(d.run(), "buoy.sock")
		}
		return dialer.DialContext(ctx, network, addr)
	}})}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, buf.String()
}
