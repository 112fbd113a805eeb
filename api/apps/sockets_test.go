package apps

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// dial opens a WebSocket of a fixture.
func dial(t *testing.T, f fixture, path string) *websocket.Conn {
	t.Helper()
	srv := httptest.NewServer(f.server)
	t.Cleanup(srv.Close)
	c, _, err := websocket.Dial(t.Context(), srv.URL+path, nil) //nolint:bodyclose // there is none after a WebSocket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.CloseNow()
		hungUp(t, f)
	})
	return c
}

// hungUp waits until no WebSocket is open: net/http does not for hijacked ones.
func hungUp(t *testing.T, f fixture) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); len(f.d.sockets) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a WebSocket is left open")
		}
	}
}

// next is the next message, some of its fields.
func next(t *testing.T, c *websocket.Conn) (m struct {
	ID        int64   `json:"id"`
	Type      string  `json:"type"`
	AppName   string  `json:"app_name"`
	Message   string  `json:"message"`
	Container string  `json:"container"`
	Level     string  `json:"level"`
	Timestamp string  `json:"timestamp"`
	CPU       float64 `json:"cpu_percent"`
	Memory    float64 `json:"memory_percent"`
	Total     int     `json:"total_replicas"`
},
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, data, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	if _, err := time.Parse(time.RFC3339Nano, m.Timestamp); err != nil {
		t.Errorf("no time in %s", data)
	}
	return m
}

func TestStreamEvents(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 1)
	c := dial(t, f, "/api/v1/events/stream?type=scaling")
	f.ask("POST", "/api/v1/apps/my-app/rollout/pause", "") // filtered
	f.ask("POST", "/api/v1/apps/my-app/scale", `{"replicas":2}`)
	if m := next(t, c); m.Type != "scaling" || m.AppName != "my-app" || m.Message != "Scaled from 1 to 2 replicas" {
		t.Errorf("message = %+v", m)
	}
}

// TestSlowEvents are told that they have missed something.
func TestSlowEvents(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 1)
	c := dial(t, f, "/api/v1/events/stream")
	f.engine.mu.Lock() // while it is held, the handler cannot leave Subscribe's channel behind
	for ch := range f.engine.watchers {
		close(ch)
		delete(f.engine.watchers, ch)
	}
	f.engine.mu.Unlock()
	_, _, err := c.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusTryAgainLater || !strings.Contains(err.Error(), "events have been lost") {
		t.Errorf("Read = %v", err)
	}
}

func TestStreamMetrics(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 2)
	c := dial(t, f, "/api/v1/apps/my-app/metrics/stream?interval=1s")
	for range 2 {
		if m := next(t, c); m.AppName != "my-app" || m.CPU != 45.2 || m.Memory != 62.1 || m.Total != 2 {
			t.Errorf("message = %+v", m)
		}
	}
	f.ask("DELETE", "/api/v1/apps/my-app", "")
	for {
		_, _, err := c.Read(t.Context())
		if err == nil {
			continue // sent before it was removed
		}
		if websocket.CloseStatus(err) != websocket.StatusNormalClosure || !strings.Contains(err.Error(), "has been removed") {
			t.Errorf("Read = %v", err)
		}
		return
	}
}

// TestFollow gets what is there, what comes, and what replicas write that came later.
func TestFollow(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 2)
	for i := range 3 {
		f.logs.write("my-app-1", 10*i, fmt.Sprintf("one %d", i))
		f.logs.write("my-app-2", 10*i+5, fmt.Sprintf("two %d", i))
	}
	c := dial(t, f, "/api/v1/apps/my-app/logs?follow=true&tail=2")
	for _, want := range []string{"my-app-1 one 2", "my-app-2 two 2"} {
		if m := next(t, c); m.Container+" "+m.Message != want {
			t.Errorf("message = %+v, want %s", m, want)
		}
	}
	f.logs.write("my-app-2", 30, "ERROR comes")
	if m := next(t, c); m.Message != "ERROR comes" || m.Level != "ERROR" {
		t.Errorf("message = %+v", m)
	}
	f.logs.write("my-app-3", 40, "is new")
	f.ask("POST", "/api/v1/apps/my-app/scale", `{"replicas":3}`)
	if m := next(t, c); m.Container != "my-app-3" || m.Message != "is new" {
		t.Errorf("message = %+v", m)
	}
}

// TestStreamLogs begins with what comes.
func TestStreamLogs(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 1)
	f.logs.write("my-app-1", 1, "before")
	c := dial(t, f, "/api/v1/apps/my-app/logs/stream?container=my-app-1")
	for f.logs.asked() == 0 {
		time.Sleep(time.Millisecond)
	}
	f.logs.write("my-app-1", 2, "after")
	if m := next(t, c); m.Message != "after" {
		t.Errorf("message = %+v", m)
	}
	if q := f.logs.queries[0]; q != "my-app-1 tail=-1 follow=true" {
		t.Errorf("query = %s", q)
	}
}

// TestFollowSome: who cannot be asked at the beginning is named; if nobody can, it ends.
func TestFollowSome(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 2)
	f.logs.write("my-app-1", 1, "first")
	f.logs.fail("my-app-2", errs.E(errs.Unavailable, "host h1 is away"))
	c := dial(t, f, "/api/v1/apps/my-app/logs?follow=true")
	if m := next(t, c); m.Message != "first" {
		t.Errorf("message = %+v", m)
	}
	if _, m, err := c.Read(t.Context()); err != nil || string(m) != `{"unavailable":[{"container":"my-app-2","error":"host h1 is away"}]}` {
		t.Errorf("message = %s, %v", m, err)
	}
	f.logs.write("my-app-1", 2, "second")
	if m := next(t, c); m.Message != "second" {
		t.Errorf("message = %+v", m)
	}
	_ = c.CloseNow()
	c = dial(t, f, "/api/v1/apps/my-app/logs?follow=true&container=my-app-2")
	if _, m, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusInternalError || !strings.Contains(err.Error(), "host h1 is away") {
		t.Errorf("message = %s, %v", m, err)
	}
}

// TestFollowReturns to a replica whose host was away, and repeats nothing.
func TestFollowReturns(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 1)
	f.logs.write("my-app-1", 1, "first")
	c := dial(t, f, "/api/v1/apps/my-app/logs?follow=true")
	if m := next(t, c); m.Message != "first" {
		t.Errorf("message = %+v", m)
	}
	f.logs.fail("my-app-1", errs.E(errs.Unavailable, "host h1 is away"))
	if _, m, err := c.Read(t.Context()); err != nil || string(m) != `{"unavailable":[{"container":"my-app-1","error":"host h1 is away"}]}` {
		t.Errorf("message = %s, %v", m, err)
	}
	asked := f.logs.asked()
	for f.logs.asked() == asked { // once more: the client is not told again
		time.Sleep(time.Millisecond)
	}
	f.logs.write("my-app-1", 2, "second")
	f.logs.fail("my-app-1", nil)
	for _, want := range []string{"second", "third"} {
		if m := next(t, c); m.Message != want {
			t.Errorf("message = %+v, want %s", m, want)
		}
		f.logs.write("my-app-1", 3, "third")
	}
}

// TestForeignPages may not read streams.
func TestForeignPages(t *testing.T) {
	f := running(t, 1)
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	for origin, want := range map[string]int{"http://evil.example": 403, srv.URL: 101} {
		c, res, err := websocket.Dial(t.Context(), srv.URL+"/api/v1/events/stream", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}}) //nolint:bodyclose // there is none after a WebSocket
		if res.StatusCode != want {
			t.Errorf("origin %s = %s, %v", origin, res.Status, err)
		}
		if c != nil {
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	}
	hungUp(t, f)
}

// TestSocketsAreBounded refuses one too many.
func TestSocketsAreBounded(t *testing.T) {
	f := running(t, 1)
	for range cap(f.d.sockets) {
		f.d.sockets <- struct{}{}
	}
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	_, res, err := websocket.Dial(t.Context(), srv.URL+"/api/v1/events/stream", nil) //nolint:bodyclose // there is none after a WebSocket
	if err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("dial = %v", err)
	}
}

// TestStop tells streams why they end.
func TestStop(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 1)
	opened := make(chan []net.Addr, 1)
	srv, err := api.New(api.Config{Dialects: []api.Dialect{f.d}, Opened: func(a []net.Addr) { opened <- a }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Listen(ctx, []string{"127.0.0.1:0"}) }()
	c, _, err := websocket.Dial(t.Context(), "http://"+(<-opened)[0].String()+"/api/v1/apps/my-app/logs/stream", nil) //nolint:bodyclose // there is none after a WebSocket
	if err != nil {
		t.Fatal(err)
	}
	stop()
	_, _, err = c.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusGoingAway || !strings.Contains(err.Error(), "buoyd is stopping") {
		t.Errorf("Read = %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	hungUp(t, f)
}

// TestStuckReader does not read at all: the handler ends nevertheless.
func TestStuckReader(t *testing.T) {
	testleak.Check(t)
	defer http.DefaultClient.CloseIdleConnections()
	f := running(t, 1)
	f.d.patience = 50 * time.Millisecond
	line := strings.Repeat("x", 1<<20)
	for i := range 64 { // more than both sockets hold
		f.logs.write("my-app-1", i, line)
	}
	dial(t, f, "/api/v1/apps/my-app/logs?follow=true&tail=64")
	hungUp(t, f)
}
