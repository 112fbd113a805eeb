package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/tlspin"
)

func authority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// serve answers with the URIs of the certificate that a client has shown.
func serve(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, chain := range r.TLS.VerifiedChains {
				fmt.Fprint(w, chain[0].URIs)
			}
		}),
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.ServeTLS(l, "", "") })
	t.Cleanup(func() {
		_ = s.Close()
		wg.Wait()
	})
	return "https://" + l.Addr().String()
}

func ask(cfg *tls.Config, url string) (string, error) {
	c := http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func pins(all ...string) *tls.Config { return tlspin.Config(func() []string { return all }) }

func none() []string { return nil }

func TestPinned(t *testing.T) {
	a, dir := authority(t)
	other, _ := authority(t)
	at := serve(t, a.Server(none))
	if _, err := ask(pins(other.Pin(), strings.ToUpper(a.Pin())), at); err != nil {
		t.Error(err)
	}
	if _, err := ask(pins(other.Pin()), at); err == nil || !strings.Contains(err.Error(), "somebody is in between") {
		t.Errorf("with another pin: %v", err)
	}
	if _, err := ask(pins(), at); err == nil || !strings.Contains(err.Error(), "of no authority that this machine trusts") {
		t.Errorf("without a pin: %v", err)
	}
	again, err := Open(dir)
	if err != nil || again.Pin() != a.Pin() {
		t.Errorf("the authority has not lasted: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if crt, err := os.ReadFile(filepath.Join(dir, "ca.crt")); err != nil || !bytes.Equal(crt, a.PEM()) || bytes.Contains(crt, []byte("PRIVATE")) {
		t.Errorf("%s, %v", crt, err)
	}
}

// Who trusts the authority itself is shown a name that he knows.
func TestNames(t *testing.T) {
	a, _ := authority(t)
	at := serve(t, a.Server(func() []string { return []string{"edge1", "127.0.0.1"} }))
	for name, ok := range map[string]bool{"": true, "edge1": true, "edge2": false} {
		_, err := ask(&tls.Config{RootCAs: a.Pool(), ServerName: name}, at)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestClocks(t *testing.T) {
	a, _ := authority(t)
	made := time.Now()
	at := serve(t, a.Server(none))
	for name, tt := range map[string]struct {
		clock time.Time // of the daemon
		ok    bool      // for a client whose clock is right
	}{
		"right":        {made, true},
		"a bit slow":   {made.Add(-10 * time.Minute), true},
		"1970":         {time.Unix(100, 0), true},
		"a year ahead": {made.AddDate(1, 0, 0), true},
	} {
		a.now = func() time.Time { return tt.clock }
		if _, err := ask(pins(a.Pin()), at); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRotation renews the certificate while it is used, before it expires.
func TestRotation(t *testing.T) {
	a, _ := authority(t)
	now := time.Now()
	a.now = func() time.Time { return now }
	cfg := a.Server(none)
	var last *x509.Certificate
	changes := 0
	for range 400 { // days
		c, err := cfg.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if left := c.Leaf.NotAfter.Sub(now); left < serverLife/3-24*time.Hour {
			t.Fatalf("a certificate with %v left is shown", left)
		}
		if last != nil && !last.Equal(c.Leaf) {
			changes++
		}
		last = c.Leaf
		now = now.Add(24 * time.Hour)
	}
	if changes < 5 || changes > 8 {
		t.Errorf("it was renewed %d times in 400 days", changes)
	}
}

func csr(t *testing.T) (request []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), key
}

func TestClient(t *testing.T) {
	a, _ := authority(t)
	at := serve(t, a.Server(none))
	name := &url.URL{Scheme: "buoy", Host: "caller", Path: "/x"}
	client := func(of *Authority, expires time.Time) *tls.Config {
		request, key := csr(t)
		text, err := of.Client(request, name, expires)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		cfg := pins(a.Pin())
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
		return cfg
	}
	if who, err := ask(client(a, time.Now().Add(time.Hour)), at); err != nil || who != "[buoy://caller/x]" {
		t.Errorf("%q, %v", who, err)
	}
	if who, err := ask(client(a, time.Now().Add(-time.Minute)), at); err == nil {
		t.Errorf("expired: %q", who)
	}
	stranger, _ := authority(t)
	if who, err := ask(client(stranger, time.Now().Add(time.Hour)), at); err == nil && who != "" { // a client need not show what the server has not asked for
		t.Errorf("of a stranger: %q", who)
	}
	// A client is no server.
	cfg := client(a, time.Now().Add(time.Hour))
	cfg.Certificates[0].Certificate = append(cfg.Certificates[0].Certificate, a.root.Raw)
	fake := serve(t, &tls.Config{Certificates: cfg.Certificates})
	if _, err := ask(pins(a.Pin()), fake); err == nil {
		t.Error("a client's certificate passes for the daemon's")
	}
	for what, text := range map[string][]byte{"nothing": nil, "text": []byte("x"), "a certificate": a.PEM(), "broken": []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")} {
		if _, err := a.Client(text, name, time.Now()); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestBrokenAuthority(t *testing.T) {
	_, dir := authority(t)
	file := filepath.Join(dir, "ca.key")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range [][]byte{nil, raw[:len(raw)/2], bytes.Replace(raw, []byte("PRIVATE KEY"), []byte("PUBLIC KEY"), 2)} {
		if err := os.WriteFile(file, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), file) {
			t.Errorf("%d bytes: %v", len(broken), err)
		}
	}
}
