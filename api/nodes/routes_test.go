package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
)

// TestRoutes has a line for what each route says to the present and the absent.
func TestRoutes(t *testing.T) {
	c, gone := here+"/containers/vfw_21", here+"/containers/nobody"
	for _, tt := range []struct {
		method, path, body string
		status             int
		answer             string // part of the body, or "" for none at all
		did                string // what reached the node
	}{
		{"GET", "/nodes", "", 200, `"ipaddress":"10.0.0.2","version":"v1"`, ""},
		{"GET", here, "", 200, `{"hostname":"core0node"`, ""},
		{"GET", "/nodes/other", "", 404, `node \"other\" is not known here: this is node \"525400123456\"`, ""},
		{"GET", "/nodes/other/containers", "", 404, `node \"other\"`, ""},
		{"DELETE", "/nodes/other/containers/x", "", 404, `node`, ""},
		{"GET", here + "/mem", "", 200, `[{"active":`, ""},
		{"GET", here + "/cpus", "", 200, `"cacheSize":`, ""},
		{"GET", here + "/disks", "", 200, `[`, ""},
		{"GET", here + "/nics", "", 200, `"hardwareaddr":`, ""},
		{"GET", here + "/gpus", "", 200, `{"driver":"","cuda":"","trouble":"","gpus":[],"links":[]}`, ""},
		{"GET", here + "/mounts", "", 200, `"mountpoint":`, ""},
		{"GET", here + "/info", "", 200, `"gpus":0,"gpuDriver":""`, ""},
		{"GET", here + "/state", "", 200, `{"cpu":`, ""},
		{"GET", here + "/stats", "", 200, `"300":{"avg":`, ""},
		{"POST", here + "/ping", "", 200, "true\n", ""},
		{"POST", here + "/reboot", "", 204, "", "reboot false"},
		{"POST", here + "/reboot", "{}", 204, "", "reboot false"},
		{"POST", here + "/reboot", `{"force":true}`, 204, "", "reboot true"},
		{"POST", here + "/reboot", `{"force":1}`, 400, `field \"force\" must be true or false`, ""},
		{"GET", here + "/processes", "", 200, `"cmdline":`, ""},
		{"GET", here + "/processes/x", "", 400, `process id`, ""},
		{"GET", here + "/processes/2147483647", "", 404, `error`, ""},
		{"GET", here + "/processes/99999999999", "", 400, `error`, ""},
		{"DELETE", here + "/processes/7", "", 204, "", "kill host 7"},
		{"DELETE", here + "/processes/1", "", 409, `the node itself`, ""},
		{"DELETE", here + "/processes/-7", "", 400, `error`, ""},
		{"GET", here + "/jobs", "", 200, jobID, ""},
		{"DELETE", here + "/jobs", "", 204, "", "kill all jobs"},
		{"GET", here + "/jobs/" + jobID, "", 200, `"stdout":"hello\n"`, ""},
		{"GET", here + "/jobs/none", "", 404, `none`, ""},
		{"DELETE", here + "/jobs/" + jobID, "", 204, "", "signal job " + jobID + " 9"},
		{"DELETE", here + "/jobs/none", "", 204, "", ""},
		{"GET", here + "/volumes", "", 200, `[{"name":"data","containers":["web"]},{"name":"old","containers":[]}]`, ""},
		{"DELETE", here + "/volumes/old", "", 204, "", "delete volume old"},
		{"DELETE", here + "/volumes/none", "", 204, "", ""},
		{"DELETE", here + "/volumes/data", "", 409, `uses volume`, ""},

		{"GET", here + "/bridges", "", 200, `[{"name":"lan0","setting":{"cidr":"192.168.7.1/24","start":"192.168.7.10","end":""},"status":"up",`, ""},
		{"GET", here + "/bridges/lan0", "", 200, `"networkMode":"dnsmasq","nat":true`, ""},
		{"GET", here + "/bridges/none", "", 404, `no bridge \"none\"`, ""},
		{
			"POST", here + "/bridges", `{"name":"b","networkMode":"static","nat":true,"setting":{"cidr":"10.0.0.1/24","start":"10.0.0.9","end":"10.0.0.20"}}`, 201, "",
			"create bridge b static nat=true 10.0.0.1/24 10.0.0.9-10.0.0.20",
		},
		{"POST", here + "/bridges", `{"name":"lan0","networkMode":"none"}`, 409, `exists already`, ""},
		{"POST", here + "/bridges", `{"name":"b"}`, 400, `field \"networkMode\" is missing`, ""},
		{"POST", here + "/bridges", `{"name":"b","networkMode":"static","setting":{"cidr":"10.0.0.1"}}`, 400, `field \"setting.cidr\"`, ""},
		{"POST", here + "/bridges", `{"name":"b","networkMode":"static","setting":{"cidr":"10.0.0.1/24","start":"x"}}`, 400, `field \"setting.start\"`, ""},
		{"DELETE", here + "/bridges/lan0", "", 204, "", "delete bridge lan0"},
		{"DELETE", here + "/bridges/none", "", 204, "", ""},
		{"GET", here + "/images", "", 200, "[]\n", ""},
		{"POST", here + "/images", `{}`, 400, `field \"ref\"`, ""},
		{"DELETE", here + "/images?ref=nginx", "", 204, "", "remove image nginx"},
		{"DELETE", here + "/images?ref=used", "", 409, `{"error":"container \"web\" starts from image \"used\""}`, ""},
		{"DELETE", here + "/images?ref=used&force=true", "", 204, "", "remove image used"},
		{"DELETE", here + "/images?ref=used&force=perhaps", "", 400, "parameter force", ""},
		{"DELETE", here + "/images", "", 400, `parameter ref`, ""},
		{"PUT", here + "/images/pin?ref=nginx", "", 204, "", "pin image nginx true"},
		{"PUT", here + "/images/pin", "", 400, `parameter ref`, ""},
		{"DELETE", here + "/images/pin?ref=nginx", "", 204, "", "pin image nginx false"},
		{"DELETE", here + "/images/pin?ref=", "", 400, `parameter ref`, ""},
		{"GET", here + "/images/df", "", 200, `"layers":{"count":2,"bytes":30},"flists":{"count":1,"bytes":3},"chunks":{"count":4,"bytes":11},"partial":{"count":1,"bytes":7},"reclaimable":17`, "image usage"},
		{"GET", here + "/images/export?ref=app:1", "", 200, "the archive of app:1", "export image app:1"},
		{"GET", here + "/images/export", "", 400, `parameter ref`, ""},
		{"POST", here + "/images/import?ref=app:1&signature=c2ln", "bytes", 201, `"signedBy":"c2ln"`, `import image "app:1" from "bytes"`},
		{"POST", here + "/images/import", "bytes", 201, `"ref":""`, `import image "" from "bytes"`},

		{"GET", here + "/logins", "", 200, `[{"registry":"docker.io","username":"me"}]`, ""},
		{"POST", here + "/logins", `{"registry":"r:5000","username":"me","password":"secret"}`, 204, "", "login r:5000 me"},
		{"POST", here + "/logins", `{"registry":"r:5000","username":"me","password":"wrong"}`, 400, `registry r:5000 does not take this`, ""},
		{"POST", here + "/logins", `{"registry":"r:5000","username":"me"}`, 400, `field \"password\" is missing`, ""},
		{"POST", here + "/logins", `{"registry":"r:5000","username":"me","password":1234}`, 400, `{"error":"field \"password\" must be text, not a number"}`, ""},
		{"DELETE", here + "/logins?registry=r:5000", "", 204, "", "logout r:5000"},
		{"DELETE", here + "/logins", "", 400, `parameter registry`, ""},

		{"GET", here + "/containers", "", 200, `"id":"vfw_21"`, ""},
		{"POST", here + "/containers", `{"id":"vfw_21","flist":"x"}`, 409, `already exists`, "create vfw_21"},
		{"POST", here + "/containers", "", 400, `body is empty`, ""},
		{"GET", c, "", 200, `"state":"running"`, ""},
		{"GET", here + "/containers/vfw%5F21", "", 200, `"name":"vfw_21"`, ""},
		{"GET", here + "/containers/a%2F..", "", 404, `error`, ""},
		{"GET", gone, "", 404, `error`, ""},
		{"PUT", c, `{"nics":[]}`, 204, "", "nics 0 vfw_21"},
		{"PUT", c, `{"ports":["80:80","81:81"]}`, 204, "", "ports 2 vfw_21"},
		{"PUT", c, `{"nics":[{"type":"default"}],"ports":[]}`, 204, "", "nics 1 ports 0 vfw_21"},
		{"PUT", c, `{"ports":["x"]}`, 400, `port \"x\"`, ""},
		{"PUT", c, `{}`, 400, `field \"nics\" is missing`, ""},
		{"PUT", gone, `{"nics":[]}`, 404, `error`, ""},
		{"DELETE", c, "", 204, "", "delete vfw_21"},
		{"DELETE", gone, "", 204, "", ""},
		{"DELETE", here + "/containers/..", "", 204, "", ""},
		{"POST", c + "/start", "", 201, "", "start vfw_21"},
		{"POST", gone + "/start", "", 404, `error`, ""},
		{"POST", c + "/stop", "", 204, "", "stop vfw_21"},
		{"POST", gone + "/stop", "", 404, `error`, ""},
		{"POST", c + "/kill", "", 204, "", "kill 9 vfw_21"},
		{"POST", c + "/kill", `{"signal":15}`, 204, "", "kill 15 vfw_21"},
		{"POST", c + "/kill", `{"signal":0}`, 400, `field \"signal\" must be 1 to 64, not 0`, ""},
		{"POST", c + "/kill", `{"signal":"HUP"}`, 400, `field \"signal\"`, ""},
		{"POST", gone + "/kill", "", 404, `error`, ""},
		{"POST", c + "/restart", "", 204, "", "restart vfw_21"},
		{"POST", gone + "/restart", "", 404, `error`, ""},
		{"POST", c + "/ping", "", 200, "true\n", ""},
		{"POST", gone + "/ping", "", 404, `error`, ""},
		{"POST", c + "/health/check", "", 200, `{"status":"unhealthy","failures":3,"lastCheck":"1970-01-01T00:01:00Z","lastError":"answered 503","responseTime":0.0015}`, "check vfw_21"},
		{"POST", gone + "/health/check", "", 404, `error`, ""},
		{"GET", c + "/mem", "", 200, `[{"active":0`, ""},
		{"GET", gone + "/mem", "", 404, `error`, ""},
		{"GET", c + "/cpus", "", 200, `"cacheSize":`, ""},
		{"GET", gone + "/cpus", "", 404, `error`, ""},
		{"GET", c + "/nics", "", 200, "[]\n", ""},
		{"GET", c + "/info", "", 200, `"os":"linux"`, ""},
		{"GET", c + "/state", "", 200, `{"cpu":1.5,`, ""},
		{"GET", gone + "/state", "", 404, `error`, ""},

		{"GET", c + "/export", "", 200, "the files of vfw_21", ""},
		{"GET", gone + "/export", "", 404, `error`, ""},

		{"GET", c + "/jobs", "", 200, jobID, ""},
		{"GET", gone + "/jobs", "", 404, `error`, ""},
		{"POST", c + "/jobs", `{"name":"/bin/true"}`, 202, "", "exec /bin/true vfw_21"},
		{"POST", c + "/processes", `{"name":"/bin/true","env":["A=B=C"]}`, 202, "", "exec /bin/true vfw_21"},
		{"POST", c + "/jobs", `{"args":["x"]}`, 400, `field \"name\"`, ""},
		{"POST", gone + "/jobs", `{"name":"x"}`, 404, `error`, ""},
		{"DELETE", c + "/jobs", "", 204, "", "kill jobs vfw_21"},
		{"DELETE", gone + "/jobs", "", 204, "", ""},
		{"GET", c + "/jobs/" + jobID, "", 200, `"state":"running"`, ""},
		{"GET", c + "/jobs/" + jobID + "?wait=0.01", "", 200, `"state":"running"`, ""},
		{"GET", c + "/jobs/" + jobID + "?wait=-1", "", 400, `parameter wait`, ""},
		{"GET", c + "/jobs/" + jobID + "?wait=NaN", "", 400, `parameter wait`, ""},
		{"GET", c + "/jobs/none", "", 404, `error`, ""},
		{"GET", c + "/jobs/none?wait=9", "", 404, `error`, ""},
		{"POST", c + "/jobs/" + jobID, `{"signal":15}`, 204, "", "signal job " + jobID + " 15"},
		{"POST", c + "/jobs/" + jobID, `{"signal":0}`, 400, `field \"signal\"`, ""},
		{"POST", c + "/jobs/" + jobID, `{}`, 400, `field \"signal\"`, ""},
		{"POST", c + "/jobs/" + jobID, `{"signal":65}`, 400, `field \"signal\"`, ""},
		{"POST", c + "/jobs/none", `{"signal":15}`, 404, `error`, ""},
		{"DELETE", c + "/jobs/none", "", 204, "", ""},
		{"DELETE", gone + "/jobs/none", "", 204, "", ""},

		{"GET", c + "/exec", "", 426, `with a WebSocket`, ""},
		{"GET", gone + "/attach", "", 426, `with a WebSocket`, ""},
		{"POST", c + "/exec", `{"command":["a","b"],"env":["A=B"],"stdin":"x"}`, 409, `nothing runs`, `exec session vfw_21 ["a" "b"] tty=false 0x0 open=true`},
		{"POST", c + "/exec", `{"command":[]}`, 400, `field \"command\"`, ""},
		{"POST", c + "/exec", `{"command":["a\u0000"]}`, 400, `NUL`, ""},
		{"POST", c + "/exec", `{"command":["a"],"tty":true}`, 400, `tty`, ""},
		{"POST", gone + "/exec", `{"command":["a"]}`, 404, `error`, ""},

		{"GET", c + "/processes", "", 200, `"user":0.04`, ""},
		{"GET", gone + "/processes", "", 404, `error`, ""},
		{"GET", c + "/processes/1", "", 200, `"pid":1`, ""},
		{"GET", c + "/processes/2", "", 404, `error`, ""},
		{"GET", c + "/processes/x", "", 400, `error`, ""},
		{"POST", c + "/processes/1", `{"signal":1}`, 204, "", "signal 1 1"},
		{"POST", c + "/processes/1", ``, 400, `body is empty`, ""},
		{"POST", c + "/processes/2", `{"signal":1}`, 404, `error`, ""},
		{"DELETE", c + "/processes/1", "", 204, "", "kill 1 vfw_21"},
		{"DELETE", gone + "/processes/1", "", 204, "", ""},
		{"DELETE", gone + "/processes/x", "", 400, `error`, ""},

		{"GET", c + "/filesystem?path=/etc/motd", "", 200, "welcome\n", ""},
		{"GET", c + "/filesystem?path=/etc/../etc/motd", "", 200, "welcome\n", ""},
		{"GET", c + "/filesystem?path=/none", "", 404, `error`, ""},
		{"GET", c + "/filesystem", "", 400, `path is missing`, ""},
		{"GET", c + "/filesystem?path=etc", "", 400, `absolute`, ""},
		{"GET", c + "/filesystem?path=/a%00b", "", 400, `absolute`, ""},
		{"POST", c + "/filesystem?path=/x", "y", 400, `multipart`, ""},
		{"POST", c + "/filesystem", "y", 400, `path is missing`, ""},
		{"POST", gone + "/filesystem?path=/x", "y", 404, `error`, ""},
		{"DELETE", c + "/filesystem", `{"path":"/x"}`, 204, "", "remove /x vfw_21"},
		{"DELETE", c + "/filesystem?path=/x", ``, 204, "", "remove /x vfw_21"},
		{"DELETE", c + "/filesystem", `{}`, 400, `path is missing`, ""},
		{"DELETE", gone + "/filesystem", `{"path":"/x"}`, 204, "", ""},

		{"GET", c + "/logs", "", 200, "one\ntwo\n", "logs vfw_21 tail 0 stream \"\""},
		{"GET", c + "/logs?tail=5&stream=stderr&timestamps=1", "", 200, "1970-01-01T00:00:01.000000005Z one\n", "logs vfw_21 tail 5 stream \"stderr\""},
		{"GET", c + "/logs?format=cri", "", 200, "1970-01-01T00:00:01.000000005Z stdout F one\n", "logs vfw_21 tail 0 stream \"\""},
		{"GET", c + "/logs?format=json", "", 400, `parameter format`, ""},
		{"GET", c + "/logs?format=ndjson", "", 200, `{"id":"0-0","time":"1970-01-01T00:00:01.000000005Z","stream":"stdout","text":"one"}`, "logs vfw_21 tail 0 stream \"\""},
		{"GET", c + "/logs?after=last", "", 400, `is no place in a log`, ""},
		{"GET", c + "/logs?tail=x", "", 400, `parameter tail`, ""},
		{"GET", c + "/logs?since=soon", "", 400, `parameter since`, ""},
		{"GET", c + "/logs?follow=perhaps", "", 400, `parameter follow`, ""},
		{"GET", c + "/logs?stream=stdin", "", 400, `parameter stream`, ""},
		{"GET", gone + "/logs", "", 404, `error`, ""},
	} {
		f, s := server(t)
		w := ask(s, tt.method, tt.path, tt.body)
		body := w.Body.String()
		if w.Code != tt.status || !strings.Contains(body, tt.answer) || tt.answer == "" && body != "" {
			t.Errorf("%s %s %s = %d %.200q, want %d with %q", tt.method, tt.path, tt.body, w.Code, body, tt.status, tt.answer)
		}
		if got := strings.Join(f.done(), "; "); got != tt.did {
			t.Errorf("%s %s %s did %q, want %q", tt.method, tt.path, tt.body, got, tt.did)
		}
	}
}

func TestLocations(t *testing.T) {
	_, s := server(t)
	w := ask(s, "POST", here+"/containers/vfw_21/jobs", `{"name":"x"}`)
	if got, want := w.Header().Get("Location"), here+"/containers/vfw_21/jobs/job1"; got != want {
		t.Errorf("Location = %q, want %q", got, want)
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		answer string
	}{
		{errs.E(errs.NotFound, "no"), 404, "no"},
		{errs.E(errs.Exists, "there"), 409, "there"},
		{errs.E(errs.Invalid, "bad"), 400, "bad"},
		{errs.E(errs.Conflict, "busy"), 409, "busy"},
		{errs.E(errs.Unavailable, "away"), 503, "away"},
		{fmt.Errorf("start x: %w", errs.E(errs.Conflict, "halted")), 409, "start x: halted"},
		{errors.Join(errs.E(errs.Conflict, "one"), errors.New("two")), 409, "one; two"},
		{errSecret, 500, "internal error; see the log of buoyd, request id r1"},
		{errs.E(errs.Internal, "x: %w", errSecret), 500, "internal error"},
	} {
		var log bytes.Buffer
		f := newFake()
		d, err := New(Config{Node: f, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
		if err != nil {
			t.Fatal(err)
		}
		f.fail = tt.err
		r := httptest.NewRequest("POST", here+"/containers/vfw_21/stop", nil)
		r.Header.Set("X-Request-Id", "r1")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var body struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if w.Code != tt.status || !strings.HasPrefix(body.Error, tt.answer) || strings.Contains(body.Error, "secret") {
			t.Errorf("%v = %d %s, want %d %s", tt.err, w.Code, body.Error, tt.status, tt.answer)
		}
		logged := strings.Count(log.String(), "secret")
		if want := map[bool]int{true: 1}[tt.status == 500]; logged != want || want == 1 && !strings.Contains(log.String(), "request_id=r1") {
			t.Errorf("%v is logged %d times, want %d: %s", tt.err, logged, want, log.String())
		}
	}
}

// TestInternalBySocket: who came by the unix socket reads what went wrong.
func TestInternalBySocket(t *testing.T) {
	for door, want := range map[net.Addr]string{
		&net.UnixAddr{Name: "/x", Net: "unix"}: "one; open /secret/place: permission denied (internal error; request id r1 in the log of buoyd)",
		&net.TCPAddr{}:                         "internal error; see the log of buoyd, request id r1",
	} {
		f, s := server(t)
		f.fail = errors.Join(errors.New("one"), errSecret)
		r := httptest.NewRequest("POST", here+"/containers/vfw_21/stop", nil)
		r.Host = "localhost"
		r.Header.Set("X-Request-Id", "r1")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, door)))
		var body struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if w.Code != 500 || body.Error != want {
			t.Errorf("%s: %d %s, want %s", door.Network(), w.Code, body.Error, want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	_, s := server(t)
	w := ask(s, "POST", here+"/containers", `{"id":"`+strings.Repeat("x", 10<<20)+`"}`)
	if w.Code != 413 || !strings.Contains(w.Body.String(), "larger than 1048576 bytes") {
		t.Errorf("10 MB = %d %s", w.Code, w.Body)
	}
}

func TestUpload(t *testing.T) {
	f, s := server(t)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("comment", "first"); err != nil {
		t.Fatal(err)
	}
	part, err := form.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("buoy", 1<<20) // past the limit of JSON bodies
	if _, err := io.WriteString(part, content); err != nil {
		t.Fatal(err)
	}
	whole := body.Len()
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	post := func(r io.Reader) *httptest.ResponseRecorder {
		req := httptest.NewRequest("POST", here+"/containers/vfw_21/filesystem?path=/data/x", r)
		req.Header.Set("Content-Type", form.FormDataContentType())
		w := httptest.NewRecorder()
		s.ServeHTTP(w, req)
		return w
	}
	if w := post(bytes.NewReader(body.Bytes()[:whole/2])); w.Code != 400 {
		t.Errorf("half an upload = %d %s, want 400", w.Code, w.Body)
	}
	if w := post(&body); w.Code != 204 || f.files["/data/x"] != content {
		t.Errorf("upload = %d %s, %d bytes", w.Code, w.Body, len(f.files["/data/x"]))
	}
	if w := post(strings.NewReader("--" + form.Boundary() + "--\r\n")); w.Code != 400 || !strings.Contains(w.Body.String(), `no field`) {
		t.Errorf("form without file = %d %s", w.Code, w.Body)
	}
	w := ask(s, "GET", here+"/containers/vfw_21/filesystem?path=/data/x", "")
	if w.Header().Get("Content-Length") != fmt.Sprint(len(content)) || w.Header().Get("Content-Type") != "application/octet-stream" || w.Body.String() != content {
		t.Errorf("download has %v and %d bytes", w.Header(), w.Body.Len())
	}
}

// TestFollow reads a followed log over a real connection and hangs up.
func TestFollow(t *testing.T) {
	f, s := server(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+here+"/containers/vfw_21/logs?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 8)
	if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "one\ntwo\n" {
		t.Fatalf("read %q, %v", buf, err)
	}
	hangUp()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if strings.Contains(strings.Join(f.done(), ";"), "logs followed to the end") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the node still follows the log of a client that has gone")
		}
	}
}

// TestLogEvents is what a browser's EventSource does: it comes back behind the
// last line that it has, until it is told that there is no more.
func TestLogEvents(t *testing.T) {
	f, s := server(t)
	f.lines = []container.LogLine{{Time: time.Unix(1, 5), Stream: "stderr", Text: "\xff\r", Pos: container.LogPos{Origin: 7, Offset: 35}}}
	get := func(last string) (int, string, string) {
		r := httptest.NewRequest("GET", here+"/containers/vfw_21/logs", nil)
		r.Header.Set("Accept", "text/event-stream")
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code, w.Header().Get("Content-Type"), w.Body.String()
	}
	want := "id: 7-35\ndata: {\"id\":\"7-35\",\"time\":\"1970-01-01T00:00:01.000000005Z\",\"stream\":\"stderr\",\"text\":\"\\ufffd\\r\",\"bytes\":\"/w0=\"}\n\nevent: end\ndata: {}\n\n"
	if code, typ, body := get(""); code != 200 || typ != "text/event-stream" || body != want {
		t.Errorf("%d %s %q", code, typ, body)
	}
	f.lines = nil
	if code, _, body := get("7-35"); code != 204 || body != "" {
		t.Errorf("nothing new: %d %q", code, body)
	}
	if code, _, _ := get("first"); code != 400 {
		t.Errorf("a bad id: %d", code)
	}
}

func TestPull(t *testing.T) {
	f, s := server(t)
	f.pull = func(_ context.Context, tell func(images.Progress)) (images.Image, error) {
		for i := range int64(1000) {
			tell(images.Progress{Ref: "nginx", Blob: "b", Done: i, Total: 1000, Phase: images.PhaseDownload})
		}
		return images.Image{Ref: "nginx", Size: 5, Layers: []string{"a", "b"}}, nil
	}
	w := ask(s, "POST", here+"/images", `{"ref":"nginx"}`)
	want := `{"ref":"nginx","blob":"b","done":0,"total":1000,"phase":"download"}` + "\n" +
		`{"image":{"ref":"nginx","digest":"","size":5,"layers":2}}` + "\n"
	if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("pull = %d %v %s", w.Code, w.Header(), w.Body)
	}

	f.pull = func(_ context.Context, tell func(images.Progress)) (images.Image, error) {
		tell(images.Progress{Phase: images.PhaseResolve})
		return images.Image{}, errs.E(errs.Unavailable, "registry is away")
	}
	w = ask(s, "POST", here+"/images", `{"ref":"nginx"}`)
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), "\n{\"error\":\"registry is away\"}\n") {
		t.Errorf("late failure = %d %s", w.Code, w.Body)
	}

	f.pull = func(context.Context, func(images.Progress)) (images.Image, error) {
		return images.Image{}, errs.E(errs.Invalid, "bad ref")
	}
	if w = ask(s, "POST", here+"/images", `{"ref":"?"}`); w.Code != 400 {
		t.Errorf("early failure = %d %s", w.Code, w.Body)
	}
}

// TestExportFails: an export that breaks off is not taken for a whole one.
func TestExportFails(t *testing.T) {
	f, s := server(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	get := func(ref string) (status int, kind, data string, err error) {
		t.Helper()
		resp, err := http.Get(srv.URL + here + "/images/export?ref=" + ref)
		if err != nil {
			return 0, "", "", err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(raw), err
	}
	if status, kind, _, err := get("app"); err != nil || status != 200 || kind != images.TypeArchive {
		t.Errorf("%d %s, %v", status, kind, err)
	}
	if _, _, data, err := get("broken"); err == nil {
		t.Errorf("the client takes %q for the whole archive", data)
	}
	f.mu.Lock() // the server may still be at work for the one who left
	f.fail = errs.E(errs.NotFound, "no such image")
	f.mu.Unlock()
	if status, _, data, err := get("none"); err != nil || status != 404 || !strings.Contains(data, "no such image") {
		t.Errorf("%d %q, %v", status, data, err)
	}
}
