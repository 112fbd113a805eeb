package apps

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// from asks for the list of apps from an address.
func from(f fixture, addr, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr = addr
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w
}

// says are the three headers, and Retry-After.
func says(w *httptest.ResponseRecorder) string {
	h := w.Header()
	reset, _ := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	return fmt.Sprintf("%d limit=%s remaining=%s reset=%ds retry=%s", w.Code, h.Get("X-RateLimit-Limit"), h.Get("X-RateLimit-Remaining"),
		reset-time.Now().Unix(), h.Get("Retry-After"))
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, func(c *Config) { c.Limits = Limits{PerHour: 5, PerMinute: 3} })
		const path = "/api/v1/apps"
		for _, tt := range []struct {
			sleep      time.Duration
			addr, path string
			want       string
		}{
			{0, "192.0.2.1:1", path, "200 limit=5 remaining=4 reset=3600s retry="},
			{0, "192.0.2.1:2", "/apps", "200 limit=5 remaining=3 reset=3600s retry="},
			{0, "192.0.2.2:1", path, "200 limit=5 remaining=4 reset=3600s retry="}, // another one
			{30 * time.Second, "192.0.2.1:1", "/api/v1/none", "404 limit=5 remaining=2 reset=3570s retry="},
			{0, "192.0.2.1:1", path, "429 limit=3 remaining=0 reset=30s retry=31"},
			{0, "[::ffff:192.0.2.1]:1", path, "429 limit=3 remaining=0 reset=30s retry=31"},
			{30 * time.Second, "192.0.2.1:1", path, "200 limit=5 remaining=1 reset=3540s retry="},
			{0, "192.0.2.1:1", "/cluster/health", "200 limit=5 remaining=0 reset=3540s retry="},
			{0, "192.0.2.1:1", path, "429 limit=5 remaining=0 reset=3540s retry=3541"},
			{0, "127.0.0.1:1", path, "200 limit=5 remaining=4 reset=3600s retry="},
			{0, "[2001:db8::1]:1", path, "200 limit=5 remaining=4 reset=3600s retry="},
			{0, "[2001:db8::2]:1", path, "200 limit=5 remaining=3 reset=3600s retry="}, // of the same network
			{0, "[fe80::1%eth0]:1", path, "200 limit=5 remaining=4 reset=3600s retry="},
			{59 * time.Minute, "192.0.2.1:1", path, "200 limit=5 remaining=4 reset=3600s retry="},
		} {
			time.Sleep(tt.sleep)
			w := from(f, tt.addr, tt.path)
			if got := says(w); got != tt.want {
				t.Errorf("%s = %s, want %s", tt.addr, got, tt.want)
			}
			if w.Code == 429 && !strings.Contains(w.Body.String(), `{"error":"Rate limit exceeded","details":"`) {
				t.Errorf("429 says %s", w.Body)
			}
		}
		for range 10 { // the machine itself, and who may use the socket, are only counted
			if w := from(f, "127.0.0.1:1", path); w.Code != 200 || w.Header().Get("X-RateLimit-Limit") != "5" {
				t.Errorf("loopback: %s", says(w))
			}
			if w := from(f, "@", path); w.Code != 200 {
				t.Errorf("socket: %s", says(w))
			}
		}
		if got, want := says(from(f, "@", path)), "200 limit=5 remaining=0 reset=3600s retry="; got != want {
			t.Errorf("socket = %s, want %s", got, want)
		}
	})
}

// TestRateLimitOff has no headers, or those of the only limit.
func TestRateLimitOff(t *testing.T) {
	for _, tt := range []struct {
		limits Limits
		want   string
	}{
		{Limits{}, "1000 999"},
		{Limits{PerHour: -1}, "100 99"},
		{Limits{PerMinute: -1}, "1000 999"},
		{Limits{PerHour: -1, PerMinute: -1}, " "},
	} {
		f := serve(t, func(c *Config) { c.Limits = tt.limits })
		h := from(f, "192.0.2.1:1", "/api/v1/apps").Header()
		if got := h.Get("X-RateLimit-Limit") + " " + h.Get("X-RateLimit-Remaining"); got != tt.want {
			t.Errorf("%+v says %q, want %q", tt.limits, got, tt.want)
		}
	}
}

// TestManyVisitors take no more than so much memory.
func TestManyVisitors(t *testing.T) {
	l := newLimiter(Limits{})
	addr := netip.MustParseAddr("10.0.0.0")
	now := day
	for range maxVisitors + 5 {
		addr = addr.Next()
		now = now.Add(time.Millisecond)
		l.take(netip.PrefixFrom(addr, 32), false, now)
	}
	if len(l.known) != maxVisitors || l.oldest.Len() != maxVisitors {
		t.Errorf("%d visitors are known, %d in order", len(l.known), l.oldest.Len())
	}
	if v := l.take(netip.PrefixFrom(addr, 32), false, now); v.remaining != 998 {
		t.Errorf("the last one has %d left", v.remaining)
	}
	if v := l.take(netip.MustParsePrefix("10.0.0.1/32"), false, now); v.remaining != 999 {
		t.Errorf("the first one has %d left", v.remaining)
	}
}
