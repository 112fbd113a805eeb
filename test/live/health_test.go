package live

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// awaitHealth waits until the health of a container is as it should be.
func (d *daemon) awaitHealth(name, what string, ok func(buoy.Container) bool) buoy.Container {
	d.t.Helper()
	var c buoy.Container
	d.await(name+" is "+what, func() bool {
		var err error
		c, err = d.client.Container(context.WithoutCancel(d.t.Context()), name)
		return err == nil && c.Health != nil && ok(c)
	})
	return c
}

func is(status string) func(buoy.Container) bool {
	return func(c buoy.Container) bool { return c.State == "running" && c.Health.Status == status }
}

// serve is a web server that is well while there is a file.
const serve = "mkdir -p /tmp/w; echo ok >/tmp/w/health; exec httpd -f -p 80 -h /tmp/w"

func TestHealthHTTP(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "web", serve)
	r.NICs = []buoy.NIC{{Type: "default"}}
	r.Health = &buoy.HealthCheck{Type: "http", Port: 80, Path: "/health", Period: 0.2, FailureThreshold: 2, Restart: true, Drain: 0.5}
	d.create(r)
	first := d.awaitHealth("web", "healthy", is("healthy"))
	if h := first.Health; h.LastCheck.IsZero() || h.ResponseTime <= 0 || h.LastError != "" || h.Failures != 0 {
		t.Errorf("healthy: %+v", h)
	}
	if list := d.list(); len(list) != 1 || list[0].Health == nil || list[0].Health.Status != "healthy" {
		t.Errorf("list = %+v", list)
	}
	d.exec("web", "/bin/rm", "/tmp/w/health")
	c := d.awaitHealth("web", "unhealthy", is("unhealthy"))
	if c.PID != first.PID || c.Health.Failures < 2 || !strings.Contains(c.Health.LastError, "answered 404 Not Found") {
		t.Errorf("unhealthy: %+v %+v", c, c.Health)
	}
	// It is restarted, which brings the file back.
	c = d.awaitHealth("web", "restarted", func(c buoy.Container) bool { return c.Restarts == 1 && is("healthy")(c) })
	if c.PID == first.PID {
		t.Error("it was not restarted")
	}
	if !strings.Contains(d.log.String(), "reason=Unhealthy") {
		t.Error("the log does not tell why it was restarted")
	}
	h, err := d.client.CheckHealth(t.Context(), "web")
	if err != nil || h.Status != "healthy" || h.LastCheck.Before(c.Health.LastCheck) {
		t.Errorf("checked now: %+v, %v", h, err)
	}
	if err := d.client.Stop(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.CheckHealth(t.Context(), "web"); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("checked while stopped: %v", err)
	}
}

// TestHealthReaches: a container is asked at its address, and at loopback when it
// has none, whatever its network is.
func TestHealthReaches(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	nic := []buoy.NIC{{Type: "default"}}
	for name, tt := range map[string]struct {
		change func(*buoy.CreateRequest)
		want   string
	}{
		"none":     {func(r *buoy.CreateRequest) {}, "healthy"},
		"default":  {func(r *buoy.CreateRequest) { r.NICs = nic }, "healthy"},
		"userns":   {func(r *buoy.CreateRequest) { r.NICs, r.UserNS = nic, true }, "healthy"},
		"loopback": {func(r *buoy.CreateRequest) { r.NICs, r.Command[2] = nic, "httpd -f -p 127.0.0.1:80" }, "unhealthy"},
		"deaf":     {func(r *buoy.CreateRequest) { r.NICs, r.Command[2] = nic, "sleep 1000" }, "unhealthy"},
		"host":     {func(r *buoy.CreateRequest) { r.HostNetworking, r.Health.Port = true, port }, "healthy"},
		"bridge": {func(r *buoy.CreateRequest) {
			r.NICs = []buoy.NIC{{Type: "bridge", ID: "bh" + d.instance()[1:6], Config: &buoy.NICConfig{CIDR: "10.77.5.2/24"}}}
		}, "healthy"},
	} {
		r := sh(t, name, "httpd -f -p 80")
		r.Health = &buoy.HealthCheck{Type: "tcp", Port: 80, Period: 0.2, FailureThreshold: 3}
		tt.change(&r)
		if name == "bridge" {
			if err := d.client.CreateBridge(t.Context(), buoy.Bridge{Name: r.NICs[0].ID, NetworkMode: "none"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.client.Create(t.Context(), r); err != nil {
			if name == "userns" && errors.Is(err, buoy.ErrConflict) {
				continue // not on this kernel or file system
			}
			t.Fatal(err)
		}
		d.awaitHealth(name, tt.want, is(tt.want))
	}
}

// checks are traces of commands that checked health.
func (d *daemon) checks(t *testing.T, name string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{d.run() + "/containers/" + name + "/health-*", d.run() + "/shim/" + name + "/jobs/*", d.data() + "/containers/" + name + "/jobs/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func TestHealthExec(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := sh(t, "job", "touch /tmp/ok; exec sleep 100000")
	r.Health = &buoy.HealthCheck{
		Type: "exec", Command: []string{"/bin/sh", "-c", "test -e /tmp/ok && exit; echo it is gone >&2; exit 3"},
		Period: 0.1, FailureThreshold: 2,
	}
	d.create(r)
	d.awaitHealth("job", "healthy", is("healthy"))
	d.exec("job", "/bin/rm", "/tmp/ok")
	if c := d.awaitHealth("job", "unhealthy", is("unhealthy")); c.Health.LastError != "exit code 3: it is gone" {
		t.Errorf("%+v", c.Health)
	}
	if jobs, err := d.client.Jobs(t.Context(), "job"); err != nil || len(jobs) != 1 {
		t.Errorf("jobs = %+v, %v; want that of rm", jobs, err)
	}
	d.killShim()
	d.exec("job", "/bin/touch", "/tmp/ok")
	d.awaitHealth("job", "healthy again", is("healthy"))

	// One that hangs is killed.
	r = sh(t, "slow", "exec sleep 100000")
	r.Health = &buoy.HealthCheck{Type: "exec", Command: []string{"/bin/sleep", "3000"}, Period: 0.1, Timeout: 0.2, FailureThreshold: 1}
	d.create(r)
	if c := d.awaitHealth("slow", "unhealthy", is("unhealthy")); c.Health.LastError != "no answer within 200ms" {
		t.Errorf("%+v", c.Health)
	}
	// And one that is not there is unhealthy.
	r = sh(t, "none", "exec sleep 100000")
	r.Health = &buoy.HealthCheck{Type: "exec", Command: []string{"/bin/none"}, Period: 0.1, FailureThreshold: 1}
	d.create(r)
	if c := d.awaitHealth("none", "unhealthy", is("unhealthy")); !strings.Contains(c.Health.LastError, "/bin/none") {
		t.Errorf("%+v", c.Health)
	}
	d.awaitHealth("slow", "checked often", func(c buoy.Container) bool { return c.Health.Failures > 9 })
	for _, name := range []string{"job", "slow", "none"} {
		most := 4 // a record and a log each of one that runs and one that is being ended
		if name == "job" {
			most += 4 // of the jobs of this test
		}
		d.await("checks of "+name+" leave nothing", func() bool { return len(d.checks(t, name)) <= most })
	}
}

func TestHealthAfterDaemon(t *testing.T) {
	d := newDaemon(t)
	web := sh(t, "web", serve)
	web.NICs = []buoy.NIC{{Type: "default"}}
	web.Health = &buoy.HealthCheck{Type: "http", Port: 80, Path: "/health", Period: 1, FailureThreshold: 1, Restart: true}
	d.create(web)
	slow := sh(t, "slow", "exec sleep 100000")
	slow.Health = &buoy.HealthCheck{Type: "exec", Command: []string{"/bin/sleep", "4000"}, Period: 3600, Timeout: 600}
	d.create(slow)
	sleeps := func() int {
		p, err := d.client.Processes(context.WithoutCancel(t.Context()), "slow")
		if err != nil {
			return -1
		}
		n := 0
		for _, one := range p {
			if strings.Contains(one.Cmdline, "4000") {
				n++
			}
		}
		return n
	}
	pid := d.awaitHealth("web", "healthy", is("healthy")).PID
	d.await("a check runs", func() bool { return sleeps() == 1 && len(d.checks(t, "slow")) == 2 })
	before := d.checks(t, "slow")
	d.killAndStart()
	// The first check comes at once, whatever the period is.
	if c := d.awaitHealth("web", "healthy", is("healthy")); c.PID != pid {
		t.Error("it was restarted")
	}
	d.await("the check of the daemon that died has ended, and another runs", func() bool {
		after := d.checks(t, "slow")
		return sleeps() == 1 && len(after) == 2 && after[0] != before[0]
	})
	// A daemon that comes to an unhealthy container restarts it.
	d.exec("web", "/bin/rm", "/tmp/w/health")
	d.killAndStart()
	d.awaitHealth("web", "restarted", func(c buoy.Container) bool { return c.PID != pid && is("healthy")(c) })
}
