package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// h2cClient speaks HTTP/2 without TLS.
func h2cClient(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// h2cBackend speaks HTTP/2 without TLS, and nothing else.
func h2cBackend(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan bool)
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// grpcEcho behaves as a gRPC server: each message comes back at once, the
// status is in a trailer.
func grpcEcho(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" {
		http.Error(w, "this is not gRPC", http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	if r.URL.Path == "/nothing" { // a stream whose first message comes late has its headers late
		<-r.Context().Done()
		return
	}
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		fmt.Fprint(w, line)
		w.(http.Flusher).Flush()
	}
	w.Header().Set("Grpc-Status", "0")
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
}

func TestGRPC(t *testing.T) {
	a := web(h2cBackend(t, grpcEcho))
	a.H2C = true
	p := begin(t, Config{}, just(a), nil)
	c := h2cClient(t)
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", p.url()+"/echo.Echo/Stream", pr)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	go fmt.Fprint(pw, "first\n")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/grpc" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	r := bufio.NewReader(resp.Body)
	for _, text := range []string{"first\n", "second\n", "third\n"} {
		if text != "first\n" {
			fmt.Fprint(pw, text)
		}
		if line, err := r.ReadString('\n'); err != nil || line != text {
			t.Fatalf("sent %q, got %q, %v", text, line, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
	if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	eventually(t, "it is over", func() bool { return p.Stats()["web"].Active == 0 })
	s := p.Stats()["web"]
	if s.Requests != 1 || s.Errors != 0 || s.BytesIn != 19 || s.BytesOut != 19 || s.Backends["b0"].BytesIn != 19 || s.Backends["b0"].Latency.Count() != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestGRPCClientThatLeaves(t *testing.T) {
	a := web(h2cBackend(t, grpcEcho))
	a.H2C = true
	p := begin(t, Config{}, just(a), nil)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "POST", p.url()+"/nothing", strings.NewReader("x\n"))
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	done := make(chan error, 1)
	c := h2cClient(t)
	go func() {
		resp, err := c.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	eventually(t, "it is under way", func() bool { return p.Stats()["web"].Backends["b0"].Active == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("an answer came")
	}
	eventually(t, "it is over", func() bool { return p.Stats()["web"].Active == 0 })
	if s := p.Stats()["web"]; s.Errors != 0 || s.Backends["b0"].Errors != 0 {
		t.Errorf("errors: %+v", s)
	}
}

// TestVersionsMeet has clients of each version ask backends of each.
func TestVersionsMeet(t *testing.T) {
	proto := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "T")
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Header.Get("X-Forwarded-Proto"), b)
		w.(http.Flusher).Flush() // a short answer has a length, and then no trailers in HTTP/1
		w.Header().Set("T", "u")
	}
	dir := t.TempDir()
	cert := newCert(t, dir, "a", "a.example")
	h1, h2 := web(backend(t, proto)), web(h2cBackend(t, proto))
	h1.Rules, h2.Rules = []Rule{{Path: "/1"}}, []Rule{{Path: "/2"}}
	h2.Name, h2.H2C = "web2", true
	p := begin(t, Config{HTTPS: []string{"127.0.0.1:0"}, CertFiles: []CertFile{cert.files}}, just(h1, h2), nil)
	secure := "https://" + p.Addrs().HTTPS[0].String()
	overTLS := func(h2 bool) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.pool, ServerName: "a.example"}, ForceAttemptHTTP2: h2}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	for _, c := range []struct {
		name, url, want string
		client          *http.Client
		proto           string
	}{
		{"1 to 1", p.url() + "/1", "HTTP/1.1 http x", fresh(t), "HTTP/1.1"},
		{"1 to 2", p.url() + "/2", "HTTP/2.0 http x", fresh(t), "HTTP/1.1"},
		{"2 to 1", p.url() + "/1", "HTTP/1.1 http x", h2cClient(t), "HTTP/2.0"},
		{"2 to 2", p.url() + "/2", "HTTP/2.0 http x", h2cClient(t), "HTTP/2.0"},
		{"TLS 1 to 1", secure + "/1", "HTTP/1.1 https x", overTLS(false), "HTTP/1.1"},
		{"TLS 2 to 1", secure + "/1", "HTTP/1.1 https x", overTLS(true), "HTTP/2.0"},
		{"TLS 2 to 2", secure + "/2", "HTTP/2.0 https x", overTLS(true), "HTTP/2.0"},
	} {
		for range 3 { // on the same connection
			resp, err := c.client.Post(c.url, "text/plain", strings.NewReader("x"))
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(b) != c.want || resp.Proto != c.proto || resp.Trailer.Get("T") != "u" {
				t.Errorf("%s: %s %q, %v, trailers %v", c.name, resp.Proto, b, err, resp.Trailer)
			}
		}
	}
}

// cert is a certificate in files, and who believes it.
type cert struct {
	files CertFile
	pool  *x509.CertPool
}

func newCert(t testing.TB, dir, file string, names ...string) cert {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := cert{files: CertFile{filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")}, pool: x509.NewCertPool()}
	for path, b := range map[string]*pem.Block{c.files.Cert: {Type: "CERTIFICATE", Bytes: der}, c.files.Key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.pool.AddCert(parsed)
	return c
}

func TestTLSFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := newCert(t, dir, "a", "a.example"), newCert(t, dir, "b", "b.example", "*.b.example")
	var log logged
	p := begin(t, Config{HTTPS: []string{"127.0.0.1:0"}, CertFiles: []CertFile{a.files, b.files}, Log: log.logger()}, nil, nil)
	shown := func(name string, pool *x509.CertPool) error {
		c, err := tls.Dial("tcp", p.Addrs().HTTPS[0].String(), &tls.Config{ServerName: name, RootCAs: pool})
		if err != nil {
			return err
		}
		return c.Close()
	}
	for name, pool := range map[string]*x509.CertPool{"a.example": a.pool, "b.example": b.pool, "x.b.example": b.pool} {
		if err := shown(name, pool); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, err := tls.Dial("tcp", p.Addrs().HTTPS[0].String(), &tls.Config{ServerName: "other.example", InsecureSkipVerify: true}); err != nil {
		t.Error(err)
	} else {
		if cn := c.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != "a.example" {
			t.Errorf("an unknown name is shown %s", cn)
		}
		c.Close()
	}
	later := func() { // the files are looked at again once a second
		p.certs.mu.Lock()
		p.certs.looked = time.Time{}
		p.certs.mu.Unlock()
	}
	anew := newCert(t, dir, "a", "a.example", "a2.example")
	later()
	if err := shown("a2.example", anew.pool); err != nil {
		t.Errorf("after a change: %v", err)
	}
	if err := os.WriteFile(a.files.Cert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		later()
		if err := shown("a2.example", anew.pool); err != nil {
			t.Errorf("while the files are wrong: %v", err)
		}
	}
	if n := strings.Count(log.String(), "certificates cannot be read"); n != 1 {
		t.Errorf("%d complaints: %s", n, log.String())
	}
	last := newCert(t, dir, "a", "a.example")
	later()
	if err := shown("a.example", last.pool); err != nil {
		t.Errorf("after they were mended: %v", err)
	}
	old, err := New(Config{HTTPS: []string{"127.0.0.1:0"}, CertFiles: []CertFile{{"/nowhere.crt", "/nowhere.key"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Run(t.Context()); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "/nowhere.crt") {
		t.Errorf("Run without files: %v", err)
	}
}

// TestCertificatesShown is for a listener of somebody else's.
func TestCertificatesShown(t *testing.T) {
	dir := t.TempDir()
	a, b := newCert(t, dir, "a", "a.example"), newCert(t, dir, "b", "b.example")
	shown, err := NewCertificates([]CertFile{a.files, b.files}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: shown.Shown})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	for name, want := range map[string]string{"a.example": "a.example", "b.example": "b.example", "other.example": "a.example"} {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if cn := c.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != want {
			t.Errorf("%s is shown %s, want %s", name, cn, want)
		}
		c.Close()
	}
	if err := os.WriteFile(b.files.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCertificates([]CertFile{b.files}, nil); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), b.files.Cert) {
		t.Errorf("with half a file: %v", err)
	}
}

func TestDoorThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := New(Config{HTTP: []string{"127.0.0.1:0", l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("Run: %v", err)
	}
}

func TestGRPCIsTriedElsewhere(t *testing.T) {
	a := web(dead(t), h2cBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	a.H2C = true
	p := begin(t, Config{}, just(a), nil)
	c := h2cClient(t)
	for range 4 {
		resp, err := c.Post(p.url(), "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(b) != "hello" {
			t.Errorf("%d %q, %v", resp.StatusCode, b, err)
		}
	}
}
