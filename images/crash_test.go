package images

import (
	"encoding/json"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

const crashEnv = "BUOY_IMAGES_CRASH" // DIR REF, for the child of TestKilledPull

// TestKilledPullChild is the process that is killed.
func TestKilledPullChild(t *testing.T) {
	dir, ref, ok := strings.Cut(os.Getenv(crashEnv), " ")
	if !ok {
		t.Skip("only for TestKilledPull")
	}
	s := openStore(t, dir)
	must(s.Pull(t.Context(), ref, nil))(t)
}

// TestKilledPull kills a pulling process at random moments: what has a name afterwards is whole, and the work is not lost.
func TestKilledPull(t *testing.T) {
	reg := newRegistry(t)
	const entries = 300
	var layers []map[string]string
	for l := range 3 {
		files := map[string]string{}
		for i := range entries {
			files["f"+strconv.Itoa(i)] = noise(1000 + l*1000 + i)
		}
		layers = append(layers, files)
	}
	ref := reg.push(t, "app:1", imageOf(t, layerOf(t, layers[0]), layerOf(t, layers[1]), layerOf(t, layers[2])))
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	dir, whole := t.TempDir(), 0
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledPullChild$")
		cmd.Env = append(os.Environ(), crashEnv+"="+dir+" "+ref, "TMPDIR="+t.TempDir()) // what it leaves when killed goes too
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(600)) * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		s := openStore(t, dir)
		for _, l := range s.layers {
			if n := len(must(os.ReadDir(filepath.Join(s.layersDir(), l.ID)))(t)); n != entries {
				t.Fatalf("layer %s has %d of %d entries", l.ID, n, entries)
			}
		}
		if img, err := s.Resolve(t.Context(), ref); err == nil {
			whole++
			if len(img.Layers) != 3 {
				t.Fatalf("image with layers %v", img.Layers)
			}
			if err := s.Remove(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			wantClean(t, s)
		}
	}
	t.Logf("%d of %d pulls were done before the kill", whole, rounds)
	s := openStore(t, dir)
	must(s.Pull(t.Context(), ref, nil))(t)
	wantClean(t, s)
}

// TestIdle: after a pull there is neither a goroutine nor a connection of ours.
func TestIdle(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"a": "b"})))
	s := openStore(t, t.TempDir())
	must(s.Pull(t.Context(), ref, nil))(t)
	remote.DefaultTransport.(*http.Transport).CloseIdleConnections() // of the push
	var text strings.Builder
	for range 100 {
		text.Reset()
		if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), "persistConn") && !strings.Contains(text.String(), "images.(*") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("left over:\n%s", text.String())
}

func TestUntrustedCertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	_, err := openStore(t, t.TempDir()).Pull(t.Context(), srv.Listener.Addr().String()+"/app", nil)
	wantErr(t, err, errs.Unavailable, "does not trust")
}

func TestAuthFilePlaces(t *testing.T) {
	env := map[string]string{"DOCKER_CONFIG": "/d", "HOME": "/h", "XDG_RUNTIME_DIR": "/r"}
	get := func(k string) string { return env[k] }
	paths, named := authPaths("", get)
	if want := "/d/config.json /h/.docker/config.json /r/containers/auth.json"; strings.Join(paths, " ") != want || named {
		t.Errorf("paths = %v, want %s", paths, want)
	}
	env["REGISTRY_AUTH_FILE"] = "/missing/auth.json"
	_, err := loadAuth("", get)
	wantErr(t, err, errs.Invalid, "/missing/auth.json")
	_, err = loadAuth(writeFile(t, filepath.Join(t.TempDir(), "x"), []byte("{")), get)
	wantErr(t, err, errs.Invalid)
}

// TestCredentialHelper runs a helper program as docker does.
func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nread s; [ \"$s\" = reg.example ] || { echo credentials not found in native keychain; exit 1; }\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o700); err != nil { //nolint:gosec // a program has to be executable
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	data := must(json.Marshal(map[string]any{"credHelpers": map[string]string{"reg.example": "test"}, "credsStore": "test"}))(t)
	a := must(loadAuth(writeFile(t, filepath.Join(dir, "config.json"), data), os.Getenv))(t)
	for ref, user := range map[string]string{"reg.example/a/b": "u", "other.example/a": ""} {
		login := must(a.login(t.Context(), must(ParseRef(ref))(t).reg.Context()))(t)
		if c := must(login.Authorization())(t); c.Username != user {
			t.Errorf("login for %s is %q, want %q", ref, c.Username, user)
		}
	}
}

// TestManyLayers: 120 layers fit into the one page that mount options have.
func TestManyLayers(t *testing.T) {
	testroot.Require(t)
	reg := newRegistry(t)
	src := imageOf(t)
	for i := range 120 {
		src = appendLayer(t, src, map[string]string{"n" + strconv.Itoa(i): ""})
	}
	s := openStore(t, t.TempDir())
	img := must(s.Pull(t.Context(), reg.push(t, "deep", src), nil))(t)
	at := t.TempDir()
	t.Chdir(img.Base)
	options := "lowerdir=" + strings.Join(img.Layers, ":")
	if len(options) > 2000 {
		t.Errorf("options have %d bytes", len(options))
	}
	if err := syscall.Mount("overlay", at, "overlay", syscall.MS_RDONLY, options); err != nil {
		t.Fatal(err)
	}
	n := len(must(os.ReadDir(at))(t))
	if err := syscall.Unmount(at, 0); err != nil {
		t.Error(err)
	}
	if n != 120 {
		t.Errorf("%d files, want 120", n)
	}
}
