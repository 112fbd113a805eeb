package live

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestBadInput is the table of what people get wrong. Each is answered with a
// status and one sentence, leaves no container and no trace, and is logged at
// most once.
func TestBadInput(t *testing.T) {
	d := newDaemon(t)
	img := image(t)
	d.create(sh(t, "there", "sleep 1000"))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	corrupt, noFlist := filepath.Join(t.TempDir(), "corrupt.tar.gz"), filepath.Join(t.TempDir(), "none.flist")
	for _, file := range []string{corrupt, noFlist} {
		if err := os.WriteFile(file, []byte("\x1f\x8b\x08\x00garbage that is no gzip stream"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const containers = "/nodes/525400123456/containers"
	container := func(fields string) string {
		return fmt.Sprintf(`{"name":"bad","flist":%q,"command":["/bin/sleep","1000"]%s}`, img, fields)
	}
	flist := func(ref string) string { return fmt.Sprintf(`{"name":"bad","flist":%q}`, ref) }
	cases := []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"no JSON", "POST", containers, "{", 400, "JSON"},
		{"empty body", "POST", containers, "", 400, ""},
		{"trailing garbage", "POST", containers, container("") + "x", 400, ""},
		{"unknown field", "POST", containers, container(`,"colour":"red"`), 400, "colour"},
		{"wrong type", "POST", containers, container(`,"hostname":5`), 400, "hostname"},
		{"no name", "POST", containers, fmt.Sprintf(`{"flist":%q}`, img), 400, "name"},
		{"name with slash", "POST", containers, `{"name":"a/b","flist":"x"}`, 400, "name"},
		{"name is dots", "POST", containers, `{"name":"..","flist":"x"}`, 400, "name"},
		{"long name", "POST", containers, `{"name":"` + strings.Repeat("a", 64) + `","flist":"x"}`, 400, "name"},
		{"duplicate name", "POST", containers, fmt.Sprintf(`{"name":"there","flist":%q}`, img), 409, "exists"},
		{"no image", "POST", containers, `{"name":"bad"}`, 400, "flist"},
		{"image not there", "POST", containers, flist("/no/such/directory"), 404, "there is nothing at /no/such/directory on this node"},
		{"bad reference", "POST", containers, flist("UPPER//case::"), 400, ""},
		{"flist away", "POST", containers, flist("http://127.0.0.1:1/x.flist"), 503, "x.flist"},
		{"flist that is none", "POST", containers, flist(noFlist), 400, "flist"},
		{"storage of no flist", "POST", containers, container(`,"storage":"redis://127.0.0.1:1"`), 400, "chunk store of an flist"},
		{"registry away", "POST", containers, flist("127.0.0.1:1/nothing:1"), 503, "127.0.0.1:1"},
		{"corrupt archive", "POST", containers, flist(corrupt), 400, ""},
		{"command not there", "POST", containers, container(`,"entrypoint":["/no/such/program"]`), 404, "/no/such/program"},
		{"command not executable", "POST", containers, container(`,"entrypoint":["/etc/passwd"]`), 400, "/etc/passwd"},
		{"user not there", "POST", containers, container(`,"user":"nosuchuser"`), 400, "user \"nosuchuser\" is not in the image's /etc/passwd"},
		{"NIC type", "POST", containers, container(`,"nics":[{"type":"zerotier","id":"5"}]`), 400, "supported: default"},
		{"NIC hwaddr", "POST", containers, container(`,"nics":[{"type":"default","hwaddr":"zz"}]`), 400, "zz"},
		{"bridge not there", "POST", containers, container(`,"nics":[{"type":"bridge","id":"nosuch"}]`), 400, "bridge"},
		{"port without NIC", "POST", containers, container(`,"ports":["8080:80"]`), 400, "NIC"},
		{"port is no port", "POST", containers, container(`,"nics":[{"type":"default"}],"ports":["web:80"]`), 400, "web"},
		{"port taken", "POST", containers, container(fmt.Sprintf(`,"nics":[{"type":"default"}],"ports":["127.0.0.1:%d:80"]`, taken.Addr().(*net.TCPAddr).Port)), 409, fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)},
		{"memory too small", "POST", containers, container(`,"limits":{"memory":1000}`), 400, "memory"},
		{"CPU too small", "POST", containers, container(`,"limits":{"milliCPU":1}`), 400, "CPU"},
		{"CPU too many", "POST", containers, container(`,"limits":{"milliCPU":100000000}`), 400, "CPU"},
		{"mount source", "POST", containers, container(`,"mounts":[{"type":"bind","source":"/no/such","target":"/x"}]`), 400, "/no/such"},
		{"mount on proc", "POST", containers, container(`,"mounts":[{"type":"tmpfs","target":"/proc"}]`), 400, "/proc"},
		{"filesystem", "POST", containers, container(`,"filesystems":["nocolon"]`), 400, "nocolon"},
		{"restart policy", "POST", containers, container(`,"restart":"sometimes"`), 400, "sometimes"},
		{"stop signal", "POST", containers, container(`,"stopSignal":"SIGNOPE"`), 400, "SIGNOPE"},
		{"capability", "POST", containers, container(`,"capAdd":["FLY"]`), 400, "FLY"},
		{"sysctl of the node", "POST", containers, container(`,"sysctls":{"kernel.panic":"1"}`), 400, "kernel.panic"},
		{"device not there", "POST", containers, container(`,"devices":[{"path":"/dev/nosuch"}]`), 400, "/dev/nosuch"},
		{"environment", "POST", containers, container(`,"env":["NOEQUALS"]`), 400, "NOEQUALS"},
		{"init process not there", "POST", containers, container(`,"initprocesses":[{"name":"/no/such"}]`), 404, "/no/such"},
		{"10 MB", "POST", containers, container(`,"hostname":"` + strings.Repeat("a", 10<<20) + `"`), 413, ""},
		{"deep JSON", "POST", containers, strings.Repeat("[", 100000), 400, ""},
		{"unknown node", "GET", "/nodes/000000000000/containers", "", 404, "this is node \"525400123456\""},
		{"unknown container", "GET", containers + "/nobody", "", 404, "nobody"},
		{"start of unknown", "POST", containers + "/nobody/start", "", 404, "nobody"},
		{"unknown job", "GET", containers + "/there/jobs/none", "", 404, "none"},
		{"signal 0", "POST", containers + "/there/processes/1", `{"signal":0}`, 400, "signal"},
		{"pid is no number", "GET", containers + "/there/processes/x", "", 400, ""},
		{"job not there", "POST", containers + "/there/jobs", `{"name":"/no/such"}`, 404, "/no/such"},
		{"download without path", "GET", containers + "/there/filesystem", "", 400, "path"},
		{"download of a device", "GET", containers + "/there/filesystem?path=/dev/null", "", 400, "/dev/null"},
		{"unknown route", "GET", "/nothing", "", 404, ""},
		{"wrong method", "PATCH", containers, "{}", 405, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := len(d.log.String())
			status, header, body := d.raw(c.method, c.path, c.body)
			if status != c.status {
				t.Errorf("status %d, want %d: %s", status, c.status, body)
			}
			var e struct{ Error string }
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == "" || strings.Contains(e.Error, "\n") {
				t.Errorf("the answer is not one sentence: %q (%s)", body, header.Get("Content-Type"))
			}
			if !strings.Contains(e.Error, c.says) {
				t.Errorf("%q does not name %q", e.Error, c.says)
			}
			if lines := strings.Count(d.log.String()[before:], "\n"); lines > 1 {
				t.Errorf("logged %d lines:\n%s", lines, d.log.String()[before:])
			}
		})
	}
	list, err := d.client.Containers(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "there" {
		t.Errorf("containers = %+v, %v; want the good one alone", list, err)
	}
	for _, dir := range []string{d.data(), d.run()} {
		if left, err := filepath.Glob(filepath.Join(dir, "containers", "*")); err != nil || len(left) != 1 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// TestAbsentIsDeleted: deleting what is not there is what was wanted.
func TestAbsentIsDeleted(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "there", Flist: image(t)})
	for _, path := range []string{"nobody", "there/jobs/none", "there/processes/4242", "there/filesystem"} {
		body := ""
		if strings.HasSuffix(path, "filesystem") {
			body = `{"path":"/no/such/file"}`
		}
		if status, _, text := d.raw(http.MethodDelete, "/nodes/525400123456/containers/"+path, body); status != http.StatusNoContent {
			t.Errorf("DELETE %s = %d %s, want 204", path, status, text)
		}
	}
}
