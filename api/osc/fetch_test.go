package osc

import (
	"compress/gzip"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// TestFetch asks real servers for good and for bad things.
func TestFetch(t *testing.T) {
	testleak.Check(t)
	big := strings.Repeat(" ", 1<<20)
	mux := http.NewServeMux()
	web := httptest.NewServer(mux)
	defer web.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	port := web.Listener.Addr().(*net.TCPAddr).Port
	hang := make(chan struct{})
	defer close(hang)
	redirect := func(path, to string) { mux.Handle("GET "+path, http.RedirectHandler(to, http.StatusFound)) }
	mux.HandleFunc("GET /ok", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"accept":%q,"cookie":%q}`, r.Header.Get("Accept"), r.Header.Get("Referer"))
	})
	mux.HandleFunc("GET /exact", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(big)) })
	mux.HandleFunc("GET /large", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(big + " ")) })
	mux.HandleFunc("GET /bomb", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for range 64 {
			if _, err := z.Write([]byte(big)); err != nil {
				return
			}
		}
		_ = z.Close()
	})
	mux.HandleFunc("GET /error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "a secret", http.StatusTeapot) })
	mux.HandleFunc("GET /silent", func(w http.ResponseWriter, r *http.Request) { <-hang })
	mux.HandleFunc("GET /drip", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("{"))
		_ = http.NewResponseController(w).Flush()
		<-hang
	})
	mux.HandleFunc("GET /cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("{}"))
	})
	redirect("/r1", "/ok")
	redirect("/r2", "/r1")
	redirect("/r3", "/r2")
	redirect("/r4", "/r3")
	redirect("/loop", "/loop")
	redirect("/file", "file:///etc/passwd")
	redirect("/credentials", "http://u:p@example.org/")
	redirect("/other", fmt.Sprintf("http://127.0.0.2:%d/ok", port))
	redirect("/zero", fmt.Sprintf("http://0.0.0.0:%d/ok", port))
	redirect("/name", fmt.Sprintf("http://localhost:%d/ok", port))
	redirect("/down", web.URL+"/ok")
	mux.HandleFunc("GET /nowhere", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusFound) })

	fetch := func(text string, allow ...netip.Prefix) ([]byte, error) {
		d, err := New(Config{Engine: &app.Engine{}, Allow: allow})
		if err != nil {
			t.Fatal(err)
		}
		transport := d.fetcher.Transport.(*http.Transport)
		transport.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
		d.fetcher.Timeout = 300 * time.Millisecond
		if !strings.Contains(text, "silent") && !strings.Contains(text, "drip") {
			d.fetcher.Timeout = time.Minute // whatever the machine is busy with
		}
		r := httptest.NewRequest("POST", "/osc/register/fetch", nil)
		r.Header.Set("ocl", text)
		return d.fetch(r)
	}
	one := netip.MustParsePrefix("127.0.0.1/32")
	for _, tt := range []struct {
		path   string
		status int // 0: it works
		want   string
	}{
		{"/ok", 0, `{"accept":"application/json"`},
		{"/r1", 0, "accept"},
		{"/r2", 0, "accept"},
		{"/r3", 0, "accept"},
		{"/r4", 502, "redirects more than 3 times"},
		{"/loop", 502, "redirects more than 3 times"},
		{"/exact", 0, " "},
		{"/large", 413, "larger than 1048576 bytes"},
		{"/bomb", 413, "larger than 1048576 bytes"},
		{"/error", 502, "the answer is 418"},
		{"/none", 502, "the answer is 404 Not Found"},
		{"/silent", 504, "nothing has come within"},
		{"/drip", 504, "nothing has come within"},
		{"/cut", 502, "unexpected EOF"},
		{"/nowhere", 502, "302"},
		{"/file", 400, "must begin with http:// or https://"},
		{"/credentials", 400, "has credentials"},
		{"/other", 400, "127.0.0.2 is a loopback address"},
		{"/zero", 400, "0.0.0.0 is not the address of a server"},
	} {
		body, err := fetch(web.URL+tt.path, one)
		own, _ := errors.AsType[*api.Refusal](err)
		switch {
		case tt.status == 0 && (err != nil || !strings.Contains(string(body), tt.want)):
			t.Errorf("%s: %.80q %v, want %s", tt.path, body, err, tt.want)
		case tt.status != 0 && (own == nil || own.Status != tt.status || !strings.Contains(own.Text, tt.want)):
			t.Errorf("%s: %v, want %d %s", tt.path, err, tt.status, tt.want)
		case own != nil && strings.Contains(own.Text, "secret"):
			t.Errorf("%s: %v tells what was answered", tt.path, err)
		}
	}
	if body, err := fetch(secure.URL+"/ok", one); err != nil || !strings.Contains(string(body), "accept") {
		t.Errorf("https: %s %v", body, err)
	}
	for text, want := range map[string]string{
		secure.URL + "/down":                        "redirects from https to http",
		web.URL + "/name":                           "", // allowed by the address that the name has, see below
		"http://127.0.0.1:1/x":                      "connection refused",
		"http://no-such-host.invalid/x":             "no-such-host.invalid",
		"http://" + strings.Repeat("x", 5000) + "/": "at most 4096",
		"http://a b/":                               "is no URL",
		"http://example.org/%zz":                    "is no URL",
	} {
		_, err := fetch(text, one, netip.MustParsePrefix("::1/128"))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
	}
	// By default nothing on this machine, by whatever name.
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1.2.3", "2130706433", "0x7f000001", "0177.0.0.1"} {
		if body, err := fetch(fmt.Sprintf("http://%s:%d/ok", host, port)); err == nil {
			t.Errorf("%s: %s", host, body)
		}
	}
}

// TestNoProxy has the environment not decide who fetches.
func TestNoProxy(t *testing.T) {
	asked := false
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked = true }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	d, err := New(Config{Engine: &app.Engine{}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/osc/register/fetch", nil)
	r.Header.Set("ocl", "http://no-such-host.invalid/")
	if _, err := d.fetch(r); err == nil || asked {
		t.Errorf("%v; the proxy was asked: %v", err, asked)
	}
}
