package buoy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// asked serves one answer to everything but GET /nodes, and remembers the
// last request.
type asked struct {
	status  int
	body    string
	request string
	nodes   int // requests for /nodes
	auth    string
}

func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/nodes" {
		a.nodes++
		_, _ = io.WriteString(w, `[{"id":"525400123456","hostname":"core0node","status":"running"}]`)
		return
	}
	body, _ := io.ReadAll(r.Body)
	a.request = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + string(body))
	a.auth = r.Header.Get("Authorization")
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

func server(t *testing.T, a *asked, opts ...buoy.Option) *buoy.Client {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	c, err := buoy.New(s.URL, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRequests: what each method asks for.
func TestRequests(t *testing.T) {
	ctx := t.Context()
	const n = "/nodes/525400123456"
	for _, test := range []struct {
		want, body string
		call       func(*buoy.Client) error
	}{
		{"GET " + n, `{}`, func(c *buoy.Client) error { _, err := c.Node(ctx, ""); return err }},
		{"GET /nodes/x%2Fy", `{}`, func(c *buoy.Client) error { _, err := c.Node(ctx, "x/y"); return err }},
		{"GET " + n + "/mem", `[{"total":7}]`, func(c *buoy.Client) error { return seven(c.Memory(ctx, "")) }},
		{"GET " + n + "/containers/a/mem", `{"total":7}`, func(c *buoy.Client) error { return seven(c.Memory(ctx, "a")) }},
		{"GET " + n + "/cpus", `null`, func(c *buoy.Client) error { _, err := c.CPUs(ctx, ""); return err }},
		{"GET " + n + "/containers/a/nics", `[]`, func(c *buoy.Client) error { _, err := c.Interfaces(ctx, "a"); return err }},
		{"GET " + n + "/info", `{}`, func(c *buoy.Client) error { _, err := c.OS(ctx, ""); return err }},
		{"GET " + n + "/state", `{}`, func(c *buoy.Client) error { _, err := c.State(ctx, ""); return err }},
		{"POST " + n + "/ping", `true`, func(c *buoy.Client) error { _, err := c.Ping(ctx, ""); return err }},
		{"GET " + n + "/disks", `[]`, func(c *buoy.Client) error { _, err := c.Disks(ctx); return err }},
		{"GET " + n + "/mounts", `[]`, func(c *buoy.Client) error { _, err := c.Mounts(ctx); return err }},
		{"GET " + n + "/stats", `{"a/b":{"current":{"300":{"avg":1}}}}`, func(c *buoy.Client) error { _, err := c.Stats(ctx); return err }},
		{"GET " + n + "/processes", `[{"pid":1,"cpu":{"user":0.04}}]`, func(c *buoy.Client) error { _, err := c.Processes(ctx, ""); return err }},
		{"GET " + n + "/containers/a/processes/1", `{}`, func(c *buoy.Client) error { _, err := c.Process(ctx, "a", 1); return err }},
		{"POST " + n + `/containers/a/processes/1 {"signal":9}`, ``, func(c *buoy.Client) error { return c.SignalProcess(ctx, "a", 1, 9) }},
		{"DELETE " + n + "/processes/7", ``, func(c *buoy.Client) error { return c.KillProcess(ctx, "", 7) }},
		{"POST " + n + `/reboot {"force":true}`, ``, func(c *buoy.Client) error { return c.Reboot(ctx, true) }},
		{"GET " + n + "/containers", `[]`, func(c *buoy.Client) error { _, err := c.Containers(ctx); return err }},
		{"GET " + n + "/containers/a%20b", `{"status":"running"}`, func(c *buoy.Client) error { _, err := c.Container(ctx, "a b"); return err }},
		{"POST " + n + `/containers {"name":"a","flist":"nginx","nics":null}`, ``, func(c *buoy.Client) error {
			return c.Create(ctx, buoy.CreateRequest{Name: "a", Flist: "nginx"})
		}},
		{"POST " + n + "/containers/a/start", ``, func(c *buoy.Client) error { return c.Start(ctx, "a") }},
		{"POST " + n + "/containers/a/stop", ``, func(c *buoy.Client) error { return c.Stop(ctx, "a") }},
		{"POST " + n + "/containers/a/restart", ``, func(c *buoy.Client) error { return c.Restart(ctx, "a") }},
		{"POST " + n + "/containers/a/health/check", `{"status":"healthy","responseTime":0.5}`, func(c *buoy.Client) error {
			s, err := c.CheckHealth(ctx, "a")
			if s.Status != "healthy" || s.ResponseTime != 0.5 {
				t.Errorf("health = %+v", s)
			}
			return err
		}},
		{"DELETE " + n + "/containers/a", ``, func(c *buoy.Client) error { return c.Delete(ctx, "a") }},
		{"PUT " + n + `/containers/a {"nics":[]}`, ``, func(c *buoy.Client) error { return c.Update(ctx, "a", buoy.ContainerUpdate{NICs: &[]buoy.NIC{}}) }},
		{"PUT " + n + `/containers/a {"ports":["80:80"]}`, ``, func(c *buoy.Client) error {
			return c.Update(ctx, "a", buoy.ContainerUpdate{Ports: &[]string{"80:80"}})
		}},
		{"GET " + n + "/bridges", `[]`, func(c *buoy.Client) error { _, err := c.Bridges(ctx); return err }},
		{"GET " + n + "/bridges/a%2Fb", `{}`, func(c *buoy.Client) error { _, err := c.Bridge(ctx, "a/b"); return err }},
		{"POST " + n + `/bridges {"name":"a","networkMode":"static","nat":true,"setting":{"cidr":"10.0.0.1/24"}}`, ``, func(c *buoy.Client) error {
			return c.CreateBridge(ctx, buoy.Bridge{Name: "a", NetworkMode: "static", NAT: true, Setting: buoy.BridgeSetting{CIDR: "10.0.0.1/24"}})
		}},
		{"DELETE " + n + "/bridges/a", ``, func(c *buoy.Client) error { return c.DeleteBridge(ctx, "a") }},
		{"GET " + n + "/jobs", `[]`, func(c *buoy.Client) error { _, err := c.Jobs(ctx, ""); return err }},
		{"GET " + n + "/containers/a/jobs/j", `{}`, func(c *buoy.Client) error { _, err := c.Job(ctx, "a", "j"); return err }},
		{"POST " + n + `/containers/a/jobs/j {"signal":15}`, ``, func(c *buoy.Client) error { return c.SignalJob(ctx, "a", "j", 15) }},
		{"DELETE " + n + "/containers/a/jobs/j", ``, func(c *buoy.Client) error { return c.KillJob(ctx, "a", "j") }},
		{"DELETE " + n + "/jobs", ``, func(c *buoy.Client) error { return c.KillJobs(ctx, "") }},
		{"DELETE " + n + `/containers/a/filesystem {"path":"/x"}`, ``, func(c *buoy.Client) error { return c.RemoveFile(ctx, "a", "/x") }},
		{"GET " + n + "/containers/a/filesystem?path=%2Fx+y", `data`, func(c *buoy.Client) error {
			r, err := c.Download(ctx, "a", "/x y")
			return readAll(r, err, "data")
		}},
		{"GET " + n + "/containers/a/logs?follow=true&format=cri&since=2026-11-21T08%3A00%3A00Z&stream=stderr&tail=5&timestamps=true", "x\n", func(c *buoy.Client) error {
			o := buoy.LogOptions{Tail: 5, Since: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), Follow: true, Stream: "stderr", Timestamps: true, CRI: true}
			r, err := c.Logs(ctx, "a", o)
			return readAll(r, err, "x\n")
		}},
		{"GET " + n + "/images", `[]`, func(c *buoy.Client) error { _, err := c.Images(ctx); return err }},
		{"GET " + n + "/images/df", `{"reclaimable":7}`, func(c *buoy.Client) error {
			u, err := c.ImageUsage(ctx)
			if err == nil && u.Reclaimable != 7 {
				err = fmt.Errorf("%+v", u)
			}
			return err
		}},
		{"PUT " + n + "/images/pin?ref=a%2Fb%3A1", ``, func(c *buoy.Client) error { return c.PinImage(ctx, "a/b:1") }},
		{"DELETE " + n + "/images/pin?ref=a%2Fb%3A1", ``, func(c *buoy.Client) error { return c.UnpinImage(ctx, "a/b:1") }},
		{"GET " + n + "/images/export?ref=a%2Fb%3A1", `archive`, func(c *buoy.Client) error {
			r, err := c.ExportImage(ctx, "a/b:1")
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			if string(data) != "archive" {
				err = fmt.Errorf("%q, %w", data, err)
			}
			return errors.Join(err, r.Close())
		}},
		{"POST " + n + "/images/import?ref=a%3A1&signature=c2ln archive", `{"ref":"a:1"}`, func(c *buoy.Client) error {
			image, err := c.ImportImage(ctx, strings.NewReader("archive"), "a:1", "c2ln")
			if err == nil && image.Ref != "a:1" {
				err = fmt.Errorf("%+v", image)
			}
			return err
		}},
		{"POST " + n + "/images/import archive", `{"ref":"a:1"}`, func(c *buoy.Client) error {
			_, err := c.ImportImage(ctx, strings.NewReader("archive"), "", "")
			return err
		}},
		{"DELETE " + n + "/images?ref=a%2Fb%3A1", ``, func(c *buoy.Client) error { return c.RemoveImage(ctx, "a/b:1", false) }},
		{"DELETE " + n + "/images?ref=a&force=true", ``, func(c *buoy.Client) error { return c.RemoveImage(ctx, "a", true) }},
		{"GET /health", `{"status":"ok"}`, func(c *buoy.Client) error { _, err := c.Health(ctx); return err }},
		{"GET /version", `{"version":"v1"}`, func(c *buoy.Client) error { _, err := c.Version(ctx); return err }},
	} {
		a := &asked{status: 200, body: test.body}
		c := server(t, a, buoy.WithToken("secret"))
		if err := test.call(c); err != nil {
			t.Errorf("%s: %v", test.want, err)
		}
		if a.request != test.want {
			t.Errorf("asked for %s, want %s", a.request, test.want)
		}
		if a.auth != "Bearer secret" {
			t.Errorf("%s: authorization %q", test.want, a.auth)
		}
	}
}

func seven(m buoy.Memory, err error) error {
	if err == nil && m.Total != 7 {
		return fmt.Errorf("total %d", m.Total)
	}
	return err
}

func readAll(r io.ReadCloser, err error, want string) error {
	if err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if string(text) != want {
		return fmt.Errorf("read %q", text)
	}
	return errors.Join(err, r.Close())
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		status int
		kind   error
	}{
		{400, buoy.ErrInvalid},
		{401, buoy.ErrUnauthorized},
		{403, buoy.ErrForbidden},
		{404, buoy.ErrNotFound},
		{409, buoy.ErrConflict},
		{422, buoy.ErrInvalid},
		{503, buoy.ErrUnavailable},
	} {
		c := server(t, &asked{status: test.status, body: `{"error":"this is why"}`})
		err := c.Start(t.Context(), "a")
		answer, ok := errors.AsType[*buoy.Error](err)
		if !ok || answer.Status != test.status || err.Error() != "this is why" || !errors.Is(err, test.kind) {
			t.Errorf("%d: %#v, want %v", test.status, err, test.kind)
		}
	}
	c := server(t, &asked{status: 500})
	err := c.Start(t.Context(), "a")
	if want := "buoyd answered 500 Internal Server Error to POST /nodes/525400123456/containers/a/start"; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

func TestTLSToPlain(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c, err := buoy.New("https://" + s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); err == nil || !strings.HasSuffix(err.Error(), " speaks no TLS: begin its address with http://") {
		t.Errorf("error = %v", err)
	}
}

func TestPlainToTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c, err := buoy.New("http://" + s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); err == nil || err.Error() != "what answers speaks TLS: begin its address with https://" {
		t.Errorf("error = %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	addr := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	c, err := buoy.New(addr)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Health(t.Context())
	if !errors.Is(err, buoy.ErrUnreachable) || !strings.Contains(err.Error(), "cannot reach buoyd at "+addr+", is it running?") {
		t.Errorf("error = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Health(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, buoy.ErrUnreachable) {
		t.Errorf("error after cancel = %v", err)
	}
}

// TestNames: no name may turn a request into one about something else.
func TestNames(t *testing.T) {
	a := &asked{status: 200}
	c := server(t, a)
	for _, name := range []string{"", ".", ".."} {
		if err := c.Delete(t.Context(), name); !errors.Is(err, buoy.ErrInvalid) {
			t.Errorf("Delete(%q) = %v, want invalid", name, err)
		}
	}
	if a.request != "" {
		t.Errorf("asked for %s", a.request)
	}
	if err := c.Delete(t.Context(), "{node}/../x"); err != nil || strings.Contains(a.request, "containers/x") || strings.Contains(a.request, "525400123456/..") {
		t.Errorf("asked for %s, %v", a.request, err)
	}
}

func TestSelf(t *testing.T) {
	a := &asked{status: 200, body: "[]"}
	c := server(t, a, buoy.WithNode("self"))
	for range 3 {
		if _, err := c.Containers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if a.nodes != 1 {
		t.Errorf("asked %d times for the nodes, want once", a.nodes)
	}
	if _, err := c.On("other").Containers(t.Context()); err != nil || a.request != "GET /nodes/other/containers" || a.nodes != 1 {
		t.Errorf("asked for %s, %d times for the nodes, %v", a.request, a.nodes, err)
	}

	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"id":"1"},{"id":"2"}]`)
	}))
	defer s.Close()
	several, err := buoy.New(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := several.NodeID(t.Context()); id != "1" || err != nil {
		t.Errorf("of two nodes the client is about %q, %v; want the first, which is the daemon's own", id, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, addr := range []string{"", "localhost:80", "unix://run/x", "ftp://x", "http://", "http://u@h", "http://h?x", "/run/x"} {
		if _, err := buoy.New(addr); err == nil {
			t.Errorf("New(%q) worked", addr)
		}
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(&asked{status: 200, body: `{"version":"v1"}`})
	s.Listener.Close()
	s.Listener = listener
	s.Start()
	defer s.Close()
	c, err := buoy.New("unix://"+socket, buoy.WithHTTPClient(&http.Client{Timeout: time.Minute}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, err := c.Version(t.Context()); err != nil || v.Version != "v1" || string(v.Raw) != `{"version":"v1"}` {
		t.Errorf("Version = %+v, %v", v, err)
	}
}
