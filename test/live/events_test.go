package live

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// events are those that the node has and q selects.
func (d *daemon) events(q buoy.NodeEventQuery) (all []buoy.NodeEvent) {
	d.t.Helper()
	for e, err := range d.client.NodeEvents(context.WithoutCancel(d.t.Context()), q) {
		if err != nil {
			d.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// brief is an event in short.
func brief(e buoy.NodeEvent) string {
	text := e.Type
	if s := strings.TrimPrefix(e.Subject, "containers/"); s != "" {
		text += " " + s
	}
	if e.Data.Reason != "" {
		text += " " + e.Data.Reason
	}
	if e.Data.ExitCode != nil {
		text += fmt.Sprintf(" %d", *e.Data.ExitCode)
	}
	return text
}

// teller compares what has happened with what should have.
type teller struct {
	d     *daemon
	after string
}

// wants waits for these events, and for no others, since it was last asked.
func (n *teller) wants(what string, want ...string) (all []buoy.NodeEvent) {
	n.d.t.Helper()
	var got []string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, got = n.d.events(buoy.NodeEventQuery{After: n.after}), nil
		for _, e := range all {
			got = append(got, brief(e))
		}
		if cmp.Equal(want, got) || time.Now().After(deadline) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		n.d.t.Errorf("%s: -want +got\n%s", what, diff)
	}
	if len(all) > 0 {
		n.after = all[len(all)-1].ID
	}
	return all
}

// upTo waits for an event and passes over what was before it.
func (n *teller) upTo(want string) buoy.NodeEvent {
	n.d.t.Helper()
	var last buoy.NodeEvent
	n.d.await("it is told: "+want, func() bool {
		for _, e := range n.d.events(buoy.NodeEventQuery{After: n.after}) {
			if brief(e) == want {
				n.after, last = e.ID, e
				return true
			}
		}
		return false
	})
	return last
}

func newTeller(t *testing.T, args ...string) (*daemon, *teller) {
	t.Helper()
	// Of a node alone: what its controller says comes when it likes.
	d := newDaemon(t, append([]string{"--controller", "unix:///none.sock", "--join-token", "x"}, args...)...)
	n := &teller{d: d}
	n.upTo("node.started")
	n.upTo("controller.lost")
	return d, n
}

func TestEventsOfContainers(t *testing.T) {
	d, n := newTeller(t)
	port := freePort(t)
	r := sh(t, "web", "trap 'exit 3' TERM; httpd -f -p 80 -h /www & while :; do sleep 0.05; done")
	r.NICs, r.Ports = []buoy.NIC{{Type: "default"}}, []string{fmt.Sprintf("127.0.0.1:%d:80", port)}
	r.Mounts = []buoy.Mount{{Type: "volume", Source: "data", Target: "/data"}}
	d.create(r)
	all := n.wants("create", "volume.created volumes/data", "container.created web", "nic.attached web/nics/eth0",
		"port.published web/ports/"+fmt.Sprintf("127.0.0.1:%d:80", port), "container.started web")
	created := all[1]
	if a := created.Data.Actor; a.Kind != "api" || a.Request == "" || !strings.HasPrefix(a.Peer, "127.0.0.1:") || created.Source != "/nodes/525400123456" || created.Data.Container != "web" || created.Data.Image != image(t) {
		t.Errorf("created: %+v", created)
	}
	if a := all[2].Data.Attributes; a["nic"] != "eth0" || a["type"] != "default" || !strings.Contains(a["addresses"], "/") {
		t.Errorf("attached: %v", a)
	}

	j := d.exec("web", "/bin/sh", "-c", "exit 5")
	n.wants("exec", "job.started web/jobs/"+j.ID, "job.ended web/jobs/"+j.ID+" 5")

	if err := d.client.Update(t.Context(), "web", buoy.ContainerUpdate{Ports: &[]string{}}); err != nil {
		t.Fatal(err)
	}
	n.wants("update", "container.updated web", "port.withdrawn web/ports/"+fmt.Sprintf("127.0.0.1:%d:80", port))
	if err := d.client.Restart(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	n.wants("restart", "nic.detached web/nics/eth0", "container.stopped web Stopped 3", "nic.attached web/nics/eth0", "container.started web", "container.restarted web Stopped")
	if err := d.client.Delete(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	n.wants("delete", "nic.detached web/nics/eth0", "container.stopped web Stopped 3", "container.deleted web")
	if err := d.client.DeleteVolume(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	n.wants("delete volume", "volume.deleted volumes/data")

	bad := sh(t, "bad", "true")
	bad.Command = []string{"/no/such"}
	if err := d.client.Create(t.Context(), bad); err == nil {
		t.Error("it was created")
	}
	if all := n.wants("a create that fails", "container.failed bad StartFailed"); len(all) == 1 && !strings.Contains(all[0].Data.Message, "/no/such") {
		t.Errorf("failed: %+v", all[0])
	}

	once := sh(t, "once", "exit 7")
	once.Restart = "on-failure:1"
	d.create(once)
	d.awaitState("once", "halted")
	all = n.wants("a policy", "container.created once", "container.started once", "container.exited once Exited 7",
		"container.started once", "container.restarted once Exited", "container.exited once Exited 7")
	if len(all) == 6 && (all[3].Data.Actor.Name != "restart policy" || all[3].Data.Attributes["restarts"] != "1" || all[5].Data.Message == "") {
		t.Errorf("%+v", all)
	}

	hungry := sh(t, "hungry", "exec tail -c 1000000000 /dev/zero")
	hungry.Limits.Memory = 16 << 20
	d.create(hungry)
	d.awaitState("hungry", "halted")
	n.wants("out of memory", "container.created hungry", "container.started hungry", "container.oom hungry", "container.exited hungry OOMKilled 137")

	still := sh(t, "still", "exec sleep 1000")
	still.Standby = true
	d.create(still)
	if err := d.client.Start(t.Context(), "still"); err != nil {
		t.Fatal(err)
	}
	n.wants("standby", "container.created still", "container.standby still", "container.started still")

	well := sh(t, "well", "touch /tmp/ok; exec sleep 1000")
	well.Health = &buoy.HealthCheck{Type: "exec", Command: []string{"/bin/sh", "-c", "test -e /tmp/ok"}, Period: 0.1, FailureThreshold: 2, Restart: true}
	d.create(well)
	n.wants("health", "container.created well", "container.started well", "container.healthy well")
	j = d.exec("well", "/bin/rm", "/tmp/ok")
	all = n.wants("health lost", "job.started well/jobs/"+j.ID, "job.ended well/jobs/"+j.ID+" 0", "container.unhealthy well",
		"container.stopped well Unhealthy 137", "container.started well", "container.restarted well Unhealthy", "container.healthy well")
	if len(all) == 7 && all[3].Data.Actor.Name != "health check" {
		t.Errorf("%+v", all[3])
	}

	// A filter selects, over REST and at a terminal.
	if got := d.events(buoy.NodeEventQuery{Containers: []string{"once"}, Types: []string{"container.exited"}}); len(got) != 2 {
		t.Errorf("%d events, want the two exits: %+v", len(got), got)
	}
	if got := d.events(buoy.NodeEventQuery{Images: []string{image(t)}, Types: []string{"container.oom"}}); len(got) != 1 {
		t.Errorf("%d events, want the one of the image: %+v", len(got), got)
	}
	out, err := exec.Command(filepath.Join(bin(t), "buoy"), "--addr", "http://"+d.addr, "events", "--filter", "container=hungry").CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 4 || !strings.Contains(string(out), "container.exited      hungry  OOMKilled, exit code 137") {
		t.Errorf("buoy events: %v\n%s", err, out)
	}
	if _, _, body := d.raw("GET", "/metrics", ""); !strings.Contains(body, `buoy_events_total{type="container.oom"} 1`) {
		t.Error("metrics have no events")
	}
}

func TestEventsOfImages(t *testing.T) {
	d, n := newTeller(t)
	ref, err := name.NewTag(startRegistry(t)+"/team/app:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, map[string]string{"etc/motd": "hello\n"}))
	if err != nil {
		t.Fatal(err)
	}
	d.await("the registry takes the image", func() bool { return remote.Write(ref, img) == nil })
	pull := func() (err error) {
		for _, e := range d.client.Pull(t.Context(), ref.String()) {
			err = e
		}
		return err
	}
	for range 2 {
		if err := pull(); err != nil {
			t.Fatal(err)
		}
	}
	at := "images/" + ref.String()
	all := n.wants("two pulls", "image.pulled "+at)
	if len(all) == 1 && (all[0].Data.Image != ref.String() || !strings.HasPrefix(all[0].Data.Attributes["digest"], "sha256:") || all[0].Data.Actor.Kind != "api") {
		t.Errorf("%+v", all[0])
	}
	var tar strings.Builder
	archive, err := d.client.ExportImage(t.Context(), ref.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&tar, archive); err != nil {
		t.Fatal(err)
	}
	_ = archive.Close()
	must(t, d.client.PinImage(t.Context(), ref.String()))
	must(t, d.client.UnpinImage(t.Context(), ref.String()))
	must(t, d.client.RemoveImage(t.Context(), ref.String(), false))
	n.wants("pin, unpin, remove", "image.pinned "+at, "image.unpinned "+at, "image.removed "+at)
	if _, err := d.client.ImportImage(t.Context(), strings.NewReader(tar.String()), ref.String(), ""); err != nil {
		t.Fatal(err)
	}
	n.wants("import", "image.imported "+at)
	none := strings.Replace(ref.String(), "app", "none", 1)
	if err := d.client.Create(t.Context(), buoy.CreateRequest{Name: "none", Flist: none}); err == nil {
		t.Error("it was created")
	}
	n.wants("of an image that is not there", "image.failed images/"+none, "container.failed none StartFailed")
}

func TestEventsOfTheNode(t *testing.T) {
	d, n := newTeller(t, "--image-gc", "2:1")
	if got := d.events(buoy.NodeEventQuery{Types: []string{"disk"}}); len(got) != 1 || got[0].Type != "disk.pressure" || got[0].Data.Message == "" {
		t.Errorf("a disk that is fuller than 2%%: %+v", got)
	}
	must(t, d.client.CreateBridge(t.Context(), buoy.Bridge{Name: "be" + d.instance()[1:6], NetworkMode: "none"}))
	n.wants("bridge", "bridge.created bridges/be"+d.instance()[1:6])
	r := sh(t, "box", "exec sleep 1000")
	r.NICs = []buoy.NIC{{Type: "default"}}
	d.create(r)
	n.upTo("container.started box")
	j, err := d.client.Exec(t.Context(), "box", buoy.Command{Name: "/bin/sh", Args: []string{"-c", "while [ ! -e /tmp/end ]; do sleep 0.02; done; exit 4"}})
	must(t, err)
	n.wants("exec", "job.started box/jobs/"+j)

	// Somebody takes the host's end of the NIC away, and then our rules.
	links, err := filepath.Glob("/sys/class/net/*/ifalias")
	must(t, err)
	port := ""
	for _, file := range links {
		if alias, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(alias), "buoy:"+d.instance()+":box") {
			port = filepath.Base(filepath.Dir(file))
		}
	}
	must(t, exec.Command("ip", "link", "del", port).Run())
	if e := n.upTo("nic.restored box/nics/eth0"); e.Data.Actor.Name != "network watch" {
		t.Errorf("%+v", e)
	}
	must(t, exec.Command("nft", "delete", "table", "inet", "buoy-"+d.instance()).Run())
	if e := n.upTo("network.restored"); e.Data.Message == "" {
		t.Errorf("%+v", e)
	}

	d.killShim()
	n.upTo("shim.lost")
	n.upTo("shim.replaced")

	// What ends while buoyd is away is told by the next one, once.
	d.kill()
	c := mustJobPID(t, d, "box")
	must(t, os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/end", c), nil, 0o600))
	d.await("the job has ended", func() bool { return syscall.Kill(c, 0) != nil || zombie(c) })
	d.start()
	n.upTo("job.ended box/jobs/" + j + " 4")
	n.upTo("node.started")
	if got := d.events(buoy.NodeEventQuery{Types: []string{"job.ended"}}); len(got) != 1 {
		t.Errorf("told %d times", len(got))
	}
	d.stop()
	d.start()
	n.upTo("node.stopping")
	n.upTo("node.started")
	if got := d.events(buoy.NodeEventQuery{Types: []string{"job.ended", "gap"}}); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	must(t, d.client.Delete(t.Context(), "box"))
	must(t, d.client.DeleteBridge(t.Context(), "be"+d.instance()[1:6]))
	n.upTo("bridge.deleted bridges/be" + d.instance()[1:6])
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// mustJobPID is the pid of the shell that a job runs in a container.
func mustJobPID(t *testing.T, d *daemon, container string) int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, p := range procs {
		raw, err := os.ReadFile(p)
		cgroup, cerr := os.ReadFile(filepath.Join(filepath.Dir(p), "cgroup"))
		if err == nil && cerr == nil && strings.Contains(string(raw), "/tmp/end") && strings.Contains(string(cgroup), d.instance()+"/"+container) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			must(t, err)
			return pid
		}
	}
	t.Fatal("the job does not run")
	return 0
}

// TestEventsResume: whoever goes on from the last event that it has misses none
// and sees none twice, however often buoyd is killed.
func TestEventsResume(t *testing.T) {
	d, n := newTeller(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var mu sync.Mutex // guards got
	var got []buoy.NodeEvent
	wg.Go(func() {
		q := buoy.NodeEventQuery{Follow: true, After: n.after}
		for ctx.Err() == nil {
			for e, err := range d.client.NodeEvents(ctx, q) {
				if err != nil {
					break
				}
				q.After = e.ID
				mu.Lock()
				got = append(got, e)
				mu.Unlock()
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	const kills, each = 6, 5
	for i := range kills {
		var churn sync.WaitGroup
		for j := range each {
			churn.Go(func() { // some of it will fail
				r := sh(t, fmt.Sprintf("c%d-%d", i, j), "exit 3")
				_ = d.client.Create(t.Context(), r)
			})
		}
		time.Sleep(time.Duration(10+i*15) * time.Millisecond)
		d.kill()
		churn.Wait()
		d.start()
	}
	for _, c := range d.list() {
		d.await(c.Name+" is looked after", func() bool {
			now, err := d.client.Container(context.WithoutCancel(t.Context()), c.Name)
			return err == nil && now.State == "halted" && now.Reason != ""
		})
	}
	d.create(sh(t, "last", "exec sleep 1000"))
	d.await("the follower is there", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) > 0 && slices.ContainsFunc(got, func(e buoy.NodeEvent) bool { return brief(e) == "container.started last" })
	})
	stop()
	wg.Wait()
	want := d.events(buoy.NodeEventQuery{After: n.after})
	want = want[:slices.IndexFunc(want, func(e buoy.NodeEvent) bool { return e.ID == got[len(got)-1].ID })+1]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the log and who followed it differ: -log +follower\n%s", diff)
	}
	for i, e := range got[1:] {
		if e.Type == "gap" || numberOf(t, e) != numberOf(t, got[i])+1 {
			t.Errorf("%s follows %s: %s", e.ID, got[i].ID, brief(e))
		}
	}
	// Every container that there is has been told of from its begin to its end.
	for _, c := range d.list() {
		var seen []string
		for _, e := range got {
			if e.Data.Container == c.Name {
				seen = append(seen, e.Type)
			}
		}
		if c.Name != "last" && !slices.Contains(seen, "container.exited") && !slices.Contains(seen, "container.failed") && !slices.Contains(seen, "container.stopped") {
			t.Errorf("the end of %s is not told: %v", c.Name, seen)
		}
	}
}

func numberOf(t *testing.T, e buoy.NodeEvent) int {
	t.Helper()
	_, number, _ := strings.Cut(e.ID, "-")
	i, err := strconv.Atoi(number)
	if err != nil {
		t.Fatalf("id %s: %v", e.ID, err)
	}
	return i
}

// metric is a value of /metrics.
func (d *daemon) metric(name string) float64 {
	d.t.Helper()
	_, _, body := d.raw("GET", "/metrics", "")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return v
		}
	}
	return -1
}

// held are the files and the memory of buoyd.
func (d *daemon) held() (files int, bytes int64) {
	d.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	must(d.t.(*testing.T), err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	must(d.t.(*testing.T), err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	must(d.t.(*testing.T), err)
	return len(fds), kb << 10
}

// TestEventsFollowers: a thousand follow, of whom one reads nothing. All others
// get all; that one costs nothing but its connection, and is cut off.
func TestEventsFollowers(t *testing.T) {
	t.Parallel()
	const many, rounds = 1000, 20
	d, _ := newTeller(t)
	_, _ = d.held()
	files, _ := d.held()
	socket := filepath.Join(d.run(), "buoy.sock")
	dial := func() net.Conn {
		c, err := net.Dial("unix", socket)
		must(t, err)
		_, err = io.WriteString(c, "GET /events?follow&type=image HTTP/1.1\r\nHost: buoy\r\n\r\n")
		must(t, err)
		return c
	}
	var mutes, all []net.Conn
	for range many {
		all = append(all, dial())
	}
	d.await("all follow", func() bool { return d.metric("buoy_event_followers") == many })
	_, before := d.held()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			defer c.Close()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil) //nolint:bodyclose // it ends with c, and closing it would read on
			if err != nil {
				t.Error(err)
				return
			}
			lines := json.NewDecoder(resp.Body)
			last := ""
			for range 2 * rounds {
				var e buoy.NodeEvent
				if err := lines.Decode(&e); err != nil || e.ID <= last && len(e.ID) == len(last) {
					t.Errorf("%s after %s: %v", e.ID, last, err)
					return
				}
				last = e.ID
			}
		})
	}
	mutes = append(mutes, dial())
	ref := "docker.io/library/none:1"
	img, err := d.client.ImportImage(t.Context(), rootfsTar(t), ref, "")
	must(t, err)
	ref = img.Ref
	begun := time.Now()
	for i := range rounds { // the import was the first event
		must(t, d.client.PinImage(t.Context(), ref))
		if i < rounds-1 {
			must(t, d.client.UnpinImage(t.Context(), ref))
		}
	}
	wg.Wait()
	t.Logf("%d events to %d followers took %v", 2*rounds, many, time.Since(begun))
	_, after := d.held()
	t.Logf("buoyd had %d MiB with its followers, and %d when they had read", before>>20, after>>20)
	if after-before > 64<<20 {
		t.Errorf("it has grown by %d bytes", after-before)
	}

	// The one that reads nothing: more than a socket takes.
	for range 700 {
		must(t, d.client.UnpinImage(t.Context(), ref))
		must(t, d.client.PinImage(t.Context(), ref))
	}
	d.await("who does not read is cut off", func() bool {
		return d.metric("buoy_event_followers_cut_total") == 1 || time.Since(begun) > 2*time.Minute
	})
	for _, c := range mutes {
		_ = c.Close()
	}
	d.await("nobody follows", func() bool { return d.metric("buoy_event_followers") == 0 })
	d.await("their connections are closed", func() bool {
		now, _ := d.held()
		return now <= files+4 // of the test's own client
	})
	if got := d.events(buoy.NodeEventQuery{Types: []string{"image"}}); len(got) != 2*rounds+1400 {
		t.Errorf("the log has %d events", len(got))
	}
}

// rootfsTar is an image of one file.
func rootfsTar(t *testing.T) io.Reader {
	t.Helper()
	l := layerOf(t, map[string]string{"etc/motd": "hello\n"})
	r, err := l.Uncompressed()
	must(t, err)
	return r
}

// hookServer is a receiver of events that may fail.
type hookServer struct {
	*httptest.Server
	mu   sync.Mutex // guards all below
	fail bool
	got  []buoy.NodeEvent
	bad  []error
}

func newHookServer(t *testing.T, secret func() string) *hookServer {
	h := &hookServer{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.fail {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		var e buoy.NodeEvent
		err = errors.Join(json.Unmarshal(body, &e), verify(secret(), r.Header, body))
		if err != nil {
			h.bad = append(h.bad, err)
		}
		h.got = append(h.got, e)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hookServer) fails(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = yes
}

func (h *hookServer) told() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.got {
		all = append(all, brief(e))
	}
	return all
}

// verify checks the signature of a delivery.
func verify(secret string, h http.Header, body []byte) error {
	key := []byte(secret)
	if text, ok := strings.CutPrefix(secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(text); err != nil {
			return err
		}
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), body)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); h.Get("Webhook-Signature") != want {
		return fmt.Errorf("signed %s, want %s", h.Get("Webhook-Signature"), want)
	}
	return nil
}

// TestWebhooks: a receiver that fails and then works, and a buoyd that is killed
// in between, lose nothing and keep the order.
func TestWebhooks(t *testing.T) {
	secretFile := filepath.Join(t.TempDir(), "secret")
	const given = "a secret that is long enough for it"
	must(t, os.WriteFile(secretFile, []byte(given+"\n"), 0o600))
	fixed := newHookServer(t, func() string { return given })
	d, _ := newTeller(t, "--webhook-allow", "127.0.0.0/8", "--webhook", "name=fixed,url="+fixed.URL+",secret=@"+secretFile+",type=container.started,type=container.exited")
	secret := ""
	h := newHookServer(t, func() string { return secret })
	made, err := d.client.CreateWebhook(t.Context(), buoy.Webhook{Name: "ops", URL: h.URL, Types: []string{"container.created", "container.exited", "container.deleted"}})
	must(t, err)
	secret = made.Secret
	if _, err := d.client.CreateWebhook(t.Context(), buoy.Webhook{Name: "ops", URL: h.URL}); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("twice: %v", err)
	}
	status, header, body := d.raw("POST", "/webhooks", `{"name":"other","url":"`+fixed.URL+`","eventtypes":["volume"]}`)
	if status != 201 || header.Get("Location") != "/webhooks/other" {
		t.Errorf("%d %v %s", status, header, body)
	}
	if status, _, body := d.raw("GET", header.Get("Location"), ""); status != 200 || strings.Contains(body, "whsec") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := d.raw("PUT", "/webhooks/none", `{"url":"`+fixed.URL+`"}`); status != 404 {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := d.raw("DELETE", "/webhooks/fixed", ""); status != 409 {
		t.Errorf("%d %s", status, body)
	}

	life := func(name string) {
		t.Helper()
		d.create(sh(t, name, "exit 3"))
		d.awaitState(name, "halted")
		must(t, d.client.Delete(t.Context(), name))
	}
	var want, wantFixed []string
	expect := func(name string) {
		want = append(want, "container.created "+name, "container.exited "+name+" Exited 3", "container.deleted "+name)
		wantFixed = append(wantFixed, "container.started "+name, "container.exited "+name+" Exited 3")
	}
	life("a")
	expect("a")
	d.await("it is told", func() bool { return slices.Equal(h.told(), want) })
	h.fails(true)
	life("b")
	expect("b")
	d.await("it is tried", func() bool {
		w, err := d.client.Webhook(t.Context(), "ops")
		return err == nil && w.Status.State == "retrying" && w.Status.Failed > 1 && strings.Contains(w.Status.LastError, "503 Service Unavailable: not now") && w.Status.Behind > 0
	})
	d.kill()
	d.start()
	life("c")
	expect("c")
	h.fails(false)
	unique := func(all []string) []string { // what was delivered just before the kill may come twice
		var out []string
		for _, one := range all {
			if !slices.Contains(out, one) {
				out = append(out, one)
			}
		}
		return out
	}
	d.await("it is told what it has missed", func() bool { return len(unique(h.told())) == len(want) })
	if diff := cmp.Diff(want, unique(h.told())); diff != "" {
		t.Errorf("-want +told\n%s", diff)
	}
	d.await("the other is told", func() bool { return len(unique(fixed.told())) == len(wantFixed) })
	if diff := cmp.Diff(wantFixed, unique(fixed.told())); diff != "" {
		t.Errorf("-want +told\n%s", diff)
	}
	for _, s := range []*hookServer{h, fixed} {
		s.mu.Lock()
		for _, err := range s.bad {
			t.Error(err)
		}
		s.mu.Unlock()
	}
	// In order it is told nothing twice.
	n := len(h.told())
	d.stop()
	d.start()
	life("e")
	d.await("it is told", func() bool { return len(h.told()) == n+3 })
	d.await("it is idle, and has counted all", func() bool { // its counts are saved with its place
		w, err := d.client.Webhook(t.Context(), "ops")
		return err == nil && w.Status.State == "idle" && w.Status.Dead+w.Status.Missed == 0 && w.Status.Delivered >= 12 && w.Secret == ""
	})
	if d.metric(`buoy_webhook_failures_total{webhook="ops"}`) < 1 || d.metric(`buoy_webhook_dead_total{webhook="ops"}`) != 0 {
		t.Error("metrics do not agree")
	}
}

// TestEventsOfAFleet: a controller's own events, and its orders, are there, too.
func TestEventsOfAFleet(t *testing.T) {
	f := newFleet(t, 1)
	f.apply(manifest(t, "web", nil))
	f.up("web", 1)
	d := f.daemon
	var created buoy.NodeEvent
	types := map[string]bool{}
	for _, e := range d.events(buoy.NodeEventQuery{}) {
		types[e.Type] = true
		if e.Type == "container.created" {
			created = e
		}
	}
	for _, want := range []string{"controller.found", "app.config", "app.lifecycle", "host.changed", "container.started", "node.started"} {
		if !types[want] {
			t.Errorf("there is no %s among %v", want, types)
		}
	}
	if a := created.Data.Actor; a.Kind != "controller" || a.Name == "" {
		t.Errorf("who created it: %+v", a)
	}
	for e, err := range d.client.On("n1").NodeEvents(t.Context(), buoy.NodeEventQuery{}) {
		if err != nil || strings.HasPrefix(e.Type, "app.") || strings.HasPrefix(e.Type, "host.") {
			t.Errorf("of the node alone: %v, %v", e, err)
		}
	}
	if status, header, body := d.raw("GET", "/events?app=web&limit=5", ""); status != 200 || header.Get("Content-Type") != "application/json" || !strings.HasPrefix(body, `{"events":[{"id":`) {
		t.Errorf("as Orchestry: %d %s", status, body)
	}
}
