package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

func open(t *testing.T) (*Tokens, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.json")
	tokens, err := OpenTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	return tokens, file
}

func request(header string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return r
}

func TestTokens(t *testing.T) {
	tokens, file := open(t)
	now := time.Now()
	tokens.now = func() time.Time { return now }
	want := Token{Name: "ci", Role: Operator, Limits: Limits{Apps: []string{"team-*"}}, Expires: now.Add(time.Hour)}
	made, text, err := tokens.Create(want)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(raw), text) || strings.Contains(string(raw), text[len(text)-20:]) {
		t.Errorf("the file has the token: %s, %v", raw, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if tokens, err = OpenTokens(file); err != nil {
		t.Fatal(err)
	}
	tokens.now = func() time.Time { return now }
	gate, err := NewGate(Config{Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	c, err := gate.Identify(request("bearer "+text), nil)
	if err != nil || c.Name != `token "ci"` || c.Role != Operator || !c.Limits.App("team-a") || c.Limits.App("web") || !c.Proven {
		t.Errorf("%+v, %v", c, err)
	}
	for name, header := range map[string]string{
		"shortened": "Bearer " + text[:len(text)-1], "another": "Bearer " + prefix + made.ID + "-" + strings.Repeat("a", 32), "no scheme": text,
		"another scheme": "Basic " + text, "empty": "Bearer ", "with more": "Bearer " + text + "x", "upper": "Bearer " + strings.ToUpper(text),
	} {
		if c, err := gate.Identify(request(header), &Peer{}); err == nil || c.Role != Nobody {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	now = now.Add(time.Hour)
	if c, err := gate.Identify(request("Bearer "+text), nil); err == nil || c.Role != Nobody || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %+v, %v", c, err)
	}
	now = now.Add(-time.Hour)
	if _, err := tokens.Remove(made.ID); err != nil {
		t.Error(err)
	}
	if c, err := gate.Identify(request("Bearer "+text), nil); err == nil || c.Role != Nobody {
		t.Errorf("removed: %+v, %v", c, err)
	}
	if _, err := tokens.Remove("ci"); !errors.Is(err, errs.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestConfiguredToken(t *testing.T) {
	tokens, _ := open(t)
	gate, err := NewGate(Config{Tokens: tokens, Admin: hash("made-elsewhere")})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := gate.Identify(request("Bearer made-elsewhere"), nil); err != nil || c.Role != Admin || !c.Proven {
		t.Errorf("its owner is %+v, %v", c, err)
	}
	for _, other := range []string{"made-elsewher", hash("made-elsewhere")} {
		if c, err := gate.Identify(request("Bearer "+other), nil); err == nil || c.Role >= Viewer {
			t.Errorf("with %s somebody is %+v, %v", other, c, err)
		}
	}
}

func TestTokensRefused(t *testing.T) {
	tokens, file := open(t)
	if _, _, err := tokens.Create(Token{Name: "taken", Role: Viewer}); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		want Token
		kind errs.Kind
	}{
		"taken":         {Token{Name: "taken", Role: Viewer}, errs.Exists},
		"no name":       {Token{Role: Viewer}, errs.Invalid},
		"odd name":      {Token{Name: "a\nb", Role: Viewer}, errs.Invalid},
		"no role":       {Token{Name: "a"}, errs.Invalid},
		"limited admin": {Token{Name: "a", Role: Admin, Limits: Limits{Apps: []string{"x"}}}, errs.Invalid},
		"over":          {Token{Name: "a", Role: Viewer, Expires: time.Now().Add(-time.Second)}, errs.Invalid},
		"no pattern":    {Token{Name: "a", Role: Viewer, Limits: Limits{Nodes: []string{"[a"}}}, errs.Invalid},
		"empty pattern": {Token{Name: "a", Role: Viewer, Limits: Limits{Nodes: []string{""}}}, errs.Invalid},
	} {
		if _, text, err := tokens.Create(tt.want); !errors.Is(err, tt.kind) || text != "" {
			t.Errorf("%s: %q, %v, want %v", name, text, err, tt.kind)
		}
	}
	if n := len(tokens.List()); n != 1 {
		t.Errorf("there are %d tokens", n)
	}
	if err := os.WriteFile(file, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(file); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), file) {
		t.Errorf("a broken file: %v", err)
	}
}

// from is a request that came to an address.
func from(addr net.Addr, encrypted bool) *http.Request {
	r := request("")
	if encrypted {
		r.TLS = &tls.ConnectionState{}
	}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
}

func TestWhereTheyComeFrom(t *testing.T) {
	tokens, _ := open(t)
	loopback, lan := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	for name, tt := range map[string]struct {
		dev  bool
		r    *http.Request
		peer *Peer
		want Role
	}{
		"root":                 {false, request(""), &Peer{UID: 0}, Admin},
		"group of the socket":  {false, request(""), &Peer{UID: 1000}, Operator},
		"loopback":             {false, from(loopback, false), nil, Nobody},
		"loopback of dev":      {true, from(loopback, false), nil, Admin},
		"TLS loopback of dev":  {true, from(loopback, true), nil, Nobody},
		"elsewhere":            {false, from(lan, true), nil, Nobody},
		"elsewhere, of dev":    {true, from(lan, false), nil, Nobody},
		"nothing is known":     {true, request(""), nil, Nobody},
		"root with some token": {true, request("Bearer x"), &Peer{UID: 0}, Nobody}, // a host's, maybe
	} {
		gate, err := NewGate(Config{Tokens: tokens, Loopback: tt.dev})
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := gate.Identify(tt.r, tt.peer); c.Role != tt.want {
			t.Errorf("%s: %+v, want %v", name, c, tt.want)
		}
	}
}

func TestCertificates(t *testing.T) {
	tokens, _ := open(t)
	made, text, err := tokens.Create(Token{Name: "pager", Role: Viewer, Certificate: true})
	if err != nil || text != "" {
		t.Fatalf("%q, %v", text, err)
	}
	gate, err := NewGate(Config{Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	shown := func(uri *url.URL) *http.Request {
		r := request("")
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{URIs: []*url.URL{uri}}}}}
		return r
	}
	if c, err := gate.Identify(shown(CertificateURI(made.ID)), nil); err != nil || c.Role != Viewer || c.Name != `certificate "pager"` {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := gate.Identify(shown(CertificateURI("none")), nil); err == nil || c.Role != Nobody {
		t.Errorf("unknown: %+v, %v", c, err)
	}
	if c, err := gate.Identify(shown(&url.URL{Scheme: "spiffe", Host: "caller", Path: "/" + made.ID}), nil); err != nil || c.Role != Nobody {
		t.Errorf("somebody else's name: %+v, %v", c, err)
	}
	if c, err := gate.Identify(request("Bearer "+prefix+made.ID+"-"), nil); err == nil || c.Role != Nobody {
		t.Errorf("its id as a token: %+v, %v", c, err)
	}
	if _, err := tokens.Remove("pager"); err != nil {
		t.Error(err)
	}
	if c, err := gate.Identify(shown(CertificateURI(made.ID)), nil); err == nil || c.Role != Nobody {
		t.Errorf("removed: %+v, %v", c, err)
	}
}

func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		l                          Limits
		part, node, container, app bool // n1 in part, as a whole, its web, the app web
	}{
		"none":               {Limits{}, true, true, true, true},
		"node":               {Limits{Nodes: []string{"n*"}}, true, true, true, false},
		"other node":         {Limits{Nodes: []string{"x"}}, false, false, false, false},
		"container":          {Limits{Containers: []string{"w?b"}}, true, false, true, false},
		"container of node":  {Limits{Nodes: []string{"n1"}, Containers: []string{"web"}}, true, false, true, false},
		"container of other": {Limits{Nodes: []string{"x"}, Containers: []string{"web"}}, false, false, false, false},
		"other container":    {Limits{Nodes: []string{"n1"}, Containers: []string{"x"}}, true, false, false, false},
		"app":                {Limits{Apps: []string{"web"}}, false, false, false, true},
		"app and node":       {Limits{Apps: []string{"web"}, Nodes: []string{"n1"}}, true, true, true, true},
	} {
		if p, n, c, a := tt.l.PartOf("n1"), tt.l.Node("n1"), tt.l.Container("n1", "web"), tt.l.App("web"); p != tt.part || n != tt.node || c != tt.container || a != tt.app {
			t.Errorf("%s: part %v, node %v, container %v, app %v", name, p, n, c, a)
		}
	}
}

func TestForwarded(t *testing.T) {
	c := Caller{Name: "token \"caf\u00e9\"\r\nX: y", Role: Operator, Limits: Limits{Containers: []string{"a*"}}, Proven: true}
	h := http.Header{}
	h.Set(Forwarded, c.Header())
	got, err := OfHeader(h)
	if err != nil || got.Role != Operator || !got.Proven || !got.Limits.Container("x", "ab") || got.Limits.Container("x", "b") {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "x", `{"role":"root"}`, `{"role":7}`} {
		h.Set(Forwarded, bad)
		if got, err := OfHeader(h); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
