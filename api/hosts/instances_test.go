package hosts

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

var errNoHost = errs.E(errs.NotFound, "host is not known")

// far is a container: it comes by TCP.
const far = "Remote: 203.0.113.9:5555"

func enroll(t *testing.T, s http.Handler) (path, tok string) {
	t.Helper()
	a := into[registrationAnswer](t, ask(s, "POST", "/engine/instance/register", `{"launchID":"`+launch1+`"}`, far), 201)
	if a.Action != orderLaunch || a.EngineInstanceID == "" || a.EngineInstanceToken == "" {
		t.Fatalf("%+v", a)
	}
	return "/engine/instance/" + a.EngineInstanceID, token(a.EngineInstanceToken)
}

func action(t *testing.T, s http.Handler, path, tok string) order {
	t.Helper()
	return into[workAnswer](t, ask(s, "POST", path+"/getwork", "", tok, far), 200).Result.Action
}

func TestInstance(t *testing.T) {
	f, s := server(t)
	path, tok := enroll(t, s)
	id := strings.TrimPrefix(path, "/engine/instance/")

	again := ask(s, "POST", "/engine/register", `{"launchID":"`+launch1+`"}`, far)
	if again.Code != 409 || !strings.Contains(again.Body.String(), id) {
		t.Errorf("registering again is %d %s", again.Code, again.Body)
	}
	if got := action(t, s, path, tok); got != orderWait {
		t.Errorf("getwork says %q", got)
	}
	beat := ask(s, "POST", path+"/updatestatus", `{"mode":"processing","workRequestID":"w1","taskStatuses":[{"x":1}],"containerStatus":{"CPUUtilization":3}}`, tok, far)
	if beat.Code != 201 || beat.Body.Len() > 0 {
		t.Errorf("a beat is %d %s", beat.Code, beat.Body)
	}
	older := "/engine_instance/" + id
	for _, tt := range []struct {
		method, path, body string
		header             string
		status             int
		answer             string
	}{
		{"GET", path + "/detail", "", tok, 200, `{"engineID":"web","engineInstanceID":"` + id + `","hostID":"node1","launchID":"` + launch1 + `","buildID":"web@2","dockerContainerID":"web-1-k7qd","status":"active","launchStatus":"running"`},
		{"GET", older + "/detail", "", token("token1"), 200, `"workRequestID":"w1"`},
		{"GET", path + "/status", "", tok, 200, `"mode":"processing","secondsToTTL":`},
		{"GET", path + "/status", "", tok, 200, `"taskStatuses":[{"x":1}]`},
		{"GET", older + "/status", "", tok, 200, `"CPUUtilization":3`},
		{"GET", path + "/resources", "", tok, 200, `"result":{"workRequestID":"w1","result":[]}`},
		{"GET", older + "/resources", "", tok, 200, `"success":true`},
		{"GET", path + "/workdetail", "", tok, 200, `"workItem":[]`},
		{"GET", older + "/workdetail", "", tok, 200, `"workItem":[]`},
		{"POST", path + "/updatestatus", `{"mode":"asleep"}`, tok, 400, `mode`},
		{"POST", path + "/updatestatus", `{"workRequestStatus":"late"}`, tok, 400, `workRequestStatus`},
		{"POST", path + "/updatestatus", `{"engineInstanceID":"x"}`, tok, 400, `engineInstanceID`},
		{"POST", path + "/updatestatus", ``, tok, 400, `empty`},
		{"POST", path + "/updatestatus", `{"workRequestDetails":"` + strings.Repeat("x", maxInstance) + `"}`, tok, 413, `65536`},
		{"POST", older + "/updatestatus", `{}`, tok, 201, ``},
		{"POST", older + "/getwork", `{"hostAction":"running"}`, tok, 200, `"action":"wait"`},
		{"POST", path + "/getwork", `[]`, tok, 400, `object`},
		{"POST", path + "/getwork", ``, "", 401, `Bearer`},
		{"POST", path + "/getwork", ``, token("token1"), 403, `host node1`},
		{"POST", path + "x/getwork", ``, tok, 403, `engine instance ` + id},
		{"GET", "/host/node1/detail", ``, tok, 403, `engine instance`},
		{"GET", path + "x/detail", ``, tok, 403, `engine instance`},
	} {
		w := ask(s, tt.method, tt.path, tt.body, tt.header, far)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.answer)
		}
	}
	other := join(t, s, "node2")
	if w := ask(s, "GET", path+"/detail", "", token(other)); w.Code != 403 {
		t.Errorf("another host's instance is %d", w.Code)
	}
	for query, want := range map[string]int{"": 1, "?status=active": 1, "?status=terminated": 0, "?engineIDs=a,web": 1, "?hostIDs=x": 0, "?engineInstanceIDs=" + id: 1, "?limit=0": 1} {
		if got := into[page[instanceInfo]](t, ask(s, "GET", "/engine/instances"+query, ""), 200); got.Count != want {
			t.Errorf("%s counts %d", query, got.Count)
		}
	}
	if got := into[result[[]instanceInfo]](t, ask(s, "GET", "/engine/web/instances", ""), 200); len(got.Result) != 1 {
		t.Errorf("%+v", got)
	}
	f.done()
}

// TestInstanceIsToldToGo for each reason there is.
func TestInstanceIsToldToGo(t *testing.T) {
	now := time.Now()
	for name, why := range map[string]func(f *fakeEngine, s http.Handler, path, tok string){
		"replica stopped": func(f *fakeEngine, _ http.Handler, _, _ string) {
			f.change(launch1, func(r *app.Replica) { r.Stopped = now })
		},
		"replica given up": func(f *fakeEngine, _ http.Handler, _, _ string) {
			f.change(launch1, func(r *app.Replica) { r.Away = now })
		},
		"replica gone": func(f *fakeEngine, _ http.Handler, _, _ string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.replicas, launch1)
		},
		"host drains":     func(_ *fakeEngine, s http.Handler, _, _ string) { ask(s, "POST", "/host/node1/drain", "") },
		"host terminates": func(_ *fakeEngine, s http.Handler, _, _ string) { ask(s, "POST", "/host/node1/terminate", "") },
		"it said so":      func(_ *fakeEngine, s http.Handler, path, tok string) { ask(s, "POST", path+"/terminate", "", tok) },
		"a person":        func(_ *fakeEngine, s http.Handler, path, _ string) { ask(s, "POST", path+"/terminate", "{}") },
	} {
		t.Run(name, func(t *testing.T) {
			f, s := server(t)
			path, tok := enroll(t, s)
			why(f, s, path, tok)
			if got := action(t, s, path, tok); got != orderTerminate {
				t.Errorf("getwork says %q", got)
			}
			beat := into[workAnswer](t, ask(s, "POST", path+"/updatestatus", `{}`, tok, far), 200)
			if beat.Result.Action != orderTerminate {
				t.Errorf("a beat is answered %+v", beat)
			}
			if w := ask(s, "POST", path+"/terminate", "", tok); w.Code != 204 || w.Body.Len() > 0 {
				t.Errorf("terminate is %d %s", w.Code, w.Body)
			}
			if w := ask(s, "GET", path+"/detail", "", tok); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"terminated"`) {
				t.Errorf("detail is %d %s", w.Code, w.Body)
			}
		})
	}
}

func TestRegistrationOfAReplica(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		rep  app.Replica
		mode app.HostMode
		want order
	}{
		{app.Replica{Phase: app.Running}, app.Continue, orderLaunch},
		{app.Replica{Phase: app.Ordered}, app.Continue, orderLaunch},
		{app.Replica{Phase: app.Running}, app.Pause, orderWait},
		{app.Replica{Phase: app.Running}, app.Drain, orderTerminate},
		{app.Replica{Phase: app.Running}, app.Terminate, orderTerminate},
		{app.Replica{Phase: app.Running, Stopped: now}, app.Continue, orderTerminate},
		{app.Replica{Phase: app.Running, Away: now}, app.Pause, orderTerminate},
		{app.Replica{Phase: app.Failed}, app.Continue, orderTerminate},
		{app.Replica{Phase: app.Gone}, app.Continue, orderTerminate},
	} {
		if got := registration(&tt.rep, tt.mode); got != tt.want {
			t.Errorf("%+v on a host in mode %s: %s, want %s", tt.rep, tt.mode, got, tt.want)
		}
	}
	f, s := server(t)
	f.change(launch1, func(r *app.Replica) { r.Stopped = now })
	a := into[registrationAnswer](t, ask(s, "POST", "/engine/register", `{"launchID":"`+launch1+`"}`, far), 200)
	if a.Action != orderTerminate || a.EngineInstanceToken != "" {
		t.Errorf("%+v", a)
	}
}

// TestLateInstance: three missed heartbeats, and it has failed for good; its
// container may register anew.
func TestLateInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := server(t)
		path, tok := enroll(t, s)
		for range 5 {
			time.Sleep(14 * time.Second)
			if got := action(t, s, path, tok); got != orderWait {
				t.Fatalf("in time, getwork says %q", got)
			}
		}
		time.Sleep(16 * time.Second)
		if got := action(t, s, path, tok); got != orderTerminate {
			t.Errorf("late, getwork says %q", got)
		}
		if w := ask(s, "GET", path+"/detail", "", tok); !strings.Contains(w.Body.String(), "missed its heartbeats") {
			t.Errorf("detail: %s", w.Body)
		}
		path2, tok2 := enroll(t, s)
		if got := action(t, s, path, tok); got != orderTerminate {
			t.Errorf("the late one, its place taken, getwork says %q", got)
		}
		if got := action(t, s, path2, tok2); got != orderWait {
			t.Errorf("the new one, getwork says %q", got)
		}

		time.Sleep(2 * time.Hour)
		enroll(t, s) // which sweeps
		if w := ask(s, "POST", path+"/getwork", "", tok, far); w.Code != 401 {
			t.Errorf("forgotten, getwork is %d %s", w.Code, w.Body)
		}
		if got := into[page[instanceInfo]](t, ask(s, "GET", "/engine/instances", ""), 200); got.Count != 1 {
			t.Errorf("%d are kept", got.Count)
		}
	})
}

// TestInstanceOfARestartedContainer need not wait for the former to fail.
func TestInstanceOfARestartedContainer(t *testing.T) {
	f, s := server(t)
	path, tok := enroll(t, s)
	f.change(launch1, func(r *app.Replica) { r.Restarts++ })
	path2, tok2 := enroll(t, s)
	if path == path2 || action(t, s, path, tok) != orderTerminate || action(t, s, path2, tok2) != orderWait {
		t.Error("the former was not replaced")
	}
}

func TestRuntimeOfAJob(t *testing.T) {
	f, s := server(t)
	f.specs["web"] = app.Spec{Name: "web", Kind: app.Job, Job: app.JobSpec{Timeout: time.Minute}}
	a := into[registrationAnswer](t, ask(s, "POST", "/engine/register", `{"launchID":"`+launch1+`"}`, far), 201)
	if a.RuntimeExpirationSeconds != 60 {
		t.Errorf("%+v", a)
	}
}

func TestInstanceLogs(t *testing.T) {
	f, s := server(t)
	path, tok := enroll(t, s)
	for _, text := range []string{"one\ntwo\n", ""} {
		f.logs = func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}
		w := ask(s, "GET", path+"/logs", "", tok, far)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/zip" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		z, err := zip.NewReader(bytes.NewReader(w.Body.Bytes()), int64(w.Body.Len()))
		if err != nil || len(z.File) != 1 || z.File[0].Name != "web-1-k7qd.log" {
			t.Fatalf("%v %+v", err, z)
		}
		file, err := z.File[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(file); string(got) != text || err != nil {
			t.Errorf("the log is %q, %v", got, err)
		}
	}
	f.done()
	f.fail = errs.E(errs.Unavailable, "host node1 has no tunnel")
	if w := ask(s, "GET", "/engine_instance/"+strings.TrimPrefix(path, "/engine/instance/")+"/logs", "", tok); w.Code != 503 || !strings.Contains(w.Body.String(), "no tunnel") {
		t.Errorf("without a tunnel: %d %s", w.Code, w.Body)
	}
	if got := f.done(); got != "logs node1 web-1-k7qd" {
		t.Errorf("the engine did %q", got)
	}
	f.logs = func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("an answer that breaks off ends with %v", err)
		}
	}()
	ask(s, "GET", path+"/logs", "", tok)
}
