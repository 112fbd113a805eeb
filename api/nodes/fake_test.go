package nodes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/inventory"
	"github.com/buoy-edge/buoy/node/probe"
)

const (
	nodeID = "525400123456"
	jobID  = "f3976780-f369-45df-ab54-206149dc000e"
	here   = "/nodes/" + nodeID
	lede   = "http://192.168.20.132:8080/deboeckj/lede-17.01.0-r3205-59508e3-x86-64-generic-rootfs.flist"
)

// fakeNode keeps containers in memory and notes what was done to it.
type fakeNode struct {
	machine gpu.Machine
	held    []gpu.Held
	mu      sync.Mutex // guards all
	specs   map[string]node.Container
	jobs    []container.Job
	files   map[string]string
	did     []string
	lines   []container.LogLine
	fail    error // of the next call that may fail
	endLogs chan struct{}
	pull    func(ctx context.Context, tell func(images.Progress)) (images.Image, error)
	ready   chan struct{} // nil: closed
}

// newFake has the seed's container vfw_21 with its job.
func newFake() *fakeNode {
	return &fakeNode{
		specs: map[string]node.Container{"vfw_21": {
			Spec:   node.Spec{Name: "vfw_21", Image: lede, Run: container.Spec{Hostname: "vfw_21"}},
			Status: node.Running, PID: 4711, Created: time.Unix(1491984742, 0),
		}},
		jobs: []container.Job{{
			ID: jobID, Container: "vfw_21", Args: []string{"/bin/sleep", "9"}, State: container.JobRunning,
			Started: time.UnixMilli(1491984742526),
		}},
		files:   map[string]string{"/etc/motd": "welcome\n"},
		lines:   []container.LogLine{{Time: time.Unix(1, 5), Stream: "stdout", Text: "one"}, {Time: time.Unix(2, 0), Stream: "stderr", Text: "two"}},
		endLogs: make(chan struct{}),
	}
}

func (f *fakeNode) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, fmt.Sprintf(format, args...))
	err := f.fail
	f.fail = nil
	return err
}

func (f *fakeNode) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	did := f.did
	f.did = nil
	return did
}

func (f *fakeNode) Info() node.Info {
	return node.Info{ID: nodeID, Hostname: "core0node", Addr: netip.MustParseAddr("10.0.0.2"), Version: "v1"}
}
func (f *fakeNode) Inventory() inventory.FS         { return inventory.FS{} }
func (f *fakeNode) GPUs() (gpu.Machine, []gpu.Held) { return f.machine, f.held }
func (f *fakeNode) ContainersOf(pids []int) map[int]string {
	return map[int]string{77: "web"}
}
func (f *fakeNode) Warm(context.Context) {}

func (f *fakeNode) Ready() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready == nil {
		f.ready = make(chan struct{})
		close(f.ready)
	}
	return f.ready
}

func (f *fakeNode) must(name string) error {
	_, err := f.Container(name)
	return err
}

func (f *fakeNode) KillHostProcess(_ context.Context, pid int) error {
	if pid == 1 {
		return errs.E(errs.Conflict, "process 1 is the node itself")
	}
	return f.note("kill host %d", pid)
}
func (f *fakeNode) Reboot(_ context.Context, force bool) error { return f.note("reboot %v", force) }

func (f *fakeNode) Create(_ context.Context, s node.Spec) error {
	if err := s.Run.Validate(); err != nil {
		return err
	}
	if err := f.note("create %s", s.Name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.specs[s.Name]; ok {
		return errs.E(errs.Exists, "container %q already exists", s.Name)
	}
	f.specs[s.Name] = node.Container{Spec: s, Status: node.Running}
	return nil
}

func (f *fakeNode) Containers() []node.Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []node.Container
	for _, c := range f.specs {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b node.Container) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return list
}

func (f *fakeNode) Container(name string) (node.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.specs[name]
	if !ok {
		return c, errs.E(errs.NotFound, "container %q does not exist", name)
	}
	return c, nil
}

func (f *fakeNode) on(verb, name string) error {
	if err := f.must(name); err != nil {
		return err
	}
	return f.note("%s %s", verb, name)
}

func (f *fakeNode) Update(_ context.Context, name string, c node.Change) error {
	what := ""
	if c.NICs != nil {
		what += fmt.Sprintf("nics %d ", len(*c.NICs))
	}
	if c.Ports != nil {
		what += fmt.Sprintf("ports %d ", len(*c.Ports))
	}
	return f.on(strings.TrimSpace(what), name)
}

func (f *fakeNode) Bridges() []node.Bridge {
	return []node.Bridge{{Bridge: lan0, Up: true}}
}

func (f *fakeNode) Bridge(name string) (node.Bridge, error) {
	if name != lan0.Name {
		return node.Bridge{}, errs.E(errs.NotFound, "no bridge %q on this node", name)
	}
	return node.Bridge{Bridge: lan0, Up: true}, nil
}

func (f *fakeNode) CreateBridge(_ context.Context, b netcfg.Bridge) error {
	if b.Name == lan0.Name {
		return errs.E(errs.Exists, "bridge %q exists already on this node", b.Name)
	}
	return f.note("create bridge %s %s nat=%t %s %s-%s", b.Name, b.Mode, b.NAT, b.Prefix, b.Start, b.End)
}

func (f *fakeNode) DeleteBridge(_ context.Context, name string) error {
	if name != lan0.Name {
		return errs.E(errs.NotFound, "no bridge %q on this node", name)
	}
	return f.note("delete bridge %s", name)
}

func (f *fakeNode) Volumes() ([]node.Volume, error) {
	return []node.Volume{{Name: "data", Users: []string{"web"}}, {Name: "old"}}, nil
}

func (f *fakeNode) DeleteVolume(_ context.Context, name string) error {
	switch name {
	case "data":
		return errs.E(errs.Conflict, "container \"web\" uses volume \"data\"")
	case "old":
		return f.note("delete volume %s", name)
	}
	return errs.E(errs.NotFound, "no volume %q on this node", name)
}

var lan0 = netcfg.Bridge{Name: "lan0", Mode: netcfg.BridgeDHCP, NAT: true, Prefix: netip.MustParsePrefix("192.168.7.1/24"), Start: netip.MustParseAddr("192.168.7.10")}

func (f *fakeNode) Start(_ context.Context, name string) error { return f.on("start", name) }
func (f *fakeNode) Stop(_ context.Context, name string) error  { return f.on("stop", name) }
func (f *fakeNode) Kill(_ context.Context, name string, sig syscall.Signal) error {
	return f.on(fmt.Sprintf("kill %d", sig), name)
}
func (f *fakeNode) Restart(_ context.Context, name string) error { return f.on("restart", name) }
func (f *fakeNode) Delete(_ context.Context, name string) error  { return f.on("delete", name) }

// ExecSession and Attach only note: what talks is in talk_test.go.
func (f *fakeNode) ExecSession(_ context.Context, name string, c container.Command) (*node.Session, error) {
	if err := f.must(name); err != nil {
		return nil, err
	}
	_ = f.note("exec session %s %q tty=%v %dx%d open=%v", name, c.Args, c.TTY, c.Width, c.Height, c.Open)
	return nil, errs.E(errs.Conflict, "nothing runs here")
}

func (f *fakeNode) Attach(_ context.Context, name string, open, lossless bool) (*node.Session, error) {
	if err := f.must(name); err != nil {
		return nil, err
	}
	_ = f.note("attach %s open=%v lossless=%v", name, open, lossless)
	return nil, errs.E(errs.Conflict, "nothing runs here")
}

func (f *fakeNode) Exec(_ context.Context, name string, c container.Command) (string, error) {
	return "job1", f.on("exec "+strings.Join(c.Args, " "), name)
}

func (f *fakeNode) Jobs(_ context.Context, name string) ([]container.Job, error) {
	if name != "" && f.must(name) != nil {
		return nil, f.must(name)
	}
	return slices.DeleteFunc(slices.Clone(f.jobs), func(j container.Job) bool { return name != "" && j.Container != name }), nil
}

func (f *fakeNode) Job(ctx context.Context, name, id string) (container.Job, container.Output, error) {
	jobs, err := f.Jobs(ctx, name)
	for _, j := range jobs {
		if j.ID == id {
			return j, container.Output{Stdout: "hello\n"}, nil
		}
	}
	return container.Job{}, container.Output{}, cmp.Or(err, errs.E(errs.NotFound, "no job %q", id))
}

func (f *fakeNode) WaitJob(ctx context.Context, name, id string) (container.Job, error) {
	j, _, err := f.Job(ctx, name, id)
	if err == nil {
		<-ctx.Done()
	}
	return j, err
}

func (f *fakeNode) SignalJob(ctx context.Context, name, id string, sig syscall.Signal) error {
	if _, _, err := f.Job(ctx, name, id); err != nil {
		return err
	}
	return f.note("signal job %s %d", id, sig)
}

func (f *fakeNode) KillJobs(_ context.Context, name string) error {
	if name != "" {
		return f.on("kill jobs", name)
	}
	return f.note("kill all jobs")
}

func (f *fakeNode) Processes(_ context.Context, name string) ([]inventory.Process, error) {
	return []inventory.Process{{PID: 1, Cmdline: "/coreX", User: 0.04}}, f.must(name)
}

func (f *fakeNode) Process(_ context.Context, name string, pid int) (inventory.Process, error) {
	if err := f.must(name); err != nil {
		return inventory.Process{}, err
	}
	if pid != 1 {
		return inventory.Process{}, errs.E(errs.NotFound, "no process %d", pid)
	}
	return inventory.Process{PID: 1}, nil
}

func (f *fakeNode) SignalProcess(ctx context.Context, name string, pid int, sig syscall.Signal) error {
	if _, err := f.Process(ctx, name, pid); err != nil {
		return err
	}
	return f.note("signal %d %d", pid, sig)
}

func (f *fakeNode) KillProcess(_ context.Context, name string, pid int) error {
	return f.on(fmt.Sprintf("kill %d", pid), name)
}

func (f *fakeNode) CheckHealth(_ context.Context, name string) (probe.State, error) {
	return probe.State{Status: probe.Unhealthy, Failures: 3, LastCheck: time.Unix(60, 0), LastError: "answered 503", ResponseTime: 1500 * time.Microsecond}, f.on("check", name)
}

func (f *fakeNode) Memory(_ context.Context, name string) (inventory.Memory, error) {
	return inventory.Memory{Total: 10}, f.must(name)
}

func (f *fakeNode) NICs(_ context.Context, name string) ([]inventory.NIC, error) {
	return nil, f.must(name)
}

func (f *fakeNode) State(_ context.Context, name string) (inventory.State, error) {
	return inventory.State{CPU: 1.5}, f.must(name)
}

func (f *fakeNode) OS(_ context.Context, name string) (inventory.OS, error) {
	return inventory.OS{OS: "linux"}, f.must(name)
}

func (f *fakeNode) Upload(_ context.Context, name, path string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.files[path] = string(data)
	return f.on("upload "+path, name)
}

func (f *fakeNode) Download(_ context.Context, name, path string) (io.ReadCloser, int64, error) {
	text, ok := f.files[path]
	if err := f.must(name); err != nil || !ok {
		return nil, 0, cmp.Or(err, errs.E(errs.NotFound, "no file %q", path))
	}
	return io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
}

func (f *fakeNode) RemoveFile(_ context.Context, name, path string) error {
	return f.on("remove "+path, name)
}

func (f *fakeNode) Logs(ctx context.Context, name string, q container.LogQuery, emit func(container.LogLine) error) error {
	if err := f.note("logs %s tail %d stream %q", name, q.Tail, q.Stream); err != nil {
		return err
	}
	for _, l := range f.lines {
		if err := emit(l); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	if err := q.Idle(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		_ = f.note("logs followed to the end")
		return ctx.Err()
	case <-f.endLogs:
		return nil
	}
}

func (f *fakeNode) Images(context.Context) ([]images.Image, error) { return nil, nil }
func (f *fakeNode) PullImage(ctx context.Context, _ string, tell func(images.Progress)) (images.Image, error) {
	return f.pull(ctx, tell)
}

func (f *fakeNode) RemoveImage(_ context.Context, ref string, force bool) error {
	if ref == "used" && !force {
		return errs.E(errs.Conflict, "container \"web\" starts from image \"used\"")
	}
	return f.note("remove image %s", ref)
}

func (f *fakeNode) Chunk(_ context.Context, id string) ([]byte, error) {
	return []byte("stored"), f.note("chunk %s", id)
}

func (f *fakeNode) PinImage(_ context.Context, ref string, pinned bool) error {
	return f.note("pin image %s %v", ref, pinned)
}

func (f *fakeNode) Login(_ context.Context, registry, user, password string) error {
	if password != "secret" {
		return errs.E(errs.Invalid, "registry %s does not take this user and password", registry)
	}
	return f.note("login %s %s", registry, user)
}

func (f *fakeNode) Logout(registry string) error { return f.note("logout %s", registry) }

func (f *fakeNode) Logins() ([]images.Login, error) {
	return []images.Login{{Registry: "docker.io", Username: "me"}}, nil
}

func (f *fakeNode) Export(_ context.Context, name string, begin func() io.Writer) error {
	if err := f.must(name); err != nil {
		return err
	}
	_, err := io.WriteString(begin(), "the files of "+name)
	return err
}

func (f *fakeNode) ImageUsage(context.Context) (node.DiskUsage, error) {
	return node.DiskUsage{Usage: images.Usage{
		Total: 100, Free: 40, Reserve: 5, GCHigh: 85, GCLow: 80, Layers: 2, LayerBytes: 30, Flists: 1, FlistBytes: 3, Parts: 1, PartBytes: 7, Reclaimable: 17,
		Images: []images.ImageUsage{{Ref: "docker.io/library/app:1", Size: 30, Shared: 20, Reclaimable: 10, Pinned: true, Used: time.Unix(1e9, 0)}},
	}, Chunks: 4, ChunkBytes: 11}, f.note("image usage")
}

func (f *fakeNode) ExportImage(_ context.Context, ref string, begin func(string) io.Writer) error {
	if err := f.note("export image %s", ref); err != nil {
		return err
	}
	w := begin(images.TypeArchive)
	_, err := io.WriteString(w, "the archive of "+ref)
	if strings.Contains(ref, "broken") {
		err = errors.New("the disk ate it")
	}
	return err
}

func (f *fakeNode) ImportImage(_ context.Context, r io.Reader, opt images.ImportOptions) (images.Image, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return images.Image{}, err
	}
	return images.Image{Ref: opt.Ref, SignedBy: opt.Signature}, f.note("import image %q from %q", opt.Ref, data)
}

var errSecret = errors.New("open /secret/place: permission denied")

// server is the whole API on a fake node.
func server(t testing.TB) (*fakeNode, *api.Server) {
	t.Helper()
	f := newFake()
	d, err := New(Config{Node: f})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
	if err != nil {
		t.Fatal(err)
	}
	return f, s
}

func ask(s http.Handler, method, path, body string) *httptest.ResponseRecorder {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, r))
	return w
}

func exited(code int) *shimapi.Exit { return &shimapi.Exit{Code: code} }
