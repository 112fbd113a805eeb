package images

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/buoy-edge/buoy/internal/errs"
)

// startDistribution runs Debian's docker-registry with an empty store; users is a line of htpasswd or "".
func startDistribution(t *testing.T, users string) (host string) {
	t.Helper()
	bin := os.Getenv("BUOY_DOCKER_REGISTRY")
	if bin == "" {
		var err error
		if bin, err = exec.LookPath("docker-registry"); err != nil {
			t.Skip("SKIPPED: no docker-registry in PATH and BUOY_DOCKER_REGISTRY is not set")
		}
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	host = l.Addr().String()
	if err := l.Close(); err != nil { // the program has no way to take a socket over
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, host)
	if users != "" {
		conf += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", writeFile(t, filepath.Join(dir, "htpasswd"), []byte(users+"\n")))
	}
	cmd := exec.Command(bin, "serve", writeFile(t, filepath.Join(dir, "config.yml"), []byte(conf)))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // the same
	})
	for range 200 {
		resp, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return host
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

func TestDistribution(t *testing.T) {
	// htpasswd -B: password "secret".
	const line = "me:$2a$05$2SUnpkJ/l0Y134E03wrqS.gnY6kXnPMH3MALXDPj3ACV.57ti1q1y"
	for mode, users := range map[string]string{"open": "", "htpasswd": line} {
		t.Run(mode, func(t *testing.T) {
			host := startDistribution(t, users)
			ref := host + "/team/app:1"
			src := imageOf(t, layerOf(t, map[string]string{"big": noise(2 << 20)}), layerOf(t, map[string]string{"v": "1"}))
			if err := remote.Write(must(name.ParseReference(ref))(t), src, remote.WithAuth(&authn.Basic{Username: "me", Password: "secret"})); err != nil {
				t.Fatal(err)
			}
			change := func(*Config) {}
			if users != "" {
				_, err := openStore(t, t.TempDir()).Pull(t.Context(), ref, nil)
				wantErr(t, err, errs.Invalid, "wants a login")
				change = logins(t, host, "secret")
				testLogin(t, host, ref)
			}
			s := openStore(t, t.TempDir(), change)
			blob := layerDigests(t, src)[0]
			half := must(must(src.Layers())(t)[0].Compressed())(t)
			data := make([]byte, 1<<20)
			if _, err := half.Read(data[:1]); err != nil {
				t.Fatal(err)
			}
			n := must(half.Read(data[1:]))(t)
			writeFile(t, s.partFile(blob), data[:1+n]) // resumed by a real registry's Range
			img, err := s.Pull(t.Context(), ref, nil)
			if err != nil || len(contentOf(t, img, "big")) != 2<<20 || img.Digest != must(src.Digest())(t).String() {
				t.Fatalf("Pull: %v", err)
			}
			pinned := must(s.Pull(t.Context(), host+"/team/app@"+img.Digest, nil))(t)
			if pinned.Digest != img.Digest {
				t.Errorf("pinned = %s", pinned.Digest)
			}
			_, err = s.Pull(t.Context(), host+"/team/none:1", nil)
			wantErr(t, err, errs.NotFound, "team/none")
			wantClean(t, s)
		})
	}
}
