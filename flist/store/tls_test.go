package store

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// TestTLS: with the authority that signed, and never without.
func TestTLS(t *testing.T) {
	testleak.Check(t)
	m := makeChunk(chunk.GCM, 1, 1000)
	who := signer{key: "k", secret: "s", region: "us-east-1"}
	plain := newShelf(t, []made{m})
	web := httptest.NewTLSServer(plain.Config.Handler)
	defer web.Close()
	bucket := smallS3(t, who)
	s3 := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { bucket.Config.Handler.ServeHTTP(w, r) }))
	defer s3.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())

	urls := map[string]string{
		"https": web.URL,
		"buoy":  "buoy+" + web.URL + "/nodes/a",
		"s3s":   "s3s://k:s@" + s3.Listener.Addr().String() + "/chunks",
		"tls":   "s3+tls://k:s@" + s3.Listener.Addr().String() + "/chunks",
	}
	w := mustWrite(t, urls["s3s"], Options{RootCAs: roots})
	if err := w.Put(t.Context(), m.ref.ID, m.stored); err != nil {
		t.Fatal(err)
	}
	t.Run("rediss", func(t *testing.T) { // the certificate of httptest serves redis as well
		dir := t.TempDir()
		key, err := x509.MarshalPKCS8PrivateKey(web.TLS.Certificates[0].PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{
			"cert": {Type: "CERTIFICATE", Bytes: web.Certificate().Raw}, "key": {Type: "PRIVATE KEY", Bytes: key},
		} {
			if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := port(t)
		s := run(t, &server{addr: "127.0.0.1:" + p, args: []string{
			program(t, "redis-server"), "--port", "0", "--tls-port", p, "--bind", "127.0.0.1", "--save", "", "--tls-auth-clients", "no",
			"--tls-cert-file", filepath.Join(dir, "cert"), "--tls-key-file", filepath.Join(dir, "key"), "--tls-ca-cert-file", filepath.Join(dir, "cert"),
		}})
		checkTLS(t, "rediss://"+s.addr, roots, m)
	})
	for name, url := range urls {
		t.Run(name, func(t *testing.T) { checkTLS(t, url, roots, m) })
	}
}

func checkTLS(t *testing.T, url string, roots *x509.CertPool, m made) {
	t.Helper()
	if w, err := Write(url, Options{RootCAs: roots}); err == nil {
		if err := errors.Join(w.Put(t.Context(), m.ref.ID, m.stored), w.Close()); err != nil {
			t.Error(err)
		}
	}
	for _, trusted := range []bool{true, false} {
		opt := Options{}
		if trusted {
			opt.RootCAs = roots
		}
		s, err := Open(url, opt)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Get(t.Context(), m.ref.ID)
		if trusted && (err != nil || string(b) != string(m.stored)) || !trusted && !errors.Is(err, errs.Unavailable) {
			t.Errorf("trusted %v: %d bytes, %v", trusted, len(b), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
