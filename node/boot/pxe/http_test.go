package pxe

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// served is a server without its sockets.
func served(t *testing.T, edit func(*Config)) (*Server, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	cfg := Config{Link: "eth1", Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	put(t, cfg.Dir, "amd64/vmlinuz", "a kernel")
	put(t, cfg.Dir, "amd64/initrd.img", "an initramfs")
	put(t, cfg.Dir, "ipxe/undionly.kpxe", "iPXE")
	put(t, cfg.Dir, "secret", "hush")
	if edit != nil {
		edit(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.link = link{name: "eth1", addr: netip.MustParsePrefix("10.9.0.1/24"), mtu: 1500}
	return s, &log
}

func get(t *testing.T, h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
	r.RemoteAddr = "10.9.0.57:1234"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHTTP(t *testing.T) {
	list := filepath.Join(t.TempDir(), "machines")
	if err := os.WriteFile(list, []byte("525400aabb07 rack=7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, log := served(t, func(c *Config) { c.Machines, c.Params, c.Token = list, []string{"quiet"}, "hush" })
	h := s.handler()
	for _, c := range []struct {
		target string
		status int
		text   string // is in the answer
	}{
		{"/amd64/vmlinuz", 200, "a kernel"},
		{"/amd64/initrd.img", 200, "an initramfs"},
		{"/undionly.kpxe", 200, "iPXE"},
		{"/boot.ipxe", 200, "chain boot.ipxe?mac=${netX/mac:hexraw}&arch=${buildarch}"},
		{"/boot.ipxe?mac=525400aabb07&arch=i386", 200, "/amd64/vmlinuz initrd=secret.img initrd=initrd.img BOOTIF=01-52-54-00-aa-bb-07 quiet rack=7 "},
		{"/boot.ipxe?mac=52:54:00:AA:BB:07&arch=arm64", 200, "/arm64/vmlinuz"},

		{"/boot.ipxe?mac=525400aabb08&arch=i386", 404, "not listed"},
		{"/boot.ipxe?mac=${net0/mac:hexraw}&arch=i386", 400, "mac is not"},
		{"/boot.ipxe?mac=525400aabb07&arch=${buildarch}", 400, "arch is none"},
		{"/boot.ipxe?mac=525400aabb07", 400, "arch is none"},
		{"/boot.ipxe?arch=i386", 400, "mac is not"},
		{"/secret.img?mac=525400aabb07", 403, "to a machine that boots"},
		{"/secret.img", 400, "mac is not"},
		{"/secret", 404, "no such file"},
		{"/", 404, "no such file"},
		{"/amd64/", 404, "no such file"},
		{"/arm64/vmlinuz", 404, "no such file"},
	} {
		w := get(t, h, c.target)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %s, want %d and %s", c.target, w.Code, w.Body, c.status, c.text)
		}
		if strings.Contains(w.Body.String(), "hush") {
			t.Errorf("%s tells the secret: %s", c.target, w.Body)
		}
	}
	// What a ServeMux would clean.
	for _, target := range []string{"/amd64/../secret", "//etc/passwd", "/../../../etc/passwd", "/amd64/%2e%2e/secret"} {
		if w := get(t, h, target); w.Code == 200 || strings.Contains(w.Body.String(), "hush") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if w := get(t, h, "/amd64/vmlinuz", "Range", "bytes=2-"); w.Code != 206 || w.Body.String() != "kernel" {
		t.Errorf("a part: %d %s", w.Code, w.Body)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/amd64/vmlinuz", strings.NewReader("mine"))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", w.Code)
	}
	if strings.Contains(log.String(), "hush") || !strings.Contains(log.String(), "refused the join token") {
		t.Errorf("the log: %s", log)
	}
}

// TestHTTPForOne has a machine that wants more at once than there is for one.
func TestHTTPForOne(t *testing.T) {
	s, _ := served(t, nil)
	h := s.handler()
	put(t, s.cfg.Dir, "arm64/initrd.img", strings.Repeat("x", 1<<20))
	var wg sync.WaitGroup
	began, goOn := make(chan bool), make(chan bool)
	for i := range perClient {
		wg.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/arm64/initrd.img", nil)
			r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr("10.9.0.57"), uint16(2000+i)).String()
			h.ServeHTTP(&slow{httptest.NewRecorder(), began, goOn}, r)
		})
		<-began
	}
	if w := get(t, h, "/amd64/vmlinuz"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	if w := get(t, h, "/boot.ipxe"); w.Code != http.StatusOK {
		t.Errorf("a script: %d %s", w.Code, w.Body)
	}
	close(goOn)
	wg.Wait()
	if w := get(t, h, "/amd64/vmlinuz"); w.Code != http.StatusOK {
		t.Errorf("when there is room: %d %s", w.Code, w.Body)
	}
}

// slow is a client that reads only when it is told to.
type slow struct {
	*httptest.ResponseRecorder
	began, goOn chan bool
}

func (w *slow) WriteHeader(status int) {
	w.began <- true
	<-w.goOn
	w.ResponseRecorder.WriteHeader(status)
}

func TestSecretWithoutToken(t *testing.T) {
	s, _ := served(t, nil)
	s.arrivals.note(ship, ipxe, true, time.Now())
	if w := get(t, s.handler(), "/secret.img?mac=525400aabb07"); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(t, s.handler(), "/boot.ipxe?mac=525400aabb07&arch=i386"); strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%s", w.Body)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no link":       {Dir: "/boot"},
		"no files":      {Link: "eth1"},
		"no leases":     {Link: "eth1", Dir: "/boot", Lease: netip.MustParsePrefix("10.9.0.0/24")},
		"no parameter":  {Link: "eth1", Dir: "/boot", Params: []string{"a b"}},
		"no such list":  {Link: "eth1", Dir: "/boot", Machines: "/nonexistent/machines"},
		"a script's":    {Link: "eth1", Dir: "/boot", Params: []string{"a=${hostname}"}},
		"nothing there": {Link: "eth1", Dir: "/boot", Params: []string{""}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
