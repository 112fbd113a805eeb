package live

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// perHost counts the healthy replicas of an app by host.
func (f *fleet) perHost(name string) map[string]int {
	f.t.Helper()
	n := map[string]int{}
	for _, c := range f.state(name).Containers {
		if c.Health == "healthy" && c.Status == "running" {
			n[c.Host]++
		}
	}
	return n
}

// spread waits until the replicas of an app are so on hosts.
func (f *fleet) spread(name string, want map[string]int) {
	f.t.Helper()
	f.await(fmt.Sprintf("%s is spread as %v", name, want), func() bool { return fmt.Sprint(f.perHost(name)) == fmt.Sprint(want) })
}

// TestFleetModes: a host is drained without a request failing, paused, resumed
// and terminated; after that it comes back as a new one.
func TestFleetModes(t *testing.T) {
	f := newFleet(t, 3)
	n3 := f.nodes[2]
	f.apply(manifest(t, "web", map[string]any{"replicas": 3}))
	f.up("web", 3)
	f.spread("web", map[string]int{"n1": 1, "n2": 1, "n3": 1})
	stop := f.load("web", 2)
	f.must(http.MethodPost, "/host/n3/drain", `{"reason": "user", "detail": "a new disk"}`)
	f.await("n3 is empty", func() bool { return len(n3.list()) == 0 })
	f.up("web", 3)
	f.must(http.MethodPost, "/host/n2/pause", `{}`)
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 5}`)
	f.up("web", 5)
	if n := f.perHost("web"); n["n1"] < 3 || n["n3"] != 0 {
		t.Errorf("with n2 paused and n3 drained: %v", n)
	}
	var why struct {
		Hosts []struct{ Name, Host, Reason string }
	}
	if err := f.client.Do(t.Context(), http.MethodGet, "/api/v1/apps/web/explain", nil, &why); err != nil {
		t.Fatal(err)
	}
	for _, h := range why.Hosts {
		if want := map[string]string{"n1": "", "n2": "its mode is pause", "n3": "its mode is drain: a new disk"}[h.Host]; h.Reason != want {
			t.Errorf("%s: %q, want %q", h.Host, h.Reason, want)
		}
	}
	f.must(http.MethodPost, "/host/n2/resume", `{}`)
	f.must(http.MethodPost, "/host/n3/resume", `{}`)
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 6}`)
	f.up("web", 6)
	if n := f.perHost("web"); n["n3"] == 0 {
		t.Errorf("n3 is not used again: %v", n)
	}
	f.must(http.MethodPost, "/host/n3/terminate", `{"reason": "user"}`)
	f.await("n3 has left", func() bool {
		return len(n3.list()) == 0 && strings.Contains(n3.log.String(), "this host has left its controller")
	})
	f.up("web", 6)
	if n, failures := stop(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	n3.stop()
	n3.start()
	f.await("n3 is a host again", func() bool { h := f.host("n3"); return h.Liveness == "alive" && h.Mode == "continue" })
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 7}`)
	f.up("web", 7)
	if n := f.perHost("web"); n["n3"] == 0 {
		t.Errorf("n3 is not used again: %v", n)
	}
	f.once("web")
}

// TestFleetEnv: what is known at the launch alone, secrets among it.
func TestFleetEnv(t *testing.T) {
	f := newFleet(t, 1, "--webhook-allow", "127.0.0.0/8")
	env := []any{
		map[string]any{"name": "PASSWORD", "source": "secret", "key": "db", "field": "password"},
		map[string]any{"name": "TOKEN", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "token"}}},
		map[string]any{"name": "PLAIN", "value": "as it is"},
	}
	for _, key := range []string{"instance.id", "instance.name", "instance.ip", "instance.port", "app.name", "app.replicas", "host.id", "host.name"} {
		env = append(env, map[string]any{"name": "SDK_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")), "source": "sdk", "key": key})
	}
	secrets := []any{map[string]any{"path": "/run/secrets/key", "name": "db", "key": "key"}}
	f.apply(manifest(t, "web", map[string]any{"environment": env, "secrets": secrets}))
	const missing = `eplicas are not launched: environment variable PASSWORD: there is no secret "db/password"`
	f.await("it says which secret is missing", func() bool {
		return f.state("web").Message == "r"+missing && slices.Contains(f.said("web"), "R"+missing)
	})
	for name, text := range map[string]string{"db/password": marker + "-p", "db/key": marker + "-k\n", "token": marker + "-t\n"} {
		seal := exec.Command(filepath.Join(f.programs(), "buoyd"), "seal", name, "--data", f.data(), "--run", f.run())
		seal.Stdin = strings.NewReader(text)
		if out, err := seal.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if _, err := f.client.CreateWebhook(t.Context(), buoy.Webhook{Name: "ops", URL: "http://127.0.0.1:1/", Secret: marker + strings.Repeat("-w", 20)}); err != nil {
		t.Fatal(err)
	}
	f.up("web", 1)
	all := f.list()
	if len(all) != 1 {
		t.Fatalf("%v", all)
	}
	c, err := f.client.Container(t.Context(), all[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(c.Address, "/")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	ask := func(command ...string) string { // and keep nothing of the answer
		t.Helper()
		r, err := f.client.ExecWait(t.Context(), c.Name, buoy.ExecRequest{Command: command})
		if err != nil {
			t.Fatal(err)
		}
		return r.Stdout
	}
	for kv := range strings.SplitSeq(ask("/bin/cat", "/proc/1/environ"), "\x00") {
		k, v, _ := strings.Cut(kv, "=")
		got[k] = v
	}
	for k, want := range map[string]string{
		"PASSWORD": marker + "-p", "TOKEN": marker + "-t", "PLAIN": "as it is", "SDK_INSTANCE_ID": f.state("web").Containers[0].ID, "SDK_INSTANCE_NAME": "web-1",
		"SDK_INSTANCE_IP": address, "SDK_INSTANCE_PORT": "8000", "SDK_APP_NAME": "web", "SDK_APP_REPLICAS": "1", "SDK_HOST_ID": "n1", "SDK_HOST_NAME": hostname,
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	const look = `cat /run/secrets/key; stat -c "%a %u" /run/secrets/key; stat -f -c %T /run/secrets/key`
	if got := ask("/bin/sh", "-c", look); got != marker+"-k400 0\ntmpfs\n" {
		t.Errorf("its file: %q", got)
	}
	f.untold(c.Name)
}

// marker is in each secret of TestFleetEnv.
const marker = "s3cr3t-marker"

// untold looks for secrets wherever a daemon writes, and in all that it answers.
func (f *fleet) untold(container string) {
	f.t.Helper()
	for _, path := range []string{
		"/nodes/n1/containers", "/nodes/n1/containers/" + container, "/nodes/n1/containers/" + container + "/jobs", "/nodes/n1/containers/" + container + "/processes",
		"/nodes/n1/containers/" + container + "/info", "/nodes/n1/processes", "/host", "/host/n1", "/api/v1/apps", "/api/v1/apps/web", "/api/v1/apps/web/explain", "/api/v1/apps/web/spec",
		"/api/v1/apps/web/revisions", "/api/v1/apps/web/events", "/service", "/events", "/webhooks", "/webhooks/ops", "/audit", "/metrics",
	} {
		resp, err := f.http.Get("http://" + f.addr + path)
		if err != nil {
			f.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || strings.Contains(string(body), marker) {
			f.t.Errorf("GET %s: %v, %s", path, err, body)
		}
	}
	if strings.Contains(f.log.String(), marker) {
		f.t.Errorf("the log has a secret: %s", f.log)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, name := range lines {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), marker) {
			f.t.Errorf("%s: %q", name, text)
		}
	}
	if out, _ := exec.Command("grep", "-rlaF", "--devices=skip", marker, f.dir).Output(); len(out) > 0 {
		f.t.Errorf("a secret is in %s", out)
	}
}

// kind is a manifest of another kind than App.
func kind(t *testing.T, of, name, script string, more map[string]any) map[string]any {
	m := map[string]any{"image": image(t), "command": []any{"/bin/sh", "-c", script}}
	maps.Copy(m, more)
	return map[string]any{"apiVersion": "v1", "kind": of, "metadata": map[string]any{"name": name}, "spec": m}
}

// said are the messages of an app's events, oldest first.
func (f *fleet) said(name string) []string {
	f.t.Helper()
	var all struct{ Events []struct{ Message string } }
	if err := f.client.Do(f.t.Context(), http.MethodGet, "/api/v1/apps/"+name+"/events?limit=1000", nil, &all); err != nil {
		f.t.Fatal(err)
	}
	var out []string
	for _, e := range slices.Backward(all.Events) {
		out = append(out, e.Message)
	}
	return out
}

// TestFleetRestarts: what a node starts again by itself is told, once though it
// goes on.
func TestFleetRestarts(t *testing.T) {
	f := newFleet(t, 1)
	f.apply(kind(t, "Worker", "loops", "exit 3", nil))
	f.await("it has been started again a few times", func() bool {
		a, err := f.client.App(t.Context(), "loops")
		return err == nil && len(a.Containers) == 1 && a.Containers[0].Restarts > 3
	})
	told := slices.DeleteFunc(f.said("loops"), func(text string) bool { return !strings.Contains(text, " was restarted ") })
	if len(told) != 1 || !strings.HasPrefix(told[0], "Replica loops-1 on host ") || !strings.Contains(told[0], "exited with code 3") {
		t.Errorf("%q", told)
	}
}

// TestFleetJobs: jobs succeed, or are given up; cron begins its runs.
func TestFleetJobs(t *testing.T) {
	f := newFleet(t, 2)
	f.apply(kind(t, "Job", "sums", "exit 0", map[string]any{"job": map[string]any{"completions": 5, "parallelism": 2}}))
	f.apply(kind(t, "Job", "hopeless", "exit 3", map[string]any{"job": map[string]any{"backoffLimit": 1}}))
	f.apply(kind(t, "Job", "endless", "exec sleep 1000", map[string]any{
		"termination": map[string]any{"terminationGracePeriodSeconds": 1}, "job": map[string]any{"activeDeadlineSeconds": 2},
	}))
	f.apply(kind(t, "CronJob", "often", "exit 0", map[string]any{"schedule": "@every 2s"}))
	f.await("the job has succeeded", func() bool { return f.state("sums").Status == "completed" })
	if said := f.said("sums"); !slices.Contains(said, "Run 1 succeeded") {
		t.Errorf("%q", said)
	}
	f.await("the other one is given up", func() bool { return f.state("hopeless").Status == "error" })
	f.await("what takes too long is given up", func() bool { return f.state("endless").Status == "error" })
	if s := f.state("hopeless"); !strings.Contains(s.Message, "2 replicas failed") {
		t.Errorf("%q", s.Message)
	}
	f.await("cron has had two runs", func() bool {
		said := f.said("often")
		return slices.Contains(said, "Run 1 succeeded") && slices.Contains(said, "Run 2 succeeded")
	})
	f.must(http.MethodPost, "/api/v1/apps/often/stop", nil)
	f.must(http.MethodPost, "/api/v1/apps/sums/start", nil) // again
	f.await("the second run has succeeded", func() bool { return slices.Contains(f.said("sums"), "Run 2 succeeded") })
	for id, n := range f.launched() {
		if n > 1 {
			t.Errorf("%s was launched %d times", id, n)
		}
	}
	for _, name := range []string{"sums", "hopeless", "endless", "often"} {
		f.must(http.MethodDelete, "/api/v1/apps/"+name, nil)
	}
	for _, d := range f.nodes {
		if left := d.list(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// TestFleetDaemon: one on each node, also on those that come later, and a new
// revision on all.
func TestFleetDaemon(t *testing.T) {
	f := newFleet(t, 2)
	m := kind(t, "Daemon", "watch", "exec sleep 1000", map[string]any{"termination": map[string]any{"terminationGracePeriodSeconds": 1}})
	f.apply(m)
	f.spread("watch", map[string]int{"n1": 1, "n2": 1})
	f.joined("n3")
	f.spread("watch", map[string]int{"n1": 1, "n2": 1, "n3": 1})
	before := f.launched()
	m["spec"].(map[string]any)["env"] = map[string]any{"VERSION": "2"}
	f.apply(m)
	f.await("the new revision is on all", func() bool { return slices.Contains(f.said("watch"), "Revision 2 is rolled out to 3 replicas") })
	f.spread("watch", map[string]int{"n1": 1, "n2": 1, "n3": 1})
	if after := f.launched(); len(after) != len(before)+3 {
		t.Errorf("launched were %d and are %d", len(before), len(after))
	}
	f.once("watch")
}

// TestFleetStandby: what stands by is what runs when there are to be more.
func TestFleetStandby(t *testing.T) {
	f := newFleet(t, 2)
	f.apply(manifest(t, "web", map[string]any{"standby": 2}))
	f.up("web", 1)
	ready := func() (ids []string) {
		for _, c := range f.state("web").Containers {
			if c.Status == "standby" {
				ids = append(ids, c.ID)
			}
		}
		return ids
	}
	f.await("two stand by", func() bool { return len(ready()) == 2 })
	waiting := ready()
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 3, "wait": true, "timeout": 20}`)
	f.up("web", 3)
	var run []string
	for _, c := range f.state("web").Containers {
		if c.Status == "running" {
			run = append(run, c.ID)
		}
	}
	for _, id := range waiting {
		if !slices.Contains(run, id) {
			t.Errorf("%s stood by and does not run: %v", id, run)
		}
	}
	f.await("two stand by again", func() bool { return len(ready()) == 2 })
	if got := f.answering("web", 30, 0); len(got) != 3 {
		t.Errorf("answered by %v", got)
	}
	f.once("web")
}

// echoSource sends back what comes: TCP at 9000, UDP at 9001.
const echoSource = `package main

import (
	"io"
	"net"
)

func main() {
	u, err := net.ListenPacket("udp", ":9001")
	if err != nil {
		panic(err)
	}
	go func() {
		b := make([]byte, 2048)
		for {
			if n, from, err := u.ReadFrom(b); err == nil {
				u.WriteTo(b[:n], from)
			}
		}
	}()
	l, err := net.Listen("tcp", ":9000")
	if err != nil {
		panic(err)
	}
	for {
		if c, err := l.Accept(); err == nil {
			go func() { io.Copy(c, c); c.Close() }()
		}
	}
}
`

// echoProgram is that, built: no applet of busybox speaks UDP.
func echoProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "echo.go"), filepath.Join(dir, "echo")
	if err := os.WriteFile(source, []byte(echoSource), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return program
}

// TestFleetStreams: the balancer takes TCP and UDP at ports of its own.
func TestFleetStreams(t *testing.T) {
	f := newFleet(t, 2)
	tcp, udp := freePort(t), freePort(t)
	f.apply(manifest(t, "echo", map[string]any{
		"replicas": 2, "type": "tcp", "healthCheck": map[string]any{"protocol": "TCP", "periodSeconds": 1},
		"ports": []any{
			map[string]any{"containerPort": 9000, "protocol": "TCP", "listen": tcp}, map[string]any{"containerPort": 9001, "protocol": "UDP", "listen": udp},
		},
		"command": []any{"/echo"}, "volumes": []any{map[string]any{"hostPath": echoProgram(t), "mountPath": "/echo", "readOnly": true}},
	}))
	f.up("echo", 2)
	echo := func(network string, port int, text string) (string, error) {
		c, err := net.Dial(network, fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return "", err
		}
		if _, err := fmt.Fprintln(c, text); err != nil {
			return "", err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(line), err
	}
	for network, port := range map[string]int{"tcp": tcp, "udp": udp} {
		for range 4 { // both replicas have their turn
			f.await(network+" answers", func() bool { got, err := echo(network, port, "hello"); return err == nil && got == "hello" })
		}
	}
	// Two apps never clash.
	status, r := f.ask(http.MethodPost, "/api/v1/apps/apply", manifest(t, "other", map[string]any{
		"type": "tcp", "ports": []any{map[string]any{"containerPort": 9000, "protocol": "TCP", "listen": tcp}},
		"healthCheck": map[string]any{"protocol": "TCP"},
	}))
	if status != http.StatusConflict || !strings.Contains(r.Details, "echo") {
		t.Errorf("%d %+v", status, r)
	}
	f.must(http.MethodDelete, "/api/v1/apps/echo?force=true", nil) // UDP has no end that a drain could wait for
	f.await("nobody listens any more", func() bool { _, err := echo("tcp", tcp, "hello"); return err != nil })
}

// TestFleetSticky: a client that keeps its cookie keeps its replica, as long as
// that is there.
func TestFleetSticky(t *testing.T) {
	f := newFleet(t, 2)
	f.apply(manifest(t, "web", map[string]any{"replicas": 3, "expose": map[string]any{"balance": "sticky", "host": "web.localhost"}}))
	f.up("web", 3)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar}
	at, err := url.Parse("http://" + f.web + "/")
	if err != nil {
		t.Fatal(err)
	}
	get := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "web.localhost"
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if resp.StatusCode != http.StatusOK || err != nil {
			return resp.Status
		}
		jar.SetCookies(at, resp.Cookies()) // it is of web.localhost, which the jar cannot see
		return strings.Fields(line)[0]
	}
	var mine string
	f.await("somebody answers", func() bool { mine = get(); return strings.HasPrefix(mine, "web-") })
	for range 20 {
		if got := get(); got != mine {
			t.Fatalf("%s answered, and then %s", mine, got)
		}
	}
	if got := f.answering("web.localhost", 30, 0); len(got) != 3 {
		t.Errorf("without cookies: %v", got)
	}
}

// TestFleetCanary: a few try the new revision, others stay until a person says
// so; a rollout is paused, goes on, and is taken back.
func TestFleetCanary(t *testing.T) {
	f := newFleet(t, 2)
	m := manifest(t, "web", map[string]any{"replicas": 4, "rollout": map[string]any{"canary": 1, "maxSurge": 1}})
	version := func(v string) {
		m["spec"].(map[string]any)["environment"].([]any)[2].(map[string]any)["value"] = v
		f.apply(m)
	}
	f.apply(m)
	f.up("web", 4)
	versions := func(want ...string) func() bool {
		return func() bool { return slices.Equal(f.answering("web", 24, 2), want) }
	}
	stop := f.load("web", 2)
	count := func(revision int) (n int) {
		for _, c := range f.revisions("web") {
			if c == revision {
				n++
			}
		}
		return n
	}
	version("2")
	f.await("one tries it", func() bool { return count(2) == 1 && count(1) == 3 && f.state("web").Replicas.Healthy == 4 })
	f.await("both answer", versions("1", "2"))
	f.must(http.MethodPost, "/api/v1/apps/web/rollout/promote", nil)
	f.await("all are at it", func() bool { return count(2) == 4 && count(1) == 0 })
	f.up("web", 4)
	f.await("the second answers", versions("2"))
	if status, r := f.ask(http.MethodPost, "/api/v1/apps/web/rollout/promote", nil); status != http.StatusConflict {
		t.Errorf("promote without canaries: %d %+v", status, r)
	}

	delete(m["spec"].(map[string]any)["rollout"].(map[string]any), "canary")
	version("3")
	f.must(http.MethodPost, "/api/v1/apps/web/rollout/pause", nil)
	f.await("it has come to rest", func() bool { s := f.state("web"); return s.Replicas.Healthy >= 4 && count(1) == 0 && count(3) <= 2 })
	paused := count(3)
	f.must(http.MethodPost, "/api/v1/apps/web/rollout/resume", nil)
	f.await("all are at the third", func() bool { return count(3) == 4 && count(2) == 0 })
	t.Logf("paused with %d at the third", paused)
	f.up("web", 4)
	f.must(http.MethodPost, "/api/v1/apps/web/rollback", nil)
	f.await("all are back", func() bool { return count(2) == 4 && count(3) == 0 })
	f.up("web", 4)
	f.await("the second answers again", versions("2"))
	f.must(http.MethodPost, "/api/v1/apps/web/rollback", `{"revision": 1}`)
	f.await("all are at the first", func() bool { return count(1) == 4 && count(2) == 0 })
	f.up("web", 4)
	if status, r := f.ask(http.MethodPost, "/api/v1/apps/web/rollback", `{"revision": 77}`); status != http.StatusNotFound || r.Code != "NOT_FOUND" {
		t.Errorf("back to what never was: %d %+v", status, r)
	}
	if n, failures := stop(); len(failures) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	f.once("web")
}

// revisions are those of an app's replicas that are to stay.
func (f *fleet) revisions(name string) (all []int) {
	f.t.Helper()
	var s struct {
		Containers []struct {
			Status   string
			Revision int
		}
	}
	if err := f.client.Do(f.t.Context(), http.MethodGet, "/api/v1/apps/"+name, nil, &s); err != nil {
		f.t.Fatal(err)
	}
	for _, c := range s.Containers {
		if c.Status != "stopping" {
			all = append(all, c.Revision)
		}
	}
	return all
}

// TestFleetRebalance: replicas move to a node that has joined when somebody
// asks for it, and not before; no request fails.
func TestFleetRebalance(t *testing.T) {
	f := newFleet(t, 1)
	f.apply(manifest(t, "web", map[string]any{"replicas": 4}))
	f.up("web", 4)
	f.joined("n2")
	var plan struct {
		Preview bool
		Moves   []struct{ From, To string }
	}
	preview := func() int {
		plan.Moves = nil
		if err := f.client.Do(t.Context(), http.MethodPost, "/api/v1/apps/rebalance", map[string]any{"preview": true}, &plan); err != nil {
			t.Fatal(err)
		}
		return len(plan.Moves)
	}
	if n := preview(); n != 2 || plan.Moves[0].From != "n1" || plan.Moves[0].To != "n2" {
		text, _ := json.Marshal(plan) // of what came as JSON
		t.Errorf("%s", text)
	}
	if n := f.perHost("web"); n["n1"] != 4 {
		t.Errorf("moved already: %v", n)
	}
	stop := f.load("web", 2)
	f.must(http.MethodPost, "/api/v1/apps/web/rebalance", nil)
	f.spread("web", map[string]int{"n1": 2, "n2": 2})
	f.up("web", 4)
	if n, failures := stop(); len(failures) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	if n := preview(); n != 0 {
		t.Errorf("there are still moves: %+v", plan)
	}
	f.once("web")
}
