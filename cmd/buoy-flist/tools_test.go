package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/buoy-edge/buoy/internal/testroot"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"buoy-flist": main})
}

// TestScripts runs the programs in testdata. $MINI is the genuine fixture, $WEB serves it, and "image DIR" makes an OCI layout
// of two layers.
func TestScripts(t *testing.T) {
	mini, err := filepath.Abs("../../flist/testdata/mini")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := http.Server{Handler: http.FileServer(http.Dir(mini)), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(listener) // until it is closed
	}()
	t.Cleanup(func() {
		_ = web.Close() // nobody listens to what it says
		<-done
	})
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MINI", mini)
			env.Setenv("WEB", "http://"+listener.Addr().String())
			env.Setenv("TMPDIR", env.WorkDir+"/.tmp")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Getenv(testroot.Env) != "" && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"image": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(makeImage(ts.MkAbs(args[0]))) },
		},
	})
}

// makeImage writes an OCI layout: a layer with files, and one above it that changes and removes some.
func makeImage(dir string) error {
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(kind string, content []byte) map[string]any {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		if err := os.WriteFile(filepath.Join(blobs, digest), content, 0o644); err != nil {
			panic(err)
		}
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(content)}
	}
	object := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return b
	}
	var layers, ids []any
	for _, files := range [][]string{
		{"bin/", "bin/app=old", "bin/tool=tool", "etc/", "etc/gone=x", "dir/", "dir/hidden=x"},
		{"bin/app=new", "etc/.wh.gone=", "dir/", "dir/.wh..wh..opq=", "dir/shown=y"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, f := range files {
			name, content, isFile := strings.Cut(f, "=")
			h := tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1_600_000_000, 0), Uid: 7, Gid: 8}
			if isFile {
				h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
			}
			if err := w.WriteHeader(&h); err != nil {
				return err
			}
			if _, err := w.Write([]byte(content)); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		layers = append(layers, put("layer.v1.tar", b.Bytes()))
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes())))
	}
	config := put("config.v1+json", object(map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		"config": map[string]any{
			"Env": []string{"PATH=/bin", "B=2"}, "Entrypoint": []string{"/bin/app"}, "Cmd": []string{"--serve"}, "WorkingDir": "/dir", "User": "7:8",
			"StopSignal": "SIGINT", "Volumes": map[string]any{"/data": map[string]any{}}, "ExposedPorts": map[string]any{"80/tcp": map[string]any{}},
			"Labels": map[string]string{"k": "v"},
		},
	}))
	manifest := put("manifest.v1+json", object(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
	}))
	index := object(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}
