package gpu

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// tree writes a machine's files below a new directory. A content "-> TARGET"
// makes a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	put(t, root, files)
	return root
}

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// pciCard is the files of a GPU at a place in the tree of PCI, as
// pci0000:3a/0000:3a:00.0/0000:3b:00.0.
func pciCard(place, ids, driver string, more map[string]string) map[string]string {
	address := filepath.Base(place)
	vendor, device, _ := strings.Cut(ids, ":")
	dir := "sys/devices/" + place + "/"
	files := map[string]string{
		"sys/bus/pci/devices/" + address: "-> ../../../devices/" + place,
		dir + "vendor":                   "0x" + vendor, dir + "device": "0x" + device, dir + "class": "0x030200", dir + "numa_node": "-1",
	}
	if driver != "" {
		files[dir+"driver"] = "-> " + strings.Repeat("../", strings.Count(dir, "/")-1) + "bus/pci/drivers/" + driver
	}
	for name, content := range more {
		files[dir+name] = content
	}
	return files
}

func join(all ...map[string]string) map[string]string {
	files := map[string]string{}
	for _, one := range all {
		maps.Copy(files, one)
	}
	return files
}

// twoA100 is a machine whose GPUs the NVIDIA driver has, as the fake library
// shows them.
func twoA100() map[string]string {
	return join(
		pciCard("pci0000:3a/0000:3a:00.0/0000:3b:00.0", "10de:20b0", "nvidia", map[string]string{"numa_node": "0", "drm/card1/dev": "", "drm/renderD128/dev": ""}),
		pciCard("pci0000:3a/0000:3a:01.0/0000:3c:00.0", "10de:20b0", "nvidia", map[string]string{"numa_node": "0"}),
		map[string]string{"sys/module/nvidia/version": "550.54.15", "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15"},
	)
}

const (
	gpu0 = "GPU-00000000-0000-0000-0000-000000000000"
	gpu1 = "GPU-00000001-0000-0000-0000-000000000000"
)

// buoyGPU builds the fake library, and buoy-gpu where make has not, once.
var buoyGPU = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "buoy-gpu"); err != nil {
		return "", err
	}
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-g -O2 -Wno-deprecated-declarations")
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out)), err
	}
	if bin := os.Getenv("BUOY_BIN"); bin != "" { // built already
		err = os.Symlink(filepath.Join(bin, "buoy-gpu"), filepath.Join(dir, "buoy-gpu"))
	} else {
		_, err = run("go", "build", "-ldflags", "-linkmode external -extldflags -Wl,-z,lazy", "-o", dir, "../cmd/buoy-gpu")
	}
	if err != nil {
		return dir, err
	}
	module, err := run("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml")
	if err != nil {
		return dir, err
	}
	for name, source := range map[string]string{"fake": "testdata/nvml.c", "empty": "/dev/null"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return dir, err
		}
		if _, err := run("cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-DNVML_NO_UNVERSIONED_FUNC_DEFS",
			"-I", filepath.Join(module, "pkg/nvml"), "-o", filepath.Join(dir, name, "libnvidia-ml.so.1"), "-x", "c", source); err != nil {
			return dir, err
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := buoyGPU(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// rig is an Inventory with the real buoy-gpu and a fake library.
type rig struct {
	*Inventory
	t     *testing.T
	root  string
	rules string
	told  chan Change
	fail  func() // ends Run
}

// newRig makes one of which Run is not called. The folder has the library.
func newRig(t *testing.T, folder string, files map[string]string, rules ...string) *rig {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("skipped: no C compiler to build buoy-gpu and the fake library with")
	}
	dir, err := buoyGPU()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, root: tree(t, files), told: make(chan Change, 100)}
	r.rules = filepath.Join(r.root, "rules")
	t.Setenv("FAKE_NVML", r.rules)
	t.Setenv("LD_LIBRARY_PATH", filepath.Join(dir, folder))
	r.set(rules...)
	r.Inventory = NewInventory(Config{Program: filepath.Join(dir, "buoy-gpu"), Root: r.root})
	r.pace = pace{
		tick: 50 * time.Millisecond, idle: 50 * time.Millisecond, settle: time.Millisecond, kernel: 5 * time.Second, first: 5 * time.Second, machine: 5 * time.Second,
		figures: 5 * time.Second, lost: 100 * time.Millisecond, pause: 10 * time.Millisecond, maxPause: 100 * time.Millisecond,
	}
	r.Tell(func(_ context.Context, c Change) { r.told <- c })
	return r
}

// set has the library behave so from now on.
func (r *rig) set(rules ...string) {
	r.t.Helper()
	next := r.rules + ".new"
	if err := os.WriteFile(next, []byte(strings.Join(rules, "\n")+"\n"), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(next, r.rules); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	r.fail = func() { cancel(); wg.Wait() }
	r.t.Cleanup(r.fail)
	select {
	case <-r.Ready():
	case <-time.After(30 * time.Second):
		r.t.Fatal("not ready")
	}
}

// await waits until the machine is so.
func (r *rig) await(what string, is func(Machine) bool) Machine {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for {
		changed := r.Changed()
		m := r.Machine()
		if is(m) {
			return m
		}
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("waited for %s; it is %+v", what, m)
		}
	}
}

// hear waits for a change.
func (r *rig) hear(kind ChangeKind, uuid string) Change {
	r.t.Helper()
	select {
	case c := <-r.told:
		if c.Kind != kind || c.Device.UUID != uuid {
			r.t.Fatalf("told %+v, want %v of %s", c, kind, uuid)
		}
		return c
	case <-time.After(20 * time.Second):
		r.t.Fatalf("not told %v of %s; it is %+v", kind, uuid, r.Machine())
	}
	return Change{}
}

// device is the one with that UUID.
func device(m Machine, uuid string) Device {
	if d := find(m.Devices, func(d Device) bool { return d.UUID == uuid }); d != nil {
		return *d
	}
	return Device{}
}
