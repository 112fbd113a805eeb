package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// ask makes one check against an address, without Run.
func ask(t *testing.T, c Check, addr string) (State, error) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	c.Port = uint16(n)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	p := New(Config{Check: c, Started: time.Now(), Changed: func(Health, State) {}, Dial: func(ctx context.Context, port uint16) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	}})
	err = p.check(t.Context(), time.Now())
	return p.State(), err
}

func TestHTTP(t *testing.T) {
	testleak.Check(t)
	seen := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s %s %v %s %q", r.Method, r.URL, r.Host, r.Header["X-A"], r.UserAgent(), body)
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.Header().Set("Location", "/ok")
		w.WriteHeader(code)
		if code >= 400 {
			_, _ = io.WriteString(w, "the database\x1b[31m is down\n\n")
		}
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		_, _ = io.WriteString(w, "<html>\n</html>")
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 4*maxAnswer)) })
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/half", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	plain, secure := httptest.NewServer(mux), httptest.NewUnstartedServer(mux)
	defer plain.Close()
	secure.Config.ErrorLog = nil
	secure.StartTLS()
	defer secure.Close()
	for _, tt := range []struct {
		name  string
		check Check
		want  string // the error
		seen  string
	}{
		{"defaults", Check{Path: "/ok"}, "", `GET /ok ADDR [] buoy-health ""`},
		{
			"everything",
			Check{Path: "/ok?a=b", Method: "POST", Body: "hello", Headers: []Header{{"host", "app.test"}, {"x-a", "1"}, {"X-A", "2"}, {"User-Agent", "me"}}},
			"",
			`POST /ok?a=b app.test [1 2] me "hello"`,
		},
		{"HEAD", Check{Path: "/ok", Method: "HEAD"}, "", `HEAD /ok ADDR [] buoy-health ""`},
		{"nothing there", Check{}, "answered 404 Not Found: 404 page not found", ""},
		{"no content", Check{Path: "/status/204"}, "", ""},
		{"a redirection is followed by nobody", Check{Path: "/status/302"}, "", ""},
		{"a good status is not asked for", Check{Path: "/status/302", Statuses: []int{200, 201}}, "answered 302 Found", ""},
		{"a bad one is", Check{Path: "/status/503", Statuses: []int{503}}, "", ""},
		{"bad", Check{Path: "/status/503"}, "answered 503 Service Unavailable: the database [31m is down", ""},
		{"a page", Check{Path: "/page"}, "answered 500 Internal Server Error", ""},
		{"hints before the answer", Check{Path: "/early"}, "", ""},
		{"more than is read", Check{Path: "/long"}, "", ""},
		{"no answer", Check{Path: "/hang", Timeout: 50 * time.Millisecond}, "no answer within 50ms", ""},
		{"half an answer", Check{Path: "/half", Timeout: 50 * time.Millisecond}, "no answer within 50ms", ""},
	} {
		for scheme, server := range map[string]*httptest.Server{"": plain, "https": secure} {
			tt.check.Type, tt.check.Scheme = HTTP, scheme
			addr := server.Listener.Addr().String()
			s, err := ask(t, tt.check, addr)
			if err != nil || s.LastCheck.IsZero() {
				t.Errorf("%s %s: %+v, %v", tt.name, scheme, s, err)
			}
			if got := s.LastError; got != tt.want && !strings.HasSuffix(got, ": "+tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("%s %s: %q, want %q", tt.name, scheme, got, tt.want)
			}
			if tt.seen == "" {
				continue
			}
			if got := strings.ReplaceAll(<-seen, addr, "ADDR"); got != tt.seen {
				t.Errorf("%s %s: the server saw %s, want %s", tt.name, scheme, got, tt.seen)
			}
		}
	}
}

// server answers each connection with the same bytes.
func server(t *testing.T, answer string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if answer != "" {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, answer)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestStrangeAnswers(t *testing.T) {
	testleak.Check(t)
	for answer, want := range map[string]string{
		"SSH-2.0-OpenSSH_9.2\r\n":                                                   "malformed HTTP",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort":                       "the answer breaks off",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxAnswer):                 "EOF",
		"HTTP/1.1 200 OK\r\n\r\nuntil the end":                                      "",
		"HTTP/1.0 200 OK\r\n\r\n":                                                   "",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":                                  "answered 101",
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1):               "answered 100 Continue",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": "",
	} {
		s, err := ask(t, Check{Type: HTTP}, server(t, answer))
		if err != nil || !strings.Contains(s.LastError, want) || (s.LastError == "") != (want == "") {
			t.Errorf("%.60q: %q, %v, want %q", answer, s.LastError, err, want)
		}
	}
	if s, err := ask(t, Check{Type: HTTP, Scheme: "https"}, server(t, "HTTP/1.1 400 Bad Request\r\n\r\n")); err != nil || s.LastError == "" {
		t.Errorf("no TLS there: %+v, %v", s, err)
	}
}

func TestTCP(t *testing.T) {
	testleak.Check(t)
	if s, err := ask(t, Check{Type: TCP}, server(t, "")); err != nil || s.Status != Healthy || s.ResponseTime <= 0 {
		t.Errorf("somebody listens: %+v, %v", s, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if s, err := ask(t, Check{Type: TCP}, addr); err != nil || !strings.Contains(s.LastError, "connection refused") {
		t.Errorf("nobody listens: %+v, %v", s, err)
	}
	p := New(Config{Check: Check{Type: TCP, Port: 1}, Dial: func(context.Context, uint16) (net.Conn, error) {
		return nil, errs.E(errs.Conflict, "it has ended")
	}})
	if err := p.check(t.Context(), time.Now()); errs.KindOf(err) != errs.Conflict || !p.State().LastCheck.IsZero() {
		t.Errorf("it has ended: %+v, %v", p.State(), err)
	}
}

func TestExcerpt(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "\n \r\n": "", "one": "one", "one\ntwo\r\n\n": "two", "a\x00b\xff\u202ec": "a b  c",
		strings.Repeat("é", excerptLength): strings.Repeat("é", excerptLength/2) + "…",
	} {
		if got := excerpt(text); got != want {
			t.Errorf("excerpt(%q) = %q, want %q", text, got, want)
		}
	}
}

// Whatever a container answers, a check of it ends and says so in few words.
func FuzzJudge(f *testing.F) {
	for _, seed := range []string{
		"", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nwhy", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/9.9 999 \xff\r\n\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		c := Check{Type: HTTP}.filled()
		req, err := c.request(t.Context(), "10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.judge(strings.NewReader(answer), req); err != nil && err.Error() == "" {
			t.Error("it is wrong, and nobody says why")
		}
	})
}
