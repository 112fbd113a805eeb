package hosts

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-chi/chi/v5"
)

// TestRoutes has lines for what each route says to whom.
func TestRoutes(t *testing.T) {
	const far = "Remote: 203.0.113.9:5555"
	known, other := token("token1"), token("token2")
	register := `{"info":{"hostID":"node9","name":"n9","ips":["10.0.0.9"],"numCPU":8,"memory":1024}}`
	for _, tt := range []struct {
		method, path, body string
		headers            []string
		status             int
		answer             string // part of the body
		did                string // what reached the engine
	}{
		{"POST", "/host/register", register, []string{token(joinToken)}, 201, `"hostID":"node9","hostToken":"`, "register node9 n9 127.0.0.1"},
		{"POST", "/host/register", register, []string{token(joinToken), far}, 201, `"mode":"continue","launchContainer":[]`, "register node9 n9 203.0.113.9"},
		{"POST", "/host/register", `{"info":{"hostID":"../etc","ips":[],"address":"10.1.1.1"}}`, []string{token(joinToken)}, 201, `"hostID":"made1"`, "register made1 ../etc 10.1.1.1"},
		{"POST", "/host/register", `{"info":{"ips":[]}}`, []string{known}, 201, `"hostID":"node1"`, "register node1  127.0.0.1"},
		{"POST", "/host/register", `{"info":{"hostID":"node1"},"status":{"CPUUtilized":1}}`, []string{token(joinToken)}, 201, `"hostID":"node1"`, "register node1 node1 127.0.0.1; report node1 0 containers"},
		{"POST", "/host/register", register, []string{known}, 403, `cannot register host`, ""},
		{"POST", "/host/register", register, nil, 401, `"ErrorId":"not_authorized"`, ""},
		{"POST", "/host/register", register, []string{token("guess")}, 401, `the token is not known`, ""},
		{"POST", "/host/register", register, []string{"Authorization: Basic eDp5"}, 401, `the token is not known`, ""},
		{"POST", "/host/register", "", []string{token(joinToken)}, 400, `the body is empty`, ""},
		{"POST", "/host/register", `{"info":{"address":"nowhere"}}`, []string{token(joinToken)}, 400, `info.address`, ""},
		{"POST", "/host/register", `{"info":{"numCPU":-1}}`, []string{token(joinToken)}, 400, `info.numCPU`, ""},
		{"POST", "/host/register", `{"info":{},"status":{"memoryUsed":-1}}`, []string{token(joinToken)}, 400, `memoryUsed`, ""},

		{"POST", "/host/node1/updatestatus", `{"CPUUtilized":3,"containerStatus":[]}`, []string{known}, 200, `{"mode":"continue","launchContainer":[],"terminateContainer":[],"pullDockerImages":[],"registries":[],"mount":[],`, "report node1 0 containers"},
		{"POST", "/host/node1/updatestatus", `{"hostID":"node1"}`, []string{known, far}, 200, `"startContainer":[]`, "report node1 0 containers"},
		{"POST", "/host/node1/updatestatus", `{}`, nil, 401, `Bearer`, ""},
		{"POST", "/host/node1/updatestatus", `{}`, []string{other}, 401, `not known`, ""},
		{"POST", "/host/node1/updatestatus", `{}`, []string{token(joinToken)}, 401, `not known`, ""},
		{"POST", "/host/node2/updatestatus", `{}`, []string{known}, 403, `the request is from host node1`, ""},
		{"POST", "/host/node1/updatestatus", `{"hostID":"node2"}`, []string{known}, 400, `hostID`, ""},
		{"POST", "/host/node1/updatestatus", `<xml/>`, []string{known, "Content-Type: text/xml"}, 415, `"ErrorId":"unsupported_media_type"`, ""},
		{"POST", "/host/node1/updatestatus", `{}`, []string{known, "Content-Type: "}, 415, `Content-Type`, ""},
		{"POST", "/host/node1/updatestatus", `{}`, []string{known, "Content-Encoding: gzip"}, 415, `gzip`, ""},
		{"POST", "/host/node1/updatestatus", `{}`, []string{known, "Content-Type: Application/JSON; charset=utf-8"}, 200, `mode`, "report node1 0 containers"},
		{"GET", "/host/node1/updatestatus", "", nil, 405, `POST`, ""},

		{"GET", "/host/node1/detail", "", nil, 200, `{"hostID":"node1","ips":[],"memory":8589934592,"numCPU":4,"vcpuAvailable":3072,"numGPU":1`, ""},
		{"GET", "/host/node1/detail", "", []string{known}, 200, `"mode":"continue","liveness":"alive"`, ""},
		{"GET", "/host/node1/detail", "", []string{far}, 401, `Bearer`, ""},
		{"GET", "/host/node1/detail", "", []string{other}, 401, `not known`, ""},
		{"GET", "/host/node2/detail", "", []string{known}, 403, `of this very host`, ""},
		{"GET", "/host/node2/detail", "", nil, 404, `"ErrorId":"not_found"`, ""},
		{"GET", "/host/a%2Fb/detail", "", nil, 404, `a/b`, ""},
		{"GET", "/host/node1/status", "", nil, 200, `"CPUUtilized":25,"numCPU":4,"vCPUAvailable":3072`, ""},
		{"GET", "/host/none/status", "", nil, 404, `none`, ""},
		{"GET", "/host/node1/launch", "", nil, 200, `"orders":{"mode":"continue"`, ""},
		{"GET", "/host/none/launch", "", nil, 404, `none`, ""},
		{"POST", "/host/node1/drain", "", nil, 200, `{"success":true,"count":1,"error":null}`, `drain node1 user ""`},
		{"POST", "/host/node1/drain", `{"reason":"hardware","detail":"fan"}`, []string{known}, 200, `true`, `drain node1 hardware "fan"`},
		{"POST", "/host/node1/drain", `{"reason":"boredom"}`, nil, 400, `must be one of`, ""},
		{"POST", "/host/node1/drain", `{"reason":"scaling"}`, nil, 200, `true`, `drain node1 scaling ""`},
		{"POST", "/host/node1/drain", `reason=x`, []string{"Content-Type: application/x-www-form-urlencoded"}, 415, `form`, ""},
		{"POST", "/host/none/drain", "", nil, 404, `none`, ""},
		{"POST", "/host/node1/pause", "", nil, 200, `true`, `pause node1 user ""`},
		{"PUT", "/host/node1/pause", "", nil, 200, `true`, `pause node1 user ""`},
		{"POST", "/host/node1/resume", "{}", nil, 200, `true`, `continue node1 user ""`},
		{"POST", "/host/node1/terminate", `{"reason":"spot"}`, nil, 200, `true`, `terminate node1 spot ""`},
		{"POST", "/host/node1/terminate", `{"reason":"scaling"}`, nil, 400, `reason`, ""},
		{"POST", "/hostnode1/terminate", "", nil, 200, `true`, `terminate node1 user ""`},
		{"POST", "/hostnode1/terminate", "", []string{known}, 200, `true`, `terminate node1 user ""`},
		{"POST", "/hostnode2/terminate", "", []string{known}, 403, `very host`, ""},
		{"POST", "/hostnone/terminate", "", nil, 404, `none`, ""},
		{"POST", "/hosts/terminate", "", nil, 404, `host \"s\" is not known`, ""},
		{"POST", "/host/terminate", "", nil, 404, ``, ""},
		{"GET", "/host/node1/tunnel", "", []string{known}, 101, ``, "tunnel node1"},
		{"GET", "/host/node1/tunnel", "", nil, 401, `Bearer`, ""},
		{"GET", "/host/node2/tunnel", "", []string{known}, 403, `host node1`, ""},
		{"POST", "/host/alert", `{"alertType":"disk","alertValue":91.5}`, []string{known}, 200, `true`, "alert node1 disk 91.5"},
		{"POST", "/host/alert", `{"alertType":"disk","hostID":"node1"}`, nil, 200, `true`, "alert node1 disk 0"},
		{"POST", "/host/alert", `{"alertType":"disk","hostID":"none"}`, nil, 404, `none`, ""},
		{"POST", "/host/alert", `{"alertType":"disk","hostID":"node2"}`, []string{known}, 403, `node2`, ""},
		{"POST", "/host/alert", `{"alertValue":1}`, []string{known}, 400, `alertType`, ""},
		{"POST", "/host/alert", `{}`, []string{far}, 401, `Bearer`, ""},

		{"GET", "/hosts", "", nil, 200, `{"success":true,"error":null,"count":1,"limit":1000,"offset":0,"result":[{"hostID":"node1"`, ""},
		{"GET", "/hosts?limit=0", "", nil, 200, `"count":1,"limit":0,"offset":0,"result":[]`, ""},
		{"GET", "/hosts?offset=7", "", nil, 200, `"offset":7,"result":[]`, ""},
		{"GET", "/hosts?limit=-1", "", nil, 400, `limit`, ""},
		{"GET", "/hosts?offset=x", "", nil, 400, `offset`, ""},
		{"GET", "/hosts", "", []string{known}, 403, `a person`, ""},
		{"GET", "/hosts", "", []string{far}, 401, `Bearer`, ""},
		{"GET", "/hosts/counts", "", nil, 200, `"counts":{"activePhysicalServer":1,"activeVirtualServer":0,"newServer":`, ""},
		{"GET", "/hosts/counts?startLastUpdateTime=x", "", nil, 400, `startLastUpdateTime`, ""},
		{"GET", "/hosts/counts_by_type", "", nil, 200, `"counts":[{"typeID":"default","typeName":"default","activeServerCount":1`, ""},
		{"GET", "/hosts/counts_by_type?endLastUpdateTime=-4", "", nil, 400, `endLastUpdateTime`, ""},
		{"GET", "/hosts/cpu_usage?startTime=0", "", nil, 200, `"data":[{"hostID":"node1","values":[[1795248000,25]]}]`, ""},
		{"GET", "/hosts/cpu_usage?hostID=none", "", nil, 200, `"data":[]`, ""},

		{"POST", "/engine/instance/register", `{"launchID":"` + launch1 + `"}`, []string{far}, 201, `{"action":"launch","engineInstanceID":"`, ""},
		{"POST", "/engine/instance/register", `{"launchID":"` + launch1 + `"}`, []string{other}, 201, `"runtimeExpirationSeconds":31536000`, ""},
		{"POST", "/engine/register", `{"launchID":"` + launch1 + `","engineID":"web"}`, nil, 201, `launch`, ""},
		{"POST", "/engine_instance/register", `{"launchID":"` + launch1 + `"}`, nil, 201, `launch`, ""},
		{"POST", "/host/node1/engine/register", `{"launchID":"` + launch1 + `"}`, []string{known}, 201, `launch`, ""},
		{"POST", "/host/node2/engine/register", `{"launchID":"` + launch1 + `"}`, nil, 400, `is not on host`, ""},
		{"POST", "/engine/instance/register", `{"launchID":"` + launch1 + `","engineID":"db"}`, nil, 400, `is of web`, ""},
		{"POST", "/engine/instance/register", `{"launchID":"none"}`, nil, 404, `none`, ""},
		{"POST", "/engine/instance/register", `{}`, nil, 400, `launchID`, ""},
		{"GET", "/engine/instances", "", nil, 200, `"count":0,"limit":1000,"offset":0,"result":[]`, ""},
		{"GET", "/engine/instances?limit=x", "", nil, 400, `limit`, ""},
		{"GET", "/engine/web/instances", "", nil, 200, `"result":[]`, ""},
		{"GET", "/engine/none/instances", "", nil, 404, `none`, ""},
		{"GET", "/engine/web/launches", "", nil, 200, `"result":[{"launchID":"` + launch1 + `","hostID":"node1","launchAction":"launch","launchStatus":"running","launchSuccessful":true`, ""},
		{"GET", "/engine/none/launches", "", nil, 404, `none`, ""},
		{"GET", "/engine/web/launches", "", []string{known}, 403, `a person`, ""},
		{"GET", "/engine/instance/none/detail", "", nil, 404, `none`, ""},
		{"POST", "/engine/instance/none/terminate", "", nil, 404, `none`, ""},
		{"POST", "/engine/instance/none/getwork", "", nil, 401, `Bearer`, ""},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			f, s := server(t)
			w := ask(s, tt.method, tt.path, tt.body, tt.headers...)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
				t.Errorf("%v = %d %s, want %d %s", tt.headers, w.Code, w.Body, tt.status, tt.answer)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			if got := f.done(); got != tt.did {
				t.Errorf("the engine did %q, want %q", got, tt.did)
			}
		})
	}
}

// TestEveryRouteIsGuarded asks each one from far away, without a token.
func TestEveryRouteIsGuarded(t *testing.T) {
	_, s := server(t)
	open := map[string]bool{
		"POST /engine/instance/register": true, "POST /engine/register": true, "POST /engine_instance/register": true,
		"POST /host/{hostid}/engine/register": true, "PUT /engine/instance/register": true, "PUT /engine/register": true,
		"PUT /engine_instance/register": true, "PUT /host/{hostid}/engine/register": true,
	}
	n := 0
	err := chi.Walk(s.Routes(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		n++
		path := strings.NewReplacer("{hostid}", "node1", "{instanceid}", "i1", "{engineid}", "web").Replace(route)
		w := ask(s, method, path, "", "Remote: 203.0.113.9:5555")
		if (w.Code == http.StatusUnauthorized) == open[method+" "+route] {
			t.Errorf("%s %s without a token is %d", method, route, w.Code)
		}
		return nil
	})
	if err != nil || n < 35 {
		t.Errorf("%d routes, %v", n, err)
	}
}

func TestErrors(t *testing.T) {
	_, s := server(t)
	t.Run("too slow", func(t *testing.T) {
		r := httptest.NewRequest("POST", "/host/node1/updatestatus", iotest.ErrReader(os.ErrDeadlineExceeded))
		r.ContentLength = 9
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer token1")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 408 || !strings.Contains(w.Body.String(), `"ErrorId":"client_timeout"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("too much", func(t *testing.T) {
		w := ask(s, "POST", "/host/node1/updatestatus", strings.Repeat(" ", maxReport+1), token("token1"))
		if w.Code != 413 || !strings.Contains(w.Body.String(), `8388608 bytes`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("internal", func(t *testing.T) {
		f, s := server(t)
		f.fail = os.ErrPermission
		w := ask(s, "POST", "/host/node1/updatestatus", `{}`, token("token1"), "Remote: 203.0.113.9:5555")
		if w.Code != 500 || strings.Contains(w.Body.String(), "permission") || !strings.Contains(w.Body.String(), `"ErrorId":"internal"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// The join token takes nobody's place who is there; the host's own does.
func TestRegisterInTouch(t *testing.T) {
	_, s := server(t, func(c *Config) { c.Answers = func(_ context.Context, host string) bool { return host == "node1" } })
	const far = "Remote: 203.0.113.9:5555"
	for _, tt := range []struct {
		host, token string
		status      int
	}{
		{"node1", joinToken, 409},
		{"node1", "token1", 201},
		{"node9", joinToken, 201},
		{"", joinToken, 201},
		{"node1", "wrong", 401}, // and is not told who is there
	} {
		body := fmt.Sprintf(`{"info":{"hostID":%q,"ips":[]}}`, tt.host)
		if w := ask(s, "POST", "/host/register", body, token(tt.token), far); w.Code != tt.status {
			t.Errorf("%q with %q is %d %s, want %d", tt.host, tt.token, w.Code, w.Body, tt.status)
		}
	}
}
