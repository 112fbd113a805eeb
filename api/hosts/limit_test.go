package hosts

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
)

// TestLimit: who has a token of its own is limited alone, at every door, until
// the window ends.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := server(t, func(c *Config) { c.RateLimit = 2 })
		report := func(id, tok string, from ...string) int {
			w := ask(s, "POST", "/host/"+id+"/updatestatus", `{}`, append(from, token(tok))...)
			if w.Code == http.StatusTooManyRequests && (!strings.Contains(w.Body.String(), "host "+id) || w.Header().Get("Retry-After") == "") {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
			return w.Code
		}
		node2 := join(t, s, "node2")
		for n := range 20 {
			if code := report("node1", "token1"); code != 200 {
				t.Fatalf("report %d: %d", n+1, code)
			}
		}
		time.Sleep(8500 * time.Millisecond)
		if w := ask(s, "GET", "/host/node1/status", "", token("token1"), "Remote: 203.0.113.9:5555"); w.Code != 429 || w.Header().Get("Retry-After") != "2" {
			t.Errorf("one too many, 1.5 s before the window ends: %d %v", w.Code, w.Header())
		}
		if code := report("node2", node2); code != 200 {
			t.Errorf("another host: %d", code)
		}
		for range 100 {
			if w := ask(s, "GET", "/hosts", ""); w.Code != 200 {
				t.Fatalf("a person: %d %s", w.Code, w.Body)
			}
		}
		time.Sleep(1500 * time.Millisecond)
		if code := report("node1", "token1"); code != 200 {
			t.Errorf("in the next window: %d", code)
		}
	})
}

// TestLimitOfGuesses: an address that registers with too many wrong tokens is
// not listened to, even if one is right; hosts that are known are.
func TestLimitOfGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := server(t)
		register := func(tok, from string) int {
			return ask(s, "POST", "/host/register", `{"info":{"hostID":"n9"}}`, token(tok), "Remote: "+from).Code
		}
		for n := range maxGuesses {
			if code := register("guess"+strconv.Itoa(n), fmt.Sprintf("[2001:db8::%x]:1", n)); code != 401 {
				t.Fatalf("guess %d: %d", n+1, code)
			}
		}
		if code := register(joinToken, "[2001:db8::1]:5"); code != 429 {
			t.Errorf("after %d guesses: %d", maxGuesses, code)
		}
		if w := ask(s, "POST", "/host/node1/updatestatus", `{}`, token("token1"), "Remote: [2001:db8::1]:5"); w.Code != 200 {
			t.Errorf("a host at that network: %d %s", w.Code, w.Body)
		}
		if code := register(joinToken, "[2001:db8:0:1::1]:5"); code != 201 {
			t.Errorf("at another: %d", code)
		}
		time.Sleep(rateWindow)
		if code := register(joinToken, "[2001:db8::1]:5"); code != 201 {
			t.Errorf("in the next window: %d", code)
		}
	})
}

// TestLimitAndFleet: 10,000 hosts behind one address are let in, though they come
// with tokens of a controller that is no more, and report every 10 s.
func TestLimitAndFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := server(t, func(c *Config) { c.RateLimit = 1 })
		nat := "Remote: 203.0.113.9:5555"
		report := func(id, tok string) int {
			return ask(s, "POST", "/host/"+id+"/updatestatus", `{}`, token(tok), nat).Code
		}
		tokens := map[string]string{}
		for n := range 10_000 {
			id := "h" + strconv.Itoa(n)
			if code := report(id, "old"+id); code != 401 {
				t.Fatalf("%s is unknown: %d", id, code)
			}
			tokens[id] = into[hostapi.RegisterResponse](t, ask(s, "POST", "/host/register", `{"info":{"hostID":"`+id+`"}}`, token(joinToken), nat), 201).HostToken
		}
		for range 2 {
			for id, tok := range tokens {
				if code := report(id, tok); code != 200 {
					t.Fatalf("%s reports: %d", id, code)
				}
			}
			time.Sleep(10 * time.Second)
		}
	})
}
