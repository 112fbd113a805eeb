package live

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// cards is a machine with two GPUs of NVIDIA, below a directory: what the kernel
// shows of them, and a driver whose library is the one that tests of package gpu
// have. Their nodes are devices that containers can be kept from: 10:229 (fuse)
// is the first, 10:237 (loop-control) the second.
type cards struct {
	t    *testing.T
	root string
}

const (
	gpuDriver = "550.54.15"
	gpu0      = "GPU-00000000-0000-0000-0000-000000000000"
	gpu1      = "GPU-00000001-0000-0000-0000-000000000000"
)

func newCards(t *testing.T) cards {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("skipped: no C compiler to build a driver's libraries with")
	}
	c := cards{t, t.TempDir()}
	for i, bus := range []string{"3b", "3c"} {
		place := fmt.Sprintf("sys/devices/pci0000:3a/0000:3a:0%d.0/0000:%s:00.0/", i, bus)
		for name, text := range map[string]string{"vendor": "0x10de", "device": "0x20b0", "class": "0x030200", "numa_node": "0"} {
			c.write(place+name, text+"\n")
		}
		c.link("../../../../bus/pci/drivers/nvidia", place+"driver")
		c.link("../../../"+strings.TrimSuffix(strings.TrimPrefix(place, "sys/"), "/"), "sys/bus/pci/devices/0000:"+bus+":00.0")
	}
	c.write("sys/module/nvidia/version", gpuDriver+"\n")
	c.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  "+gpuDriver+"\n")
	c.write("usr/bin/nvidia-smi", "#!/bin/sh\necho a tool of the driver\n")
	if err := os.Chmod(filepath.Join(c.root, "usr/bin/nvidia-smi"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, dev := range map[string]uint64{"nvidiactl": unix.Mkdev(1, 3), "nvidia-uvm": unix.Mkdev(1, 5), "nvidia0": unix.Mkdev(10, 229), "nvidia1": unix.Mkdev(10, 237)} {
		c.write("dev/.made", "")
		if err := unix.Mknod(filepath.Join(c.root, "dev", name), unix.S_IFCHR|0o666, int(dev)); err != nil {
			t.Fatal(err)
		}
	}
	c.build()
	return c
}

// build makes the libraries.
func (c cards) build() {
	c.t.Helper()
	header, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}/pkg/nvml", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		c.t.Fatal(err)
	}
	cc := func(args ...string) {
		c.t.Helper()
		if out, err := exec.Command("cc", append([]string{"-shared", "-fPIC", "-w"}, args...)...).CombinedOutput(); err != nil {
			c.t.Fatalf("cc: %v\n%s", err, out)
		}
	}
	c.write("usr/lib64/.made", "")
	libs := filepath.Join(c.root, "usr/lib64")
	for _, name := range []string{"libcuda", "libnvidia-ml"} {
		cc("-Wl,-soname,"+name+".so.1", "-o", filepath.Join(libs, name+".so."+gpuDriver), "-x", "c", "/dev/null")
	}
	c.write("nvml/.made", "")
	cc("-DNVML_NO_UNVERSIONED_FUNC_DEFS", "-I", strings.TrimSpace(string(header)), "-o", filepath.Join(c.root, "nvml/libnvidia-ml.so.1"), "../../gpu/testdata/nvml.c")
	c.t.Setenv("LD_LIBRARY_PATH", filepath.Join(c.root, "nvml"))
	c.t.Setenv("FAKE_NVML", filepath.Join(c.root, "rules"))
	c.rules()
}

// rules has the library behave so from now on.
func (c cards) rules(lines ...string) {
	c.t.Helper()
	c.write("rules.new", strings.Join(lines, "\n")+"\n")
	if err := os.Rename(filepath.Join(c.root, "rules.new"), filepath.Join(c.root, "rules")); err != nil {
		c.t.Fatal(err)
	}
}

func (c cards) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		c.t.Fatal(err)
	}
}

func (c cards) link(target, name string) {
	c.t.Helper()
	path := filepath.Join(c.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		c.t.Fatal(err)
	}
}

// look is what a program sees of GPUs, line by line.
const look = `ls /dev | grep nvidia
true </dev/nvidia0 && echo first
true </dev/nvidia1 && echo second
mknod /tmp/first c 10 229 && true </tmp/first && echo made first
mknod /tmp/second c 10 237 && true </tmp/second && echo made second
ls -l /usr/local/nvidia/lib64 | awk 'NR>1 {print $9, $10, $11}'
head -c4 /usr/local/nvidia/lib64/libcuda.so.1 | tail -c3
echo; env | grep -E '^(NVIDIA|LD_)' | sort
nvidia-smi
touch /usr/local/nvidia/lib64/x
sleep 1000`

func (d *daemon) holds(name string) string {
	d.t.Helper()
	c, err := d.client.Container(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	var uuids []string
	for _, g := range c.GPUs {
		uuids = append(uuids, g.UUID)
	}
	return strings.Join(uuids, " ")
}

// tellsLoader: an image of glibc finds the libraries by its loader's cache, too.
func (d *daemon) tellsLoader() {
	d.t.Helper()
	root := d.t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		d.t.Fatal(err)
	}
	empty := append([]byte("glibc-ld.so.cache1.1"), make([]byte, 28)...)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chmod(root, 0o755), os.Mkdir(root+"/bin", 0o755), os.Mkdir(root+"/etc", 0o755),
		os.WriteFile(root+"/bin/busybox", busybox, 0o755), os.WriteFile(root+"/etc/ld.so.cache", empty, 0o644)); err != nil {
		d.t.Fatal(err)
	}
	d.create(buoy.CreateRequest{
		Name: "glibc", Flist: root, Command: []string{"/bin/busybox", "grep", "-a", "-o", "/usr/local/nvidia/lib64/libcuda.so.1", "/etc/ld.so.cache"},
		GPUs: &buoy.GPURequest{Devices: []string{"1"}},
	})
	d.awaitState("glibc", "halted")
	if got := d.logs("glibc", buoy.LogOptions{}); got != "/usr/local/nvidia/lib64/libcuda.so.1\n" {
		d.t.Errorf("the loader's cache has %q", got)
	}
	d.await("it holds nothing, as it has ended", func() bool { return d.holds("glibc") == "" })
}

// TestGPUs: containers see their own GPUs and no others, whatever becomes of
// buoyd, and who loses one is told so.
func TestGPUs(t *testing.T) {
	machine := newCards(t)
	d := newDaemon(t, "--gpu-root", machine.root, "--cdi-specs", t.TempDir())
	gpu := func(name string) buoy.CreateRequest {
		r := sh(t, name, look)
		r.GPUs, r.Restart = &buoy.GPURequest{Count: 1}, "always"
		return r
	}
	d.tellsLoader()
	d.create(gpu("a"))
	d.create(gpu("b"))
	for name, c := range map[string]struct{ uuid, node, can, cannot string }{
		"a": {gpu0, "nvidia0", "first", "second"},
		"b": {gpu1, "nvidia1", "second", "first"},
	} {
		if got := d.holds(name); got != c.uuid {
			t.Errorf("%s has %q, want %s", name, got, c.uuid)
		}
		d.await(name+" has looked", func() bool { return strings.Contains(d.logs(name, buoy.LogOptions{}), "a tool of the driver\n") })
		got := strings.Split(d.logs(name, buoy.LogOptions{}), "\n")
		for _, want := range []string{
			c.node, "nvidia-uvm", "nvidiactl", c.can, "made " + c.can,
			"libcuda.so -> libcuda.so." + gpuDriver, "libcuda.so.1 -> libcuda.so." + gpuDriver, "libnvidia-ml.so.1 -> libnvidia-ml.so." + gpuDriver, "ELF",
			"LD_LIBRARY_PATH=/usr/local/nvidia/lib64", "NVIDIA_VISIBLE_DEVICES=" + c.uuid, "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "a tool of the driver",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("%s does not see %q:\n%s", name, want, strings.Join(got, "\n"))
			}
		}
		if slices.Contains(got, c.cannot) || slices.Contains(got, "made "+c.cannot) {
			t.Errorf("%s uses the GPU of the other one:\n%s", name, strings.Join(got, "\n"))
		}
	}
	refused := func(when string) {
		t.Helper()
		err := d.client.Create(t.Context(), gpu("c"))
		if !errors.Is(err, buoy.ErrConflict) || !strings.Contains(err.Error(), gpu0) || !strings.Contains(err.Error(), "is container a's") || !strings.Contains(err.Error(), "is container b's") {
			t.Errorf("%s: a third: %v", when, err)
		}
	}
	refused("at first")
	many := gpu("c")
	many.GPUs.Count = 3
	if err := d.client.Create(t.Context(), many); !errors.Is(err, buoy.ErrInvalid) || !strings.Contains(err.Error(), "3 GPUs wanted, and only 2 fit") {
		t.Errorf("more than there are: %v", err)
	}
	d.kill()
	d.start()
	refused("after a crash")
	if err := d.client.Stop(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	newer := gpu("c")
	newer.Env = []string{"NVIDIA_REQUIRE_CUDA=cuda>=13.0"}
	if err := d.client.Create(t.Context(), newer); err == nil || !strings.Contains(err.Error(), "the image asks for cuda>=13.0") {
		t.Errorf("an image for a newer driver: %v", err)
	}
	if err := d.client.Start(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}

	// The first one falls off the bus. Whoever had it is started on another as
	// soon as there is one.
	machine.rules("xid 1 79 0")
	d.await("a has lost its GPU", func() bool {
		c, err := d.client.Container(t.Context(), "a")
		return err == nil && c.State == "restarting" && c.Reason == "StartFailed" && len(c.GPUs) == 0
	})
	if c, err := d.client.Container(t.Context(), "a"); err != nil || !strings.Contains(c.Message, "1 GPU wanted") || !strings.Contains(c.Message, "is container b's") {
		t.Errorf("a: %s, %v", c.Message, err)
	}
	if got := d.holds("b"); got != gpu1 {
		t.Errorf("b has %q", got)
	}
	if err := d.client.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	d.await("a has the other GPU", func() bool { return d.holds("a") == gpu1 })
	d.awaitState("a", "running")
}

// TestCDI: a spec of the machine gives a container a device, files and a hook's
// work, to a read-only root and a root of nobody's too.
func TestCDI(t *testing.T) {
	specs, root := t.TempDir(), t.TempDir()
	if err := unix.Mknod(root+"/card", syscall.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		t.Fatal(err)
	}
	spec := `cdiVersion: 0.7.0
kind: buoy.test/card
containerEdits: {env: [CARD=yes]}
devices:
  - name: one
    containerEdits:
      deviceNodes: [{path: /dev/card0, hostPath: ` + root + `/card, fileMode: 0640, gid: 44}]
      mounts: [{hostPath: /etc/hostname, containerPath: /driver/name, options: [ro, nosuid]}]
      additionalGids: [44]
      hooks:
        - hookName: createContainer
          path: /bin/sh
          args: [sh, -c, 'read state; echo "$state" > ` + root + `/state || [ "$(cat /proc/self/uid_map | tr -s " ")" = " 0 1000000 65536" ]']
`
	if err := os.WriteFile(specs+"/card.yaml", []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(specs+"/broken.yaml", []byte("cdiVersion: 99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "--cdi-specs", specs)
	for name, change := range map[string]func(*buoy.CreateRequest){
		"plain":     func(*buoy.CreateRequest) {},
		"read-only": func(r *buoy.CreateRequest) { r.ReadOnly = true },
		"user":      func(r *buoy.CreateRequest) { r.User = "app" },
		"userns":    func(r *buoy.CreateRequest) { r.UserNS = true },
	} {
		r := sh(t, name, `stat -c '%t:%T %a %g' /dev/card0; : </dev/card0 && echo opened; wc -l </driver/name; echo $CARD; id -G | tr ' ' '\n' | grep -x 44`)
		r.Devices = []buoy.Device{{Path: "buoy.test/card=one"}}
		change(&r)
		d.create(r)
		d.awaitState(name, "halted")
		want := "a:e5 640 44\nopened\n1\nyes\n44\n"
		if r.UserNS { // it is the host's node
			want = strings.Replace(want, "640 44", "644 65534", 1)
		}
		if got := d.logs(name, buoy.LogOptions{}); got != want {
			t.Errorf("%s said %q, want %q", name, got, want)
		}
		if r.UserNS { // and so it is with a hook there
			continue
		}
		if state, err := os.ReadFile(root + "/state"); err != nil || !strings.Contains(string(state), `"id":"`+name+`"`) {
			t.Errorf("%s: the hook was told %s, %v", name, state, err)
		}
	}
	r := sh(t, "none", "true")
	r.Devices = []buoy.Device{{Path: "buoy.test/card=two"}}
	if err := d.client.Create(t.Context(), r); !errors.Is(err, buoy.ErrInvalid) || !strings.Contains(err.Error(), "of that kind there are one; CDI spec "+specs+"/broken.yaml: cdiVersion") {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestGPUsOfApps: replicas are placed where GPUs are free, and where one is lost
// there is one fewer.
func TestGPUsOfApps(t *testing.T) {
	machine := newCards(t)
	d := newDaemon(t, "--gpu-root", machine.root, "--report-interval", "1s")
	app := func(replicas int) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Worker
metadata: {name: vision}
spec:
  image: %s
  command: [sleep, "1000"]
  replicas: %d
  resources: {gpus: 1, gpu: {model: a100, memory: 40Gi}}
  termination: {terminationGracePeriodSeconds: 1}
`, image(t), replicas)
	}
	if _, err := d.client.ApplyApps(t.Context(), []byte(app(2))); err != nil {
		t.Fatal(err)
	}
	have := func() []string {
		list, err := d.client.Containers(t.Context())
		if err != nil {
			return nil
		}
		var uuids []string
		for _, c := range list {
			if c.State == "running" {
				uuids = append(uuids, d.holds(c.Name))
			}
		}
		slices.Sort(uuids)
		return uuids
	}
	d.await("each replica has a GPU", func() bool { return slices.Equal(have(), []string{gpu0, gpu1}) })
	fits := func(want string) {
		t.Helper()
		d.await("the host says "+want, func() bool {
			e, err := d.client.ExplainApp(t.Context(), "vision")
			return err == nil && len(e.Hosts) == 1 && !e.Hosts[0].Fits && strings.Contains(e.Hosts[0].Reason, want)
		})
	}
	fits("GPUs: 1 wanted, 0 free")
	hosts := func(want int) func() bool {
		return func() bool {
			all, err := d.client.Hosts(t.Context())
			return err == nil && len(all) == 1 && all[0].NumGPU == want
		}
	}
	d.await("the host has two", hosts(2))
	machine.rules("xid 1 79 0")
	d.await("the host has one", hosts(1))
}
