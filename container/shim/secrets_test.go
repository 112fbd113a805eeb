//go:build linux && cgo

package shim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// Secrets are files in memory that the container's user alone may read, and are
// nowhere else: not on the disk, and not in our mount namespace.
func TestSecretFiles(t *testing.T) {
	n := startNode(t)
	_ = os.Chmod(filepath.Dir(n.dir), 0o711)
	_ = os.Chmod(n.run, 0o711)
	const marker = "s3cr3t-marker"
	script := `stat -c "%a %u:%g" /run/secrets/a /etc/b; cat /run/secrets/a /etc/b; echo x 2>/dev/null >/run/secrets/a || echo kept; grep -c " /run/secrets/a ro,.*- tmpfs" /proc/self/mountinfo; ls /run/secrets; exec sleep 1000`
	_ = os.Symlink("busybox", n.root+"/bin/grep")
	for name, change := range map[string]func(r *shimapi.RunRequest){
		"user":      func(r *shimapi.RunRequest) { r.User = "alice" },
		"read-only": func(r *shimapi.RunRequest) { r.User, r.Rootfs.Upper, r.Rootfs.Work = "alice", "", "" },
		"userns": func(r *shimapi.RunRequest) {
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			r.User, r.Spec.Linux.UIDMappings, r.Spec.Linux.GIDMappings = "alice", ids, ids
			r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		},
	} {
		r := n.request("s-"+name, "sh", "-c", script)
		r.Secrets = []shimapi.Secret{{Path: "/run/secrets/a", Data: []byte(marker + "\n")}, {Path: "/etc/b", Data: []byte("b" + marker + "\n")}}
		change(&r)
		n.mustRun(r)
		want := fmt.Sprintf("400 1000:1001 400 1000:1001 %s b%s kept 1 a", marker, marker)
		said := func() string {
			return strings.Join(strings.Fields(strings.ReplaceAll(n.output(r.Log.Path), "stdout F ", "")), " ")
		}
		n.until(name+" has read its secrets", func() bool { return strings.HasSuffix(said(), " a") })
		if said() != want {
			t.Errorf("%s: %q, want %q", name, said(), want)
		}
		h := n.awaitShim()
		mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.PID))
		if err != nil || strings.Contains(string(mounts), r.ID) {
			t.Errorf("%s: the shim has %s, %v", name, mounts, err)
		}
		if err := os.Remove(r.Log.Path); err != nil { // it was told on purpose
			t.Fatal(err)
		}
	}
	found, err := runProgram("grep", "-rl", "--devices=skip", marker, n.dir)
	if found != "" {
		t.Errorf("it is in %s, %v", found, err)
	}
	// What cannot be started leaves nothing.
	r := n.request("s-bad", "true")
	r.User, r.Secrets = "nobody-knows", []shimapi.Secret{{Path: "/run/a", Data: []byte(marker)}}
	if _, err := n.Run(n.Context(), r); err == nil {
		t.Error("started for a user that is not there")
	}
	if left, err := os.ReadDir(filepath.Join(n.run, "shim", r.ID)); err == nil {
		t.Errorf("it left %v", left)
	}
}
