package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestFind(t *testing.T) {
	app := func(name string, rules ...Rule) App { return App{Name: name, Port: 80, Rules: rules} }
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Update(just(
		app("shop", Rule{Host: "Shop.example.org."}, Rule{Host: "shop.example.net", Path: "/shop"}),
		app("api", Rule{Host: "shop.example.org", Path: "/api/"}, Rule{Path: "/api"}),
		app("v2", Rule{Host: "shop.example.org", Path: "/api/v2"}),
		app("below", Rule{Host: "*.example.org"}),
		app("deep", Rule{Host: "*.deep.example.org", Path: "/d"}),
		app("six", Rule{Host: "[2001:db8::1]"}),
		app("well", Rule{Host: "w.example", Path: "/.well-known"}),
	))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ host, path, want string }{
		{"shop.example.org", "/", "shop"},
		{"SHOP.example.org:8080", "/", "shop"},
		{"shop.example.org.", "/x", "shop"},
		{"shop.example.org", "/api", "api"},
		{"shop.example.org", "/api/", "api"},
		{"shop.example.org", "/api/v1", "api"},
		{"shop.example.org", "/api/v2/x", "v2"},
		{"shop.example.org", "/api/v22", "api"},
		{"shop.example.org", "/apiary", "shop"},
		{"shop.example.org", "/%61pi/x", "api"},
		{"shop.example.org", "/x/../api", "api"},
		{"shop.example.org", "/api/../x", "shop"},
		{"shop.example.org", "//api", "api"},
		{"shop.example.org", "/api%2fv2", "v2"},
		{"shop.example.org", "/%2e%2e/api", "api"},
		{"other.example.org", "/api", "below"}, // the host counts first
		{"a.b.example.org", "/", "below"},
		{"x.deep.example.org", "/d", "deep"},
		{"x.deep.example.org", "/e", "below"},
		{"deep.example.org", "/d", "below"},
		{"example.org", "/", ""},
		{"shop.example.net", "/", ""},
		{"shop.example.net", "/shop", "shop"},
		{"shop.example.net", "/api", "api"},
		{"", "/api", "api"},
		{"anything", "/api/x", "api"},
		{"[2001:db8::1]:80", "/", "six"},
		{"[2001:DB8::1]", "/", "six"},
		{"w.example", "/.well-known/acme", "well"},
		{strings.Repeat("x", 255), "*", ""},
	} {
		got := ""
		if s := p.table.Load().find([]byte(c.host), []byte(c.path)); s != nil {
			got = s.name
		}
		if got != c.want {
			t.Errorf("%s%s is %q, want %q", c.host, c.path, got, c.want)
		}
	}
}

func TestUpdateRefuses(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	rule := func(name string, r Rule) App { return App{Name: name, Port: 80, Rules: []Rule{r}} }
	tcp := func(name, listen string) App {
		return App{Name: name, Streams: []Stream{{Proto: "tcp", Listen: at(listen), Port: 80}}}
	}
	udp := func(name, listen string) App {
		return App{Name: name, Streams: []Stream{{Proto: "udp", Listen: at(listen), Port: 80}}}
	}
	for _, c := range []struct {
		name string
		apps []App
		kind errs.Kind
		want string // in the sentence; empty: it is set
	}{
		{"same rule", []App{rule("a", Rule{Host: "x.example", Path: "/p"}), rule("b", Rule{Host: "X.example", Path: "/p/"})}, errs.Conflict, `apps "a" and "b" both want host "x.example" with path "/p"`},
		{"both want all", []App{rule("a", Rule{}), rule("b", Rule{Path: "/"})}, errs.Conflict, `apps "a" and "b" both want host "*" with path "/"`},
		{"other path", []App{rule("a", Rule{Path: "/p"}), rule("b", Rule{Path: "/q"})}, "", ""},
		{"same port", []App{tcp("a", "127.0.0.1:7001"), tcp("b", "127.0.0.1:7001")}, errs.Conflict, `apps "a" and "b" both want tcp port 7001`},
		{"port covered", []App{tcp("a", "0.0.0.0:7001"), tcp("b", "127.0.0.1:7001")}, errs.Conflict, `apps "a" and "b"`},
		{"port covered by all", []App{tcp("a", "127.0.0.1:7001"), tcp("b", "[::]:7001")}, errs.Conflict, `apps "a" and "b"`},
		{"mapped", []App{tcp("a", "127.0.0.1:7001"), tcp("b", "[::ffff:127.0.0.1]:7001")}, errs.Conflict, `apps "a" and "b"`},
		{"other address", []App{tcp("a", "127.0.0.1:7001"), tcp("b", "127.0.0.2:7001")}, "", ""},
		{"other family", []App{tcp("a", "0.0.0.0:7001"), tcp("b", "[::1]:7001")}, "", ""},
		{"other protocol", []App{tcp("a", "127.0.0.1:7001"), udp("b", "127.0.0.1:7001")}, "", ""},
		{"own port", []App{tcp("a", "0.0.0.0:7000")}, errs.Conflict, `app "a" wants tcp port 7000, where HTTP is answered`},
		{"own port by udp", []App{udp("a", "0.0.0.0:7000")}, "", ""},
		{"twice itself", []App{{Name: "a", Port: 80, Rules: []Rule{{Path: "/p"}, {Path: "/p/"}}}}, "", ""},
		{"port twice itself", []App{{Name: "a", Streams: []Stream{{Proto: "tcp", Listen: at("127.0.0.1:7001"), Port: 1}, {Proto: "tcp", Listen: at("127.0.0.1:7001"), Port: 2}}}}, errs.Conflict, `app "a" wants tcp 127.0.0.1:7001 twice`},
		{"no name", []App{{}}, errs.Invalid, "no name"},
		{"name twice", []App{{Name: "a"}, {Name: "a"}}, errs.Invalid, `app "a" is there twice`},
		{"no port", []App{{Name: "a", Rules: []Rule{{}}}}, errs.Invalid, "no container port"},
		{"host with port", []App{rule("a", Rule{Host: "x:80"})}, errs.Invalid, "without a port"},
		{"host with star inside", []App{rule("a", Rule{Host: "x.*.example"})}, errs.Invalid, `host "x.*.example"`},
		{"star alone", []App{rule("a", Rule{Host: "*"})}, errs.Invalid, `host "*"`},
		{"star and nothing", []App{rule("a", Rule{Host: "*."})}, errs.Invalid, `host "*."`},
		{"path without slash", []App{rule("a", Rule{Path: "p"})}, errs.Invalid, `path "p"`},
		{"path with dots", []App{rule("a", Rule{Path: "/p/../q"})}, errs.Invalid, `path "/p/../q"`},
		{"protocol", []App{{Name: "a", Streams: []Stream{{Proto: "sctp", Listen: at("127.0.0.1:7001"), Port: 1}}}}, errs.Invalid, `"sctp" is neither`},
		{"PROXY by udp", []App{{Name: "a", Streams: []Stream{{Proto: "udp", Listen: at("127.0.0.1:7001"), Port: 1, SendProxy: true}}}}, errs.Invalid, "PROXY protocol"},
		{"no address", []App{{Name: "a", Streams: []Stream{{Proto: "tcp", Port: 1}}}}, errs.Invalid, "an address"},
		{"same backend", []App{{Name: "a", Backends: []Backend{{ID: "x"}, {ID: "x"}}}}, errs.Invalid, `backend "x"`},
		{"balance", []App{{Name: "a", Balance: 9}}, errs.Invalid, "balance 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := New(Config{HTTP: []string{"127.0.0.1:7000"}})
			if err != nil {
				t.Fatal(err)
			}
			before := App{Name: "before", Port: 80, Rules: []Rule{{Host: "before.example"}}}
			if err := p.Update(just(before)); err != nil {
				t.Fatal(err)
			}
			err = p.Update(just(c.apps...))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Update: %v (%s)", err, errs.KindOf(err))
			}
			if s := p.table.Load().find([]byte("before.example"), []byte("/")); s == nil {
				t.Error("the routes from before are gone")
			}
		})
	}
}
