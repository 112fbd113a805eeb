package buoy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestAppRequests: what each method about apps and hosts asks for.
func TestAppRequests(t *testing.T) {
	ctx := t.Context()
	const n = "/api/v1/apps"
	manual := "manual"
	for _, test := range []struct {
		want, body string
		call       func(*buoy.Client) error
	}{
		{"GET " + n, `{"apps":[{"name":"a"}]}`, func(c *buoy.Client) error { return oneOf(c.Apps(ctx, "")) }},
		{"GET " + n + "?status=running", `{"apps":[{"name":"a"}]}`, func(c *buoy.Client) error { return oneOf(c.Apps(ctx, "running")) }},
		{"GET " + n + "/a%2Fb", `{}`, func(c *buoy.Client) error { _, err := c.App(ctx, "a/b"); return err }},
		{"POST " + n + "/apply kind: App", `{"apps":[{"app_name":"a"}]}`, func(c *buoy.Client) error { return oneOf(c.ApplyApps(ctx, []byte("kind: App"))) }},
		{"POST " + n + "/plan {}", `{"apps":[{"app_name":"a"}]}`, func(c *buoy.Client) error { return oneOf(c.PlanApps(ctx, []byte("{}"))) }},
		{"POST " + n + "/register {}", `{}`, func(c *buoy.Client) error { return c.RegisterApp(ctx, []byte("{}")) }},
		{"POST " + n + "/a/start {}", `{}`, func(c *buoy.Client) error { return c.StartApp(ctx, "a", -1, buoy.AppWait{}) }},
		{"POST " + n + `/a/start {"replicas":0,"wait":true,"timeout":9}`, `{}`, func(c *buoy.Client) error { return c.StartApp(ctx, "a", 0, buoy.AppWait{Wait: true, Timeout: 9}) }},
		{"POST " + n + `/a/stop {"force":true}`, `{}`, func(c *buoy.Client) error { return c.StopApp(ctx, "a", true) }},
		{"POST " + n + `/a/scale {"replicas":5}`, `{"previous_replicas":3}`, func(c *buoy.Client) error {
			was, err := c.ScaleApp(ctx, "a", 5, buoy.AppWait{})
			return want(was, 3, err)
		}},
		{"DELETE " + n + "/a?keep_data=true&force=true", `{"volumes_removed":2}`, func(c *buoy.Client) error {
			r, err := c.RemoveApp(ctx, "a", true)
			return want(r.Volumes, 2, err)
		}},
		{"GET " + n + "/a/spec", `{"kind":"App"}`, func(c *buoy.Client) error {
			spec, err := c.AppSpec(ctx, "a")
			return want(string(spec), `{"kind":"App"}`, err)
		}},
		{"GET " + n + "/a/explain", `{"missing":1}`, func(c *buoy.Client) error {
			e, err := c.ExplainApp(ctx, "a")
			return want(e.Missing, 1, err)
		}},
		{"GET " + n + "/a/revisions", `{"revisions":[{"revision":2}]}`, func(c *buoy.Client) error { return oneOf(c.AppRevisions(ctx, "a")) }},
		{"POST " + n + `/a/rollback {"revision":2}`, `{"rollout":{"revision":2}}`, func(c *buoy.Client) error {
			r, err := c.RollbackApp(ctx, "a", 2)
			return want(r, 2, err)
		}},
		{"POST " + n + "/a/rollout/pause", ``, func(c *buoy.Client) error { return c.PauseRollout(ctx, "a") }},
		{"POST " + n + "/a/rollout/resume", ``, func(c *buoy.Client) error { return c.ResumeRollout(ctx, "a") }},
		{"POST " + n + "/a/rollout/promote", ``, func(c *buoy.Client) error { return c.PromoteRollout(ctx, "a") }},
		{"POST " + n + `/a/rebalance {"preview":true}`, `{"moves":[{}]}`, func(c *buoy.Client) error { return oneOf(c.RebalanceApps(ctx, "a", true)) }},
		{"POST " + n + `/rebalance {"preview":false}`, `{"moves":[{}]}`, func(c *buoy.Client) error { return oneOf(c.RebalanceApps(ctx, "", false)) }},
		{"GET " + n + "/a/metrics?history=5&interval=1m0s", `{}`, func(c *buoy.Client) error { _, err := c.AppMetrics(ctx, "a", 5, time.Minute); return err }},
		{"GET " + n + "/a/scaling", `{"policy":{"min_replicas":2},"last_scaling_event":null}`, func(c *buoy.Client) error {
			s, err := c.AppScaling(ctx, "a")
			if err != nil {
				return err
			}
			return want(*s.Policy.Min, 2, nil)
		}},
		{"PUT " + n + `/a/scaling {"mode":"manual"}`, `{}`, func(c *buoy.Client) error { return c.SetAppScaling(ctx, "a", buoy.ScalingPolicy{Mode: &manual}) }},
		{"GET " + n + "/a/health", `{"containers":[{"last_check":null}]}`, func(c *buoy.Client) error { _, err := c.AppHealth(ctx, "a"); return err }},
		{"POST " + n + "/a/health/check", `{"healthy":2}`, func(c *buoy.Client) error {
			h, err := c.CheckAppHealth(ctx, "a")
			return want(h.Healthy, 2, err)
		}},
		{"GET " + n + "/a/logs?container=a-1&since=2026-11-21T08%3A00%3A00Z&tail=5", `{"logs":[{"message":"x"}],"unavailable":[{"container":"a-2"}]}`, func(c *buoy.Client) error {
			l, err := c.AppLogs(ctx, "a", buoy.AppLogOptions{Tail: 5, Replica: "a-1", Since: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)})
			return errors.Join(oneOf(l.Lines, err), oneOf(l.Unavailable, err))
		}},
		{"GET " + n + "/a/events?limit=5&since=2026-11-21T08%3A00%3A00Z&type=health", `{"events":[{"id":1}]}`, func(c *buoy.Client) error {
			return oneOf(c.AppEvents(ctx, "a", buoy.EventQuery{Limit: 5, Type: "health", Since: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}))
		}},
		{"GET /hosts?limit=1000&offset=0", `{"count":1,"result":[{"hostID":"h"}]}`, func(c *buoy.Client) error { return oneOf(c.Hosts(ctx)) }},
		{"GET /host/h%2F1/detail", `{}`, func(c *buoy.Client) error { _, err := c.Host(ctx, "h/1"); return err }},
		{`POST /host/h/drain {"reason":"user","detail":"a fan"}`, ``, func(c *buoy.Client) error { return c.DrainHost(ctx, "h", "a fan") }},
		{`POST /host/h/terminate {"reason":"user"}`, ``, func(c *buoy.Client) error { return c.TerminateHost(ctx, "h", "") }},
		{`POST /host/h/pause`, ``, func(c *buoy.Client) error { return c.PauseHost(ctx, "h") }},
		{`POST /host/h/resume`, ``, func(c *buoy.Client) error { return c.ResumeHost(ctx, "h") }},
	} {
		a := &asked{status: 200, body: test.body}
		c := server(t, a)
		if err := test.call(c); err != nil {
			t.Errorf("%s: %v", test.want, err)
		}
		if a.request != test.want {
			t.Errorf("asked for %s, want %s", a.request, test.want)
		}
	}
}

func oneOf[T any](list []T, err error) error { return want(len(list), 1, err) }

func want[T comparable](got, want T, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %v, want %v", got, want)
	}
	return err
}

func TestFindHost(t *testing.T) {
	c := server(t, &asked{status: 200, body: `{"count":3,"result":[{"hostID":"1","name":"a"},{"hostID":"2","name":"b"},{"hostID":"3","name":"b"}]}`})
	if h, err := c.FindHost(t.Context(), "A"); err != nil || h.ID != "1" {
		t.Errorf("by name: %+v, %v", h, err)
	}
	if h, err := c.FindHost(t.Context(), "3"); err != nil || h.ID != "3" {
		t.Errorf("by id: %+v, %v", h, err)
	}
	if _, err := c.FindHost(t.Context(), "b"); !errors.Is(err, buoy.ErrConflict) || err.Error() != `2 hosts are called "b": name the one you mean by its id` {
		t.Errorf("by a name of two: %v", err)
	}
	if _, err := c.FindHost(t.Context(), "c"); !errors.Is(err, buoy.ErrNotFound) {
		t.Errorf("by no name: %v", err)
	}
}

// TestErrorsOfDialects: each dialect has words of its own.
func TestErrorsOfDialects(t *testing.T) {
	c := server(t, &asked{status: 400, body: `{"error":"Invalid application specification","details":"it is wrong","code":"INVALID_SPEC","problems":[{"path":"kind","message":"is missing"}]}`})
	_, err := c.ApplyApps(t.Context(), nil)
	e, ok := errors.AsType[*buoy.Error](err)
	if !ok || e.Message != "it is wrong" || e.Code != "INVALID_SPEC" || !cmp.Equal(e.Problems, []buoy.Problem{{Path: "kind", Text: "is missing"}}) {
		t.Errorf("apps: %+v", err)
	}
	c = server(t, &asked{status: 503, body: `{"error":"Not enough system resources","details":"no room","hosts":[{"host":"1","name":"a","reason":"it is full"}]}`})
	err = c.StartApp(t.Context(), "a", 1, buoy.AppWait{})
	if e, ok := errors.AsType[*buoy.Error](err); !ok || !errors.Is(err, buoy.ErrUnavailable) || !cmp.Equal(e.WhyNot, []buoy.WhyNot{{Host: "1", Name: "a", Reason: "it is full"}}) {
		t.Errorf("apps: %+v", err)
	}
	c = server(t, &asked{status: 404, body: `{"ErrorId":"1","ErrorDescription":"Not found","ErrorDetail":"there is no host \"h\""}`})
	if err := c.PauseHost(t.Context(), "h"); err == nil || err.Error() != `there is no host "h"` || !errors.Is(err, buoy.ErrNotFound) {
		t.Errorf("hosts: %v", err)
	}
}

// streaming serves a WebSocket at one path, and JSON elsewhere.
func streaming(t *testing.T, path, elsewhere string, serve func(ctx context.Context, c *websocket.Conn)) *buoy.Client {
	return handled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != path {
			_, _ = w.Write([]byte(elsewhere))
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		serve(c.CloseRead(r.Context()), c)
		_ = c.CloseNow()
	})
}

func TestFollowAppLogs(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	c := streaming(t, "/api/v1/apps/a/logs?follow=true&tail=3", "", func(ctx context.Context, c *websocket.Conn) {
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"container":"a-1","message":"one"}`))
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"unavailable":[{"container":"a-3","error":"away"}]}`))
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"container":"a-2","message":"`+long+`"}`))
		_ = c.Close(websocket.StatusNormalClosure, "")
	})
	var got []string
	for line, err := range c.FollowAppLogs(t.Context(), "a", buoy.AppLogOptions{Tail: 3}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range line.Unavailable {
			got = append(got, "no "+r.Container+": "+r.Error)
		}
		if line.Message != "" {
			got = append(got, line.Container+" "+line.Message)
		}
	}
	if diff := cmp.Diff([]string{"a-1 one", "no a-3: away", "a-2 " + long}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFollowAppEvents(t *testing.T) {
	c := streaming(t, "/api/v1/events/stream?app=a", `{"events":[{"id":3,"message":"c"},{"id":2,"message":"b"}]}`, func(ctx context.Context, c *websocket.Conn) {
		for _, text := range []string{`{"id":3,"message":"c"}`, `{"id":4,"message":"d"}`} {
			_ = c.Write(ctx, websocket.MessageText, []byte(text))
		}
		_ = c.Close(websocket.StatusPolicyViolation, "events have been lost")
	})
	var got []string
	for e, err := range c.FollowAppEvents(t.Context(), "a", buoy.EventQuery{}) {
		if err != nil {
			got = append(got, err.Error())
			continue
		}
		got = append(got, e.Message)
	}
	if diff := cmp.Diff([]string{"b", "c", "d", "the stream has ended: events have been lost"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestFollowEnds: with its context, although nothing comes.
func TestFollowEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := make(chan struct{})
	c := streaming(t, "/api/v1/events/stream?type=health", "", func(gone context.Context, c *websocket.Conn) {
		_ = c.Write(gone, websocket.MessageText, []byte(`{"id":1}`))
		close(open)
		<-gone.Done()
	})
	n := 0
	for _, err := range c.FollowEvents(ctx, "", buoy.EventQuery{Type: "health"}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		<-open
		n++
		cancel()
	}
	if n != 1 {
		t.Errorf("%d events", n)
	}
	for _, err := range server(t, &asked{status: 404, body: `{"error":"no"}`}).FollowAppLogs(t.Context(), "b", buoy.AppLogOptions{}) {
		if !errors.Is(err, buoy.ErrNotFound) {
			t.Errorf("of an app that is not there: %v", err)
		}
	}
	for _, err := range server(t, &asked{status: 200, body: `{}`}).FollowAppLogs(t.Context(), "b", buoy.AppLogOptions{}) {
		if err == nil || !strings.Contains(err.Error(), "buoyd answered 200 OK to a WebSocket") {
			t.Errorf("without a WebSocket: %v", err)
		}
	}
}
