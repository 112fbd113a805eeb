package hosts

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
)

// TestPortsElsewhere: a host that could publish the ports of others would have
// the balancer connect strangers with whatever the controller reaches.
func TestPortsElsewhere(t *testing.T) {
	for _, at := range []string{
		"127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080", "169.254.169.254:80", "[fe80::1%eth0]:80", "10.0.0.8:80", "[::ffff:10.0.0.8]:80",
		"224.0.0.1:80", "255.255.255.255:80", "[64:ff9b::7f00:1]:80",
	} {
		f, s := server(t)
		body := `{"containerStatus":[{"launchID":"` + launch1 + `","ports":{"80":"` + at + `"}}]}`
		w := ask(s, "POST", "/host/node1/updatestatus", body, token("token1"))
		if w.Code != 400 || !strings.Contains(w.Body.String(), "ports") {
			t.Errorf("%s: %d %s", at, w.Code, w.Body)
		}
		if did := f.done(); did != "" {
			t.Errorf("%s: %s", at, did)
		}
	}
	for _, at := range []string{"10.0.0.7:80", "[::ffff:10.0.0.7]:80", ":80", "0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"} {
		c, err := containerIn(&hostapi.ContainerStatus{LaunchID: "a", Ports: map[string]string{"80": at}}, netip.MustParseAddr("10.0.0.7"))
		if err != nil || c.Ports[80].Addr().Unmap().String() != "10.0.0.7" {
			t.Errorf("%s: %v %v", at, c.Ports, err)
		}
	}
}

// TestAddressOfTheController: who calls from another machine cannot register
// this one.
func TestAddressOfTheController(t *testing.T) {
	for _, tt := range []struct{ said, from, want string }{
		{"127.0.0.1", "10.0.0.7", ""},
		{"::ffff:127.0.0.1", "10.0.0.7", ""},
		{"::1", "10.0.0.7", ""},
		{"169.254.169.254", "10.0.0.7", ""},
		{"fe80::1", "2001:db8::7", ""},
		{"::ffff:0.0.0.0", "10.0.0.7", ""},
		{"::ffff:224.0.0.1", "10.0.0.7", ""},
		{"169.254.3.4", "169.254.3.4", "169.254.3.4"},
		{"10.0.0.8", "10.0.0.7", "10.0.0.8"}, // behind NAT
		{"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"127.0.0.1", "", "127.0.0.1"},
	} {
		var from netip.Addr
		if tt.from != "" {
			from = netip.MustParseAddr(tt.from)
		}
		got, err := addrIn(tt.said, from)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s from %s: %q %v", tt.said, tt.from, got, err)
		}
	}
}

// TestNoTerminalTalk: nothing that a host says reaches terminals with the power
// to move their cursors.
func TestNoTerminalTalk(t *testing.T) {
	const esc = `\u001b]0;owned\u0007\u009b2J`
	f, s := server(t)
	ask(s, "POST", "/host/node1/updatestatus", `{"containerStatus":[{"launchID":"`+launch1+`","message":"a`+esc+`\nb","health":{"status":"unhealthy","lastError":"`+esc+`\r"}}]}`, token("token1"))
	c := f.hosts["node1"].Report.Containers[0]
	if c.Message != "a ]0;owned  2J\nb" || strings.ContainsAny(c.CheckErr, "\x1b\x07\r\u009b") {
		t.Errorf("%q %q", c.Message, c.CheckErr)
	}
	for path, body := range map[string]string{
		"/host/node1/updatestatus": `{"boot":"` + esc + `"}`,
		"/host/node1/drain":        `{"detail":"` + esc + `"}`,
		"/host/alert":              `{"alertType":"` + esc + `"}`,
	} {
		if w := ask(s, "POST", path, body, token("token1")); w.Code != 400 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, id := range []string{esc, strings.Repeat("x", 1<<20)} {
		got := into[hostapi.RegisterResponse](t, ask(s, "POST", "/host/register", `{"info":{"hostID":"`+id+`"}}`, token(joinToken)), 201)
		if h := f.hosts[got.HostID]; !plain(h.Name) {
			t.Errorf("the name is %.80q", h.Name)
		}
	}
}

// TestCrowd: eight MiB of "0," were read to gigabytes of containers.
func TestCrowd(t *testing.T) {
	f, s := server(t)
	for _, one := range []string{"0", "{}", "null", `{"launchID":"a]\""}`} {
		list := "[" + strings.Repeat(one+",", maxListed) + one + "]"
		for _, body := range []string{`{"containerStatus":` + list + `}`, `{"boot":"\\\"","containerStatus":[{}],"containerStatus":` + list + `}`} {
			if w := ask(s, "POST", "/host/node1/updatestatus", body, token("token1")); w.Code != 400 || !strings.Contains(w.Body.String(), "entries") {
				t.Errorf("%s: %d %.200s", one, w.Code, w.Body)
			}
		}
		if w := ask(s, "POST", "/host/register", `{"info":{"hostID":"node1"},"status":{"containerStatus":`+list+`}}`, token("token1")); w.Code != 400 {
			t.Errorf("%s: register: %d %.200s", one, w.Code, w.Body)
		}
	}
	if did := f.done(); did != "" {
		t.Error(did)
	}
	for _, fine := range []string{
		`{"containerStatus":[` + strings.Repeat("{},", maxListed-1) + `{}]}`,
		`{"x":{` + strings.Repeat(`"a":0,`, maxListed) + `"a":0}}`,
		`{"x":"` + strings.Repeat("[,", maxListed) + `"}`,
	} {
		if crowded([]byte(fine)) {
			t.Errorf("%.60s is no crowd", fine)
		}
	}
	crowded([]byte(strings.Repeat("]", 3*maxListed) + "[,,{"))
	crowded([]byte(strings.Repeat("[", 3*maxListed) + `"\`))
}

// TestInstancesAreSmall: a container may register, say much and end, again and
// again. What it said is kept once.
func TestInstancesAreSmall(t *testing.T) {
	s := newInstances()
	now := time.Now()
	for range 100 {
		i, _, err := s.add(app.Replica{ID: "l1"}, 1, "", now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.heard(i.id, &instanceStatus{WorkRequestDetails: strings.Repeat("x", maxInstance)}, now); err != nil {
			t.Fatal(err)
		}
		s.end(i.id, now)
	}
	kept := 0
	for _, i := range s.all(func(*instance) bool { return true }) {
		kept += len(i.status.WorkRequestDetails)
	}
	if kept > maxInstance {
		t.Errorf("%d bytes are kept of one launch", kept)
	}
}

// TestOtherHosts: no token of one host or instance opens anything of another.
func TestOtherHosts(t *testing.T) {
	_, s := server(t)
	other := join(t, s, "node2")
	reg := into[registrationAnswer](t, ask(s, "POST", "/engine/instance/register", `{"launchID":"`+launch1+`"}`), 201)
	for _, path := range []string{
		"POST /host/node1/updatestatus", "GET /host/node1/tunnel", "GET /host/node1/detail", "GET /host/node1/status", "GET /host/node1/launch",
		"POST /host/node1/drain", "POST /host/node1/pause", "POST /host/node1/resume", "POST /host/node1/terminate", "POST /hostnode1/terminate",
		"POST /host/node%31/terminate", "POST /host/./node1/terminate", "POST /host/node2/../node1/terminate", "GET /hosts", "GET /hosts/counts", "GET /engine/instances",
		"GET /engine/web/launches", "POST /engine/instance/" + reg.EngineInstanceID + "/updatestatus", "POST /engine/instance/" + reg.EngineInstanceID + "/getwork",
		"POST /engine/instance/" + reg.EngineInstanceID + "/terminate", "GET /engine/instance/" + reg.EngineInstanceID + "/logs",
		"GET /engine/instance/" + reg.EngineInstanceID + "/detail",
	} {
		method, path, _ := strings.Cut(path, " ")
		if w := ask(s, method, path, "{}", token(other)); w.Code != 403 && w.Code != 404 {
			t.Errorf("host: %s %s: %d %s", method, path, w.Code, w.Body)
		}
		own := strings.Contains(path, reg.EngineInstanceID)
		if w := ask(s, method, path, "{}", token(reg.EngineInstanceToken)); !own && w.Code != 403 && w.Code != 404 {
			t.Errorf("instance: %s %s: %d %s", method, path, w.Code, w.Body)
		}
		for _, none := range []string{"Bearer ", "Bearer  x", "Basic " + other, "Bearer " + other[:20], "Bearer " + strings.ToLower(other)} {
			if w := ask(s, method, path, "{}", "Authorization: "+none, "Remote: 203.0.113.9:1"); w.Code != 401 && w.Code != 404 && w.Code != 403 {
				t.Errorf("%q: %s %s: %d %s", none, method, path, w.Code, w.Body)
			}
		}
	}
	if w := ask(s, "POST", "/host/register", `{"info":{"hostID":"node1"}}`, token(other)); w.Code != 403 {
		t.Errorf("register another: %d %s", w.Code, w.Body)
	}
	if w := ask(s, "POST", "/engine/instance/register", `{"launchID":"`+launch1+`"}`, token(other)); w.Code != 403 {
		t.Errorf("instance of another: %d %s", w.Code, w.Body)
	}
}

// TestTerminatedForGood: the token of a host that was terminated does not bring
// it back; the join token does.
func TestTerminatedForGood(t *testing.T) {
	f, s := server(t)
	if w := ask(s, "POST", "/host/node1/terminate", ""); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	f.done()
	body := `{"info":{"hostID":"node1"}}`
	if w := ask(s, "POST", "/host/register", body, token("token1")); w.Code != 403 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if did := f.done(); did != "" {
		t.Error(did)
	}
	if w := ask(s, "POST", "/host/register", body, token(joinToken)); w.Code != 201 {
		t.Error(w.Code, w.Body)
	}
}

// TestAbsurd: what no machine is, is refused whole.
func TestAbsurd(t *testing.T) {
	f, s := server(t)
	for _, body := range []string{
		`{"CPUUtilized":-1}`, `{"CPUUtilized":1e400}`, `{"CPUUtilized":NaN}`, `{"memoryUsed":-1}`, `{"memoryUsed":9223372036854775808}`, `{"others":{"milliCPU":-1}}`,
		`{"numContainers":-1}`, `{"sequence":-1}`, `{"sequence":18446744073709551616}`, `{"containerStatus":[{"launchID":"a","restarts":-1}]}`,
		`{"containerStatus":[{"launchID":"a","memoryUsed":-5}]}`, `{"containerStatus":[{"launchID":"a","CPUUtilization":1e300}]}`,
		`{"containerStatus":[{"launchID":"a","health":{"status":"fine"}}]}`, `{"containerStatus":[{"launchID":"a","health":{"status":"healthy","responseTime":-1}}]}`,
		`{"containerStatus":[{"launchID":"a\u0000"}]}`, `{"containerStatus":[{"launchID":"a","digest":"latest@sha256:0"}]}`,
		`{"containerStatus":[{"launchID":"a","digest":"sha256:` + strings.Repeat("0", 64) + `/../x"}]}`,
		`{"containerStatus":[{"launchID":"a","digest":"md5:` + strings.Repeat("0", 31) + `"}]}`, `{"containerStatus":[{"launchID":"a","digest":"x:` + strings.Repeat("0", 129) + `"}]}`, `{"containerStatus":[{"launchID":"a","state":"run\nning"}]}`, `{"containerStatus":[{"launchID":"a","ports":{"-1":":1"}}]}`,
		`{"containerStatus":[{"launchID":"a","ports":{"65536":":1"}}]}`, `{"containerStatus":[{"launchID":"a","started":"10000-01-01T00:00:00Z"}]}`,
	} {
		if w := ask(s, "POST", "/host/node1/updatestatus", body, token("token1")); w.Code != 400 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if did := f.done(); did != "" {
		t.Error(did)
	}
	for _, when := range []string{"9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59"} {
		body := fmt.Sprintf(`{"time":%[1]q,"containerStatus":[{"launchID":"a","started":%[1]q,"finished":%[1]q,"health":{"status":"healthy","lastCheck":%[1]q}}]}`, when)
		w := ask(s, "POST", "/host/node1/updatestatus", body, token("token1"))
		if w.Code == 200 {
			w = ask(s, "GET", "/host/node1/status", "")
		}
		if w.Code != 200 && w.Code != 400 {
			t.Errorf("%s: %d %s", when, w.Code, w.Body)
		}
	}
}
