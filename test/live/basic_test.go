package live

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// sh is a request for a container that runs a shell script.
func sh(t testing.TB, name, script string) buoy.CreateRequest {
	return buoy.CreateRequest{Name: name, Flist: image(t), Command: []string{"/bin/sh", "-c", script}}
}

func (d *daemon) create(r buoy.CreateRequest) {
	d.t.Helper()
	if err := d.client.Create(d.t.Context(), r); err != nil {
		d.t.Fatalf("create %s: %v", r.Name, err)
	}
}

func (d *daemon) logs(name string, o buoy.LogOptions) string {
	d.t.Helper()
	r, err := d.client.Logs(d.t.Context(), name, o)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

// exec runs a command in a container to its end.
func (d *daemon) exec(name string, args ...string) buoy.Job {
	d.t.Helper()
	id, err := d.client.Exec(d.t.Context(), name, buoy.Command{Name: args[0], Args: args[1:]})
	if err != nil {
		d.t.Fatalf("exec %v in %s: %v", args, name, err)
	}
	j, err := d.client.WaitJob(d.t.Context(), name, id)
	if err != nil {
		d.t.Fatal(err)
	}
	return j
}

func TestContainerRunsToItsEnd(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "once", "echo out; echo err >&2; exit 7"))
	c := d.awaitState("once", "halted")
	if c.Reason != "Exited" || c.ExitCode == nil || *c.ExitCode != 7 || c.Status != "halted" {
		t.Errorf("reason %q, exit code %v, status %q; want Exited, 7, halted", c.Reason, c.ExitCode, c.Status)
	}
	if got := d.logs("once", buoy.LogOptions{Stream: "stdout"}); got != "out\n" {
		t.Errorf("stdout = %q", got)
	}
	if got := d.logs("once", buoy.LogOptions{Stream: "stderr"}); got != "err\n" {
		t.Errorf("stderr = %q", got)
	}
}

func TestReaperAloneAndInitProcesses(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "zero", Flist: image(t), InitProcesses: []buoy.InitProcess{
		{Name: "/bin/sh", Args: []string{"-c", `echo "$A" > /tmp/a; exec sleep 1000`}, Environment: []string{"A=x=y=z"}},
	}})
	jobs, err := d.client.Jobs(t.Context(), "zero")
	if err != nil || len(jobs) != 1 {
		t.Fatalf("jobs = %v, %v; want the init process", jobs, err)
	}
	d.await("the init process has written", func() bool {
		return d.exec("zero", "/bin/cat", "/tmp/a").Stdout == "x=y=z\n"
	})
	processes, err := d.client.Processes(t.Context(), "zero")
	if err != nil || len(processes) < 2 || processes[0].PID != 1 {
		t.Errorf("processes = %+v, %v; want the reaper as 1 and sleep", processes, err)
	}
	if err := d.client.KillJobs(t.Context(), "zero"); err != nil {
		t.Fatal(err)
	}
	j, err := d.client.WaitJob(t.Context(), "zero", jobs[0].ID)
	if err != nil || j.State != "KILLED" {
		t.Errorf("job after DELETE jobs: %+v, %v; want KILLED", j, err)
	}
}

func TestDefaultNICAndPorts(t *testing.T) {
	d := newDaemon(t)
	port := freePort(t)
	r := sh(t, "web", "httpd -f -p 80 -h /www")
	r.NICs = []buoy.NIC{{Type: "default"}}
	r.Ports = []string{fmt.Sprintf("%d:80", port)}
	d.create(r)
	get := func(host string) (string, error) {
		c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get("http://" + net.JoinHostPort(host, fmt.Sprint(port)) + "/hello")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return string(text), err
	}
	d.await("the published port answers", func() bool {
		text, err := get("127.0.0.1")
		return err == nil && text == "hello from inside\n"
	})
	c, err := d.client.Container(t.Context(), "web")
	if err != nil || c.Address == "" {
		t.Fatalf("address = %q, %v", c.Address, err)
	}
	// A second container reaches the first by its address.
	peer := sh(t, "peer", "sleep 1000")
	peer.NICs = r.NICs
	d.create(peer)
	addr, _, _ := strings.Cut(c.Address, "/")
	if j := d.exec("peer", "/bin/wget", "-q", "-O", "-", "http://"+addr+"/hello"); j.Stdout != "hello from inside\n" {
		t.Errorf("peer got %q, %q", j.Stdout, j.Stderr)
	}
	// The port is taken now, and free again after the container is gone.
	r.Name = "second"
	if err := d.client.Create(t.Context(), r); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("second container at the port: %v, want a conflict", err)
	}
	if err := d.client.Delete(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if text, err := get("127.0.0.1"); err == nil {
		t.Errorf("the port of a deleted container answers %q", text)
	}
	d.create(r)
}

func TestStopDropsTheWritableLayerUnlessKept(t *testing.T) {
	d := newDaemon(t)
	for name, keep := range map[string]bool{"dropped": false, "kept": true} {
		r := sh(t, name, "sleep 1000")
		r.Keep, r.StopGrace, r.Init, r.Filesystems = keep, 1, true, []string{"pool:" + name}
		d.create(r)
		d.exec(name, "/bin/sh", "-c", "echo 1 > /layer; echo 1 > /fs/pool/"+name+"/volume")
		if err := d.client.Stop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := d.client.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		want := "missing\n1\n"
		if keep {
			want = "1\n1\n"
		}
		if j := d.exec(name, "/bin/sh", "-c", "cat /layer 2>/dev/null || echo missing; cat /fs/pool/"+name+"/volume"); j.Stdout != want {
			t.Errorf("%s after stop and start has %q, want %q", name, j.Stdout, want)
		}
	}
}

func TestRestartPolicyAndPersonsStop(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "again", "exit 3")
	r.Restart = "on-failure:2"
	d.create(r)
	d.await("it gives up", func() bool {
		c, err := d.client.Container(t.Context(), "again")
		return err == nil && c.State == "halted" && c.Restarts == 2
	})
	r = sh(t, "always", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	r.Restart = "unless-stopped"
	d.create(r)
	if err := d.client.Stop(t.Context(), "always"); err != nil {
		t.Fatal(err)
	}
	d.stop()
	d.start()
	if c := d.awaitState("always", "halted"); c.Reason != "Stopped" {
		t.Errorf("after a restart of buoyd the stopped container's reason is %q", c.Reason)
	}
}

func TestOutOfMemoryIsTheReason(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "hungry", "tail /dev/zero")
	r.Limits.Memory = 16 << 20
	d.create(r)
	if c := d.awaitState("hungry", "halted"); c.Reason != "OOMKilled" || !c.OOM {
		t.Errorf("reason %q, oom %v, message %q", c.Reason, c.OOM, c.Message)
	}
}

func TestStandbyRunsOnStart(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "ready", "echo went; sleep 1000")
	r.Standby = true
	d.create(r)
	d.awaitState("ready", "standby")
	if got := d.logs("ready", buoy.LogOptions{}); got != "" {
		t.Errorf("a standby has said %q", got)
	}
	if err := d.client.Start(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	d.awaitState("ready", "running")
	d.await("it runs", func() bool { return d.logs("ready", buoy.LogOptions{}) == "went\n" })
}

func TestFiles(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "box", "ln -s /../../../../../../etc /tmp/out; ln -s /tmp /abs; echo linked; sleep 1000"))
	d.await("the links are made", func() bool { return d.logs("box", buoy.LogOptions{}) == "linked\n" })
	big := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	if err := d.client.Upload(t.Context(), "box", "/tmp/big", strings.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	r, err := d.client.Download(t.Context(), "box", "/abs/big")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || string(got) != big {
		t.Errorf("downloaded %d bytes, %v; want the %d uploaded", len(got), err, len(big))
	}
	// A link that leads out leads to the container's own /etc.
	if err := d.client.Upload(t.Context(), "box", "/tmp/out/planted", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if j := d.exec("box", "/bin/cat", "/etc/planted"); j.Stdout != "x" {
		t.Errorf("the container's /etc/planted is %q, %q", j.Stdout, j.Stderr)
	}
	if err := d.client.RemoveFile(t.Context(), "box", "/tmp/big"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.Download(t.Context(), "box", "/tmp/big"); !errors.Is(err, buoy.ErrNotFound) {
		t.Errorf("download of a removed file: %v", err)
	}
	for _, bad := range []string{"/dev/zero", "/tmp", "relative"} {
		if _, err := d.client.Download(t.Context(), "box", bad); !errors.Is(err, buoy.ErrInvalid) {
			t.Errorf("download of %s: %v, want it refused", bad, err)
		}
	}
}

// TestAddressInEnvironment: a container is told its own address.
func TestAddressInEnvironment(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "told", `echo "$ADDRESS"; exec sleep 1000`)
	r.NICs, r.Env = []buoy.NIC{{Type: "default"}}, []string{"ADDRESS=at $(buoy.address)"}
	d.create(r)
	c := d.awaitState("told", "running")
	address, _, _ := strings.Cut(c.Address, "/")
	d.await("it says so", func() bool { return d.logs("told", buoy.LogOptions{}) == "at "+address+"\n" })
	if j := d.exec("told", "/bin/sh", "-c", `echo "$ADDRESS"`); j.Stdout != "at "+address+"\n" {
		t.Errorf("a job is told %q", j.Stdout)
	}
}

// TestVolumes: a volume outlasts its containers, and goes when it is told to.
func TestVolumes(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "keeper", "echo kept >> /data/file; exec sleep 1000")
	r.Mounts = []buoy.Mount{{Type: "volume", Source: "precious", Target: "/data"}}
	d.create(r)
	all, err := d.client.Volumes(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "precious" || len(all[0].Containers) != 1 {
		t.Errorf("volumes are %v, %v", all, err)
	}
	if err := d.client.DeleteVolume(t.Context(), "precious"); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("a volume that is used: %v", err)
	}
	if err := d.client.Delete(t.Context(), "keeper"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.client.DeleteVolume(t.Context(), "precious"); err != nil {
			t.Error(err)
		}
	}
	if err := d.client.DeleteVolume(t.Context(), "../images"); err != nil {
		t.Error(err) // there is no such volume, so it is gone
	}
	if _, err := os.Stat(filepath.Join(d.data(), "images")); err != nil {
		t.Errorf("that was no volume: %v", err)
	}
	if all, err := d.client.Volumes(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("volumes are %v, %v", all, err)
	}
}

// TestDoctor: this machine runs containers, so nothing is found that would keep
// it from that.
func TestDoctor(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "box", "sleep 1000"))
	all, err := d.client.Doctor(t.Context())
	if err != nil || len(all) < 15 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, f := range all {
		if f.Status == "failure" {
			t.Errorf("%+v", f)
		}
	}
}
