package live

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestOwnGPU: the driver's own nvidia-smi in a container shows the GPU that the
// container was given and no other, on a machine of our own making.
func TestOwnGPU(t *testing.T) {
	machine := newCards(t)
	machine.write("usr/bin/nvidia-smi", "#!/bin/sh\necho \"GPU 0: A100 (UUID: $NVIDIA_VISIBLE_DEVICES)\"\n")
	if err := os.Chmod(filepath.Join(machine.root, "usr/bin/nvidia-smi"), 0o755); err != nil {
		t.Fatal(err)
	}
	seeOwn(t, newDaemon(t, "--gpu-root", machine.root), glibc(t, "/usr/bin/env"), 2)
}

// TestOwnGPUHardware is that on real GPUs; scripts/test-gpu runs it.
func TestOwnGPUHardware(t *testing.T) {
	if os.Getenv("BUOY_TEST_GPU") == "" {
		t.Skip("SKIPPED: needs an NVIDIA GPU with its driver, and BUOY_TEST_GPU=1 (make test-gpu sets it)")
	}
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		t.Fatal(err)
	}
	seeOwn(t, newDaemon(t), glibc(t, smi), 1)
}

// seeOwn gives each GPU of the node, at least so many, to a container of its own.
func seeOwn(t *testing.T, d *daemon, image string, least int) {
	t.Helper()
	all, err := d.client.GPUs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for i, g := range all.GPUs {
		if g.Vendor != "nvidia" || g.State != "ok" || g.MIG {
			t.Logf("left out: %s, %s %s", g.UUID, g.State, g.Message)
			continue
		}
		tried++
		name := fmt.Sprintf("own-%d", i)
		r := sh(t, name, "nvidia-smi -L; ls /dev")
		r.Flist, r.GPUs = image, &buoy.GPURequest{Devices: []string{g.UUID}}
		d.create(r)
		d.awaitState(name, "halted")
		said := d.logs(name, buoy.LogOptions{})
		t.Logf("%s:\n%s", g.UUID, said)
		if uuids := regexp.MustCompile(`UUID: (\S+)\)`).FindAllStringSubmatch(said, -1); len(uuids) != 1 || uuids[0][1] != g.UUID {
			t.Errorf("nvidia-smi shows %v, want %s", uuids, g.UUID)
		}
		nodes := regexp.MustCompile(`(?m)^nvidia[0-9]+$`).FindAllString(said, -1)
		if len(nodes) != 1 || !slices.Contains(g.Nodes, nodes[0]) {
			t.Errorf("there are the nodes %v, want the one of %v", nodes, g.Nodes)
		}
	}
	if tried < least {
		t.Errorf("%d GPUs were tried", tried)
	}
}

// glibc is busybox's image with the C library, and what else a program of this
// machine is linked with.
func glibc(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-a", image(t)+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the image: %v\n%s", err, out)
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", program, err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if !filepath.IsAbs(word) {
			continue
		}
		to := filepath.Join(dir, word)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-L", word, to).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", word, err, out)
		}
	}
	return dir
}
