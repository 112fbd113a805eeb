package live

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestPullShown: a pull shows at a terminal how much has come of how much, and how fast.
func TestPullShown(t *testing.T) {
	blobs := map[string][]byte{}
	blob := func(data []byte) map[string]any {
		sum := sha256.Sum256(data)
		digest := "sha256:" + hex.EncodeToString(sum[:])
		blobs[digest] = data
		return map[string]any{"digest": digest, "size": len(data)}
	}
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	noise := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	if err := archive.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: int64(len(noise))}); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Write(noise); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	whole := blob(layer.Bytes())
	whole["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
	text := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	config := blob(text(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []any{whole["digest"]}},
	}))
	config["mediaType"] = "application/vnd.oci.image.config.v1+json"
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest := text(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []any{whole}})
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, digest, _ := strings.Cut(r.URL.Path, "/blobs/")
		data := blobs[digest]
		if strings.Contains(r.URL.Path, "/manifests/") {
			data = manifest
			w.Header().Set("Content-Type", manifestType)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Method == http.MethodHead {
			return
		}
		for len(data) > 0 { // so slowly that somebody can look on
			n := min(len(data), 64<<10)
			if _, err := w.Write(data[:n]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			if data = data[n:]; len(data) > 0 {
				time.Sleep(30 * time.Millisecond)
			}
		}
	}))
	defer registry.Close()
	d := newDaemon(t)
	ref := registry.Listener.Addr().String() + "/noise:1"
	p := d.sitDown("pull", ref)
	p.until("pulling " + ref + ": [")
	p.until("] 3.")
	p.until(" MiB of 4.0 MiB, ")
	p.until("iB/s, ")
	<-p.exited
	p.until(ref + "\r\n")
	if !strings.HasSuffix(p.sees.String(), "\r\x1b[K"+ref+"\r\n") {
		t.Errorf("the screen ends in %q", p.sees.String())
	}
	for line := range strings.SplitSeq(p.sees.String(), "\r") {
		if text := strings.TrimPrefix(line, "\x1b[K"); len(text) >= 100 {
			t.Errorf("wider than the terminal: %q", text)
		}
	}
}
