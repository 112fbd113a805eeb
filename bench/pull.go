package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// puller pulls the big image as an OCI image, to where it could be started.
type puller struct {
	name string
	pull func(ctx context.Context) (time.Duration, error)
}

// pullers puts the big image into a registry behind a slow link, and says who
// can pull it from there.
func (l *lab) pullers(ctx context.Context) ([]puller, error) {
	layerFile := filepath.Join(l.bench.dir, "layer.tar")
	if out, err := exec.CommandContext(ctx, "tar", "-C", l.dir, "-cf", layerFile, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("tar: %w\n%s", err, out)
	}
	layer, err := tarball.LayerFromFile(layerFile, tarball.WithCompressionLevel(1))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	blobs := filepath.Join(l.bench.dir, "blobs")
	if err := os.Mkdir(blobs, 0o700); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs))))
	l.undo.Push(func() error {
		server.CloseClientConnections()
		server.Close()
		return os.Remove(layerFile)
	})
	near, err := name.NewTag(strings.TrimPrefix(server.URL, "http://")+"/big:1", name.Insecure)
	if err != nil {
		return nil, err
	}
	if err := remote.Write(near, image, remote.WithContext(ctx), remote.WithTransport(http.DefaultTransport)); err != nil {
		return nil, err
	}
	link, err := newSlowLink(ctx, strings.TrimPrefix(server.URL, "http://"), storeDelay)
	if err != nil {
		return nil, err
	}
	l.undo.Push(link.close)
	far := link.addr() + "/big:1"
	return []puller{
		{"OCI image, buoy", func(ctx context.Context) (time.Duration, error) { return l.ociStart(ctx, far) }},
		{"OCI image, podman pull alone", func(ctx context.Context) (time.Duration, error) {
			root := filepath.Join(l.bench.dir, "podman-pull")
			store := []string{"--root", root, "--runroot", root + "-run"}
			defer func() {
				_ = exec.CommandContext(context.WithoutCancel(ctx), "podman", append(store, "system", "reset", "--force")...).Run()
				_, _ = os.RemoveAll(root), os.RemoveAll(root+"-run") // the bench's directory goes in any case
			}()
			return timed(ctx, append(append([]string{"podman"}, store...), "pull", "--quiet", "--tls-verify=false", far))
		}},
		{"OCI image, skopeo and umoci", func(ctx context.Context) (time.Duration, error) {
			dir := filepath.Join(l.bench.dir, "umoci")
			defer os.RemoveAll(dir)
			copied, err := timed(ctx, []string{"skopeo", "copy", "--src-tls-verify=false", "docker://" + far, "oci:" + dir + ":1"})
			if err != nil {
				return 0, err
			}
			unpacked, err := timed(ctx, []string{"umoci", "unpack", "--image", dir + ":1", dir + "/bundle"})
			return copied + unpacked, err
		}},
	}, nil
}

// timed runs a program to its end.
func timed(ctx context.Context, args []string) (time.Duration, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, fmt.Errorf("%s is not installed", args[0])
	}
	begin := now()
	if out, err := exec.CommandContext(ctx, path, args[1:]...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return time.Duration(now() - begin), nil
}

// ociStart starts the image on a node that has nothing of it.
func (l *lab) ociStart(ctx context.Context, ref string) (took time.Duration, err error) {
	return l.onNode(ctx, func(i *instance) (time.Duration, error) {
		r := l.far("")
		r.Flist, r.Storage = ref, ""
		return i.firstStart(ctx, r)
	})
}
