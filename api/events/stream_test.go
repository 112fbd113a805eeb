package events

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/egress"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
	"github.com/buoy-edge/buoy/node/webhooks"
)

// site is a log behind a server.
type site struct {
	t   *testing.T
	d   *Dialect
	log *events.Log
	srv *httptest.Server
}

func newSite(t *testing.T, segment int64) *site {
	t.Helper()
	log, err := events.Open(events.Config{Dir: t.TempDir(), Source: "/nodes/n", SegmentBytes: segment, Segments: 4})
	if err != nil {
		t.Fatal(err)
	}
	db, err := state.Open(t.Context(), filepath.Join(t.TempDir(), "node.db"))
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := webhooks.New(webhooks.Config{Events: log, Store: db, Keys: seal.New(), Rules: egress.Rules{Flag: "--webhook-allow"}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Log: log, Webhooks: hooks})
	if err != nil {
		t.Fatal(err)
	}
	server, err := api.New(api.Config{Dialects: []api.Dialect{d}})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, d, log, httptest.NewServer(server)}
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = log.Run(ctx) })
	t.Cleanup(func() {
		s.srv.Close()
		stop()
		run.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// emit adds events of containers c<from> to c<to>.
func (s *site) emit(from, to int) {
	for i := from; i <= to; i++ {
		typ := events.ContainerStarted
		if i%2 == 0 {
			typ = events.ContainerExited
		}
		s.log.Emit(s.t.Context(), events.Event{Type: typ, Subject: fmt.Sprintf("containers/c%d", i), Data: events.Data{
			Container: fmt.Sprintf("c%d", i), Image: "docker.io/library/nginx:latest",
		}})
	}
	s.log.Flush()
}

// get is the answer to a request.
func (s *site) get(query string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.srv.URL+"/events"+query, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return s.srv.Client().Do(req)
}

// told is what a whole answer tells, in short.
func (s *site) told(query string, header ...string) string {
	s.t.Helper()
	resp, err := s.get(query, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	var all []string
	for line := range bytes.Lines(body) {
		all = append(all, short(s.t, line))
	}
	return strings.Join(all, " ")
}

func short(t *testing.T, line []byte) string {
	t.Helper()
	var e events.Event
	if err := json.Unmarshal(line, &e); err != nil {
		t.Errorf("%q: %v", line, err)
	}
	if e.Type == events.Gap {
		return "gap:" + e.Data.Reason + e.Data.Attributes["missing"]
	}
	return strings.TrimPrefix(e.Subject, "containers/")
}

func TestPast(t *testing.T) {
	testleak.Check(t)
	s := newSite(t, 4<<10)
	if got := s.told(""); got != "" {
		t.Errorf("of nothing: %s", got)
	}
	s.emit(1, 5)
	id := func(n uint64) string { return (events.ID{Epoch: s.log.End().Epoch, Seq: n}).String() }
	soon := "?follow&until=" + time.Now().Add(3*time.Second).UTC().Format(time.RFC3339Nano)
	for query, want := range map[string]string{
		"":                                     "c1 c2 c3 c4 c5",
		"?type=container":                      "c1 c2 c3 c4 c5",
		"?type=container.exited":               "c2 c4",
		"?type=image,container.exited":         "c2 c4",
		"?type=image&type=container.started":   "c1 c3 c5",
		"?container=c2&container=c5":           "c2 c5",
		"?container=c2&type=container.started": "",
		"?image=nginx&limit=1":                 "c5",
		"?image=busybox":                       "",
		"?limit=2":                             "c4 c5",
		"?limit=2&type=container.exited":       "c2 c4",
		"?limit=9":                             "c1 c2 c3 c4 c5",
		"?after=" + id(3):                      "c4 c5",
		"?limit=2&after=" + id(1):              "c2 c3",
		"?since=1h&limit=1":                    "c5",
		"?since=1h":                            "c1 c2 c3 c4 c5",
		"?until=1h":                            "",
		"?after=other-3":                       "gap:Unknown c1 c2 c3 c4 c5",
		"?follow&until=1s":                     "",
		soon:                                   "",
		soon + "&limit=2":                      "c4 c5",
		soon + "&after=" + id(4):               "c5",
	} {
		if got := s.told(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if got := s.told("", "Last-Event-ID", id(3)); got != "c4 c5" {
		t.Errorf("by header: %s", got)
	}
	for query, want := range map[string]string{
		"?after=x": "parameter after", "?limit=0": "parameter limit", "?limit=x": "parameter limit", "?type=party": `\"party\" is no type of event`,
		"?since=yesterday": "parameter since", "?until=x": "parameter until", "?follow=maybe": "parameter follow",
		"?follow&limit=1&after=" + id(1): "do not go together",
	} {
		if got := s.told(query); !strings.HasPrefix(got, "400 ") || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want 400 and %s", query, got, want)
		}
	}
	s.emit(6, 200)
	if got := s.told("?after=" + id(2)); !strings.HasPrefix(got, "gap:Dropped") || !strings.HasSuffix(got, "c199 c200") {
		t.Errorf("long ago: %s", got)
	}
	resp, err := http.Head(s.srv.URL + "/events?follow")
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("HEAD: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	s.srv.Client().CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
}

func TestFollow(t *testing.T) {
	testleak.Check(t)
	s := newSite(t, 1<<20)
	s.emit(1, 2)
	resp, err := s.get("?follow&type=container.exited")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for i := 3; i < 9; i += 2 {
		s.emit(i, i+1)
		line, err := lines.ReadBytes('\n')
		if err != nil || short(t, line) != fmt.Sprintf("c%d", i+1) {
			t.Errorf("got %s, %v", line, err)
		}
	}
	if n := s.d.readers.now.Load(); n != 1 {
		t.Errorf("%d follow", n)
	}
	_ = resp.Body.Close()

	// A browser goes on where it was.
	resp, err = s.get("?follow", "Accept", "text/event-stream", "Last-Event-ID", (events.ID{Epoch: s.log.End().Epoch, Seq: 6}).String())
	if err != nil {
		t.Fatal(err)
	}
	if typ := resp.Header.Get("Content-Type"); typ != "text/event-stream" {
		t.Errorf("content type %s", typ)
	}
	lines = bufio.NewReader(resp.Body)
	s.emit(9, 9)
	for i := 7; i <= 9; i++ {
		var text [3]string
		for j := range text {
			if text[j], err = lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		data, ok := strings.CutPrefix(text[1], "data: ")
		if text[0] != fmt.Sprintf("id: %s-%d\n", s.log.End().Epoch, i) || !ok || short(t, []byte(data)) != fmt.Sprintf("c%d", i) || text[2] != "\n" {
			t.Errorf("%d: %q", i, text)
		}
	}
	_ = resp.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); s.d.readers.now.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("who has gone still follows")
		}
	}
}

// TestStandstill: a client that does not read is cut off, and has cost no memory.
func TestStandstill(t *testing.T) {
	testleak.Check(t)
	s := newSite(t, 1<<20)
	s.d.patience = 300 * time.Millisecond
	conn, err := net.Dial("tcp", s.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /events?follow HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { // one that reads beside it
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.srv.URL+"/events?follow&type=container.exited", nil)
		if err == nil {
			var resp *http.Response
			if resp, err = s.srv.Client().Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
		if err != nil {
			t.Error(err)
		}
	}()
	for s.d.readers.now.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; s.d.readers.cut.Load() == 0; i++ { // the kernel takes some MB
		if s.emit(i, i+1000); time.Now().After(deadline) {
			t.Fatal("it is not cut off")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes more", grown)
	}
	if n := s.d.readers.now.Load(); n != 1 {
		t.Errorf("%d follow", n)
	}
}

// TestThousand follow, all of them get everything, and an event costs each of
// them little.
func TestThousand(t *testing.T) {
	testleak.Check(t)
	const many, each = 1000, 20
	s := newSite(t, 1<<20)
	var wg sync.WaitGroup
	for range many {
		resp, err := s.get("?follow")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			for i := 1; i <= each; i++ {
				if !lines.Scan() || short(t, lines.Bytes()) != fmt.Sprintf("c%d", i) {
					t.Errorf("%d: %s %v", i, lines.Bytes(), lines.Err())
					return
				}
			}
		})
	}
	begun := time.Now()
	for i := 1; i <= each; i++ {
		s.emit(i, i)
	}
	wg.Wait()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("%d events to %d clients took %v", each, many, took)
	}
}
