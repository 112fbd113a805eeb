package live

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestExport takes the file system of a container to an image that runs as the container did.
func TestExport(t *testing.T) {
	for name, userns := range map[string]bool{"plain": false, "userns": true} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			host := t.TempDir()
			if err := os.WriteFile(filepath.Join(host, "secret"), []byte("of the host"), 0o644); err != nil {
				t.Fatal(err)
			}
			r := sh(t, "box", `echo new > /made; mkdir /dir; echo x > /dir/file; chown 1000:1000 /dir/file; ln /dir/file /dir/again; ln -s /made /link; mkdir -p /tmp; rm -rf /www; echo ready; sleep 1000`)
			r.UserNS = userns
			r.Mounts = []buoy.Mount{{Type: "bind", Source: host, Target: "/mnt"}}
			d.create(r)
			d.await("it is ready", func() bool { return strings.Contains(d.logs("box", buoy.LogOptions{}), "ready") })
			dir := t.TempDir()
			if out, err := d.buoyIn(dir, "", "export", "box", "-o", "box.tar"); err != nil {
				t.Fatalf("export: %v, %s", err, out)
			}
			f, err := os.Open(filepath.Join(dir, "box.tar"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			names := map[string]*tar.Header{}
			for r := tar.NewReader(f); ; {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names[strings.TrimSuffix(h.Name, "/")] = h
			}
			for _, absent := range []string{"www", "www/hello", "mnt/secret", "proc/1", "sys/kernel", "dev/null"} {
				if names[absent] != nil {
					t.Errorf("%s is in the archive", absent)
				}
			}
			for name, id := range map[string]int{"made": 0, "dir/file": 1000, "bin": 0, "mnt": -1, "proc": -1, "etc/hosts": -1} {
				if h := names[name]; h == nil || id >= 0 && h.Uid != id {
					t.Errorf("%s: %+v, want owner %d", name, h, id)
				}
			}
			if h := names["etc/hosts"]; h != nil && h.Size != 0 {
				t.Errorf("etc/hosts has %d bytes", h.Size)
			}
			if out, err := d.buoyIn(dir, "", "import", "box.tar", "team/box:1"); err != nil || strings.TrimSpace(out) != "docker.io/team/box:1" {
				t.Fatalf("import: %v, %s", err, out)
			}
			out, err := d.buoyIn(dir, "", "run", "--rm", "--pull", "never", "team/box:1", "/bin/sh", "-c", "cat /made /dir/again /link; stat -c %u:%h /dir/file; ls /www")
			if err == nil || !strings.Contains(out, "new\nx\nnew\n1000:2\n") {
				t.Errorf("run: %v, %q", err, out)
			}
			if out, err := d.buoyIn(dir, "", "stop", "box"); err != nil {
				t.Fatalf("stop: %v, %s", err, out)
			}
			if out, err := d.buoyIn(dir, "", "export", "box", "-o", "none.tar"); err == nil || !strings.Contains(out, "is halted, not running") {
				t.Errorf("export of a halted one: %v, %s", err, out)
			}
		})
	}
}
