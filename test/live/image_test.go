package live

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// startRegistry serves a registry on loopback: Debian's docker-registry where
// it is, else one in this process.
func startRegistry(t *testing.T) (host string) {
	t.Helper()
	program := os.Getenv("BUOY_DOCKER_REGISTRY")
	if program == "" {
		t.Log("docker-registry is not there (BUOY_DOCKER_REGISTRY): a registry in this process stands in")
		s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	host = freeAddr(t)
	config := filepath.Join(t.TempDir(), "config.yml")
	text := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\nlog: {level: error}\n", t.TempDir(), host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return host
}

// layerOf is a layer with these files; a name that ends in a slash is a directory.
func layerOf(t *testing.T, files map[string]string) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for path, text := range files {
		h := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(path, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := errors.Join(w.WriteHeader(h), write(w, text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// TestImageFromRegistry pulls an image of two layers from a real registry and
// runs it the way its configuration says.
func TestImageFromRegistry(t *testing.T) {
	d := newDaemon(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image,
		layerOf(t, map[string]string{
			"bin/busybox": string(busybox), "etc/passwd": "app:x:1000:1000::/home/app:/bin/sh\n", "gone": "x", "var/lib/app/seed": "from the image",
		}),
		layerOf(t, map[string]string{".wh.gone": "", "etc/motd": "second layer\n"}))
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{
		Entrypoint: []string{"/bin/busybox", "sh", "-c"},
		Cmd:        []string{`echo "$GREETING $(/bin/busybox id -u) $PWD $HOME"; /bin/busybox cat /etc/motd /var/lib/app/seed; /bin/busybox ls /gone; trap "exit 3" USR1; while :; do /bin/busybox sleep 0.05; done`},
		Env:        []string{"GREETING=hello", "PATH=/bin"}, User: "app", WorkingDir: "/var", StopSignal: "SIGUSR1",
		Volumes: map[string]struct{}{"/var/lib/app": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(startRegistry(t)+"/team/app:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	d.await("the registry takes the image", func() bool { return remote.Write(ref, img) == nil })

	d.create(buoy.CreateRequest{Name: "app", Flist: ref.String()})
	want := "hello 1000 /var /home/app\nsecond layer\nfrom the image"
	d.await("it has said what it sees", func() bool {
		return strings.HasPrefix(d.logs("app", buoy.LogOptions{Stream: "stdout"}), want) && strings.Contains(d.logs("app", buoy.LogOptions{Stream: "stderr"}), "/gone: No such file")
	})
	if err := d.client.Stop(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if c := d.awaitState("app", "halted"); c.ExitCode == nil || *c.ExitCode != 3 {
		t.Errorf("stopped with exit code %v; want 3, which the image's stop signal gives", c.ExitCode)
	}
	images, err := d.client.Images(t.Context())
	if err != nil || len(images) != 1 {
		t.Errorf("images = %+v, %v; want the one", images, err)
	}
}

// TestFullDisk: what does not fit is refused in a sentence and leaves nothing,
// and what fits still runs.
func TestFullDisk(t *testing.T) {
	d := newInstance(t)
	if err := os.MkdirAll(d.data(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", d.data(), "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.data(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.start()
	big := filepath.Join(t.TempDir(), "big.tar")
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("cd %s && head -c 40000000 /dev/urandom > blob && tar cf %s blob && rm blob", filepath.Dir(big), big)).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	err := d.client.Create(t.Context(), buoy.CreateRequest{Name: "big", Flist: big})
	if !errors.Is(err, buoy.ErrUnavailable) || !strings.Contains(err.Error(), "are free") {
		t.Errorf("create of what does not fit: %v", err)
	}
	if list := d.list(); len(list) != 0 {
		t.Errorf("it left %+v", list)
	}
	d.create(sh(t, "small", "echo fits"))
	d.await("the small one runs", func() bool { return d.logs("small", buoy.LogOptions{}) == "fits\n" })
}
