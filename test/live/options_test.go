package live

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestOptions asks for each thing that a container can be given and looks at it
// from inside.
func TestOptions(t *testing.T) {
	d := newDaemon(t)
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "file"), []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		change func(*buoy.CreateRequest)
		script string
		want   string // a line of the output
	}{
		{"env", func(r *buoy.CreateRequest) { r.Env = []string{"A=b=c"} }, `echo "$A"`, "b=c"},
		{"pwd", func(r *buoy.CreateRequest) { r.Pwd = "/tmp" }, "pwd", "/tmp"},
		{"user", func(r *buoy.CreateRequest) { r.User = "app" }, `echo $(id -u):$(id -g):$(id -G)`, "1000:1000:1000 2000"},
		{"hostname", func(r *buoy.CreateRequest) { r.Hostname = "other.example" }, "hostname; cat /etc/hostname", "other.example"},
		{"default hostname", func(*buoy.CreateRequest) {}, "hostname", "box"},
		{"hosts", func(r *buoy.CreateRequest) { r.NICs = []buoy.NIC{{Type: "default"}} }, `grep -c "$(hostname)" /etc/hosts`, "1"},
		{"dns", func(r *buoy.CreateRequest) { r.DNS = []string{"192.0.2.53"} }, "cat /etc/resolv.conf", "nameserver 192.0.2.53"},
		{"bind", func(r *buoy.CreateRequest) {
			r.Mounts = []buoy.Mount{{Type: "bind", Source: shared, Target: "/in", ReadOnly: true}}
		}, "cat /in/file; echo; touch /in/x 2>&1", "from the host"},
		{"bind read-only", func(r *buoy.CreateRequest) {
			r.Mounts = []buoy.Mount{{Type: "bind", Source: shared, Target: "/in", ReadOnly: true}}
		}, "touch /in/x 2>&1", "touch: /in/x: Read-only file system"},
		{"named volume", func(r *buoy.CreateRequest) {
			r.Mounts = []buoy.Mount{{Type: "volume", Source: "vol", Target: "/www"}}
		}, "cat /www/hello", "hello from inside"},
		{"tmpfs", func(r *buoy.CreateRequest) {
			r.Mounts = []buoy.Mount{{Type: "tmpfs", Target: "/scratch", Size: 1 << 20}}
		}, "df -k /scratch | tail -1 | awk '{print $1, $2}'", "tmpfs 1024"},
		{"read-only root", func(r *buoy.CreateRequest) { r.ReadOnly = true }, "touch /x 2>&1", "touch: /x: Read-only file system"},
		{"ulimit", func(r *buoy.CreateRequest) { r.Ulimits = []buoy.Ulimit{{Name: "nofile", Soft: 77, Hard: 88}} }, "ulimit -n; ulimit -Hn", "77"},
		{"sysctl", func(r *buoy.CreateRequest) { r.Sysctls = map[string]string{"net.ipv4.ip_default_ttl": "42"} }, "cat /proc/sys/net/ipv4/ip_default_ttl", "42"},
		{"pids", func(r *buoy.CreateRequest) { r.Limits.PIDs = 5 }, "for i in 1 2 3 4 5 6 7; do sleep 5 & done 2>&1", "/bin/sh: can't fork: Resource temporarily unavailable"},
		{"capabilities", func(*buoy.CreateRequest) {}, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
		{"cap drop", func(r *buoy.CreateRequest) { r.CapDrop = []string{"ALL"} }, "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"},
		{"no new privileges", func(*buoy.CreateRequest) {}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
		{"seccomp", func(*buoy.CreateRequest) {}, "grep Seccomp: /proc/self/status", "Seccomp:\t2"},
		{"unconfined", func(r *buoy.CreateRequest) { r.Unconfined = true }, "grep Seccomp: /proc/self/status", "Seccomp:\t0"},
		{"masked", func(*buoy.CreateRequest) {}, "wc -c < /proc/keys", "0"},
		{"proc read-only", func(*buoy.CreateRequest) {}, "echo 1 2>&1 > /proc/sys/kernel/panic", "/bin/sh: can't create /proc/sys/kernel/panic: Read-only file system"},
		{"own pid namespace", func(*buoy.CreateRequest) {}, "echo $$", "1"},
		{"init", func(r *buoy.CreateRequest) { r.Init = true }, "[ $$ -gt 1 ] && echo child", "child"},
		{"no network", func(*buoy.CreateRequest) {}, "ip -o link | wc -l", "1"},
		{"host network", func(r *buoy.CreateRequest) { r.HostNetworking = true }, "[ $(ip -o link | wc -l) -gt 1 ] && echo many", "many"},
		{"user namespace", func(r *buoy.CreateRequest) { r.UserNS = true }, "cat /proc/self/uid_map | tr -s ' '", " 0 1000000 65536"},
		{"user namespace with a NIC", func(r *buoy.CreateRequest) { r.UserNS = true; r.NICs = []buoy.NIC{{Type: "default"}} }, "ip route | grep -c default", "1"},
		{"device", func(r *buoy.CreateRequest) { r.Devices = []buoy.Device{{Path: "/dev/kmsg", Permissions: "r"}} }, "[ -c /dev/kmsg ] && echo there", "there"},
		{"shm", func(r *buoy.CreateRequest) { r.ShmSize = 2 << 20 }, "df -k /dev/shm | tail -1 | awk '{print $2}'", "2048"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			defer func(outer testing.TB) { d.t = outer }(d.t)
			d.t = t
			r := sh(t, "box", c.script)
			c.change(&r)
			d.create(r)
			d.awaitState("box", "halted")
			if got := d.logs("box", buoy.LogOptions{}); !strings.Contains("\n"+got, "\n"+c.want+"\n") {
				t.Errorf("said %q, want the line %q", got, c.want)
			}
			if err := d.client.Delete(t.Context(), "box"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestEveryFact asks each route that only reads, of the node and of a
// container, and wants something in each answer.
func TestEveryFact(t *testing.T) {
	d := newDaemon(t)
	r := buoy.CreateRequest{Name: "box", Flist: image(t), NICs: []buoy.NIC{{Type: "default"}}, InitProcesses: []buoy.InitProcess{{Name: "/bin/sleep", Args: []string{"1000"}}}}
	r.Limits.Memory = 64 << 20
	d.create(r)
	const node = "/nodes/525400123456"
	for _, path := range []string{
		"/nodes", node, node + "/mem", node + "/cpus", node + "/nics", node + "/mounts", node + "/info", node + "/state", node + "/stats",
		node + "/processes", node + "/processes/1", node + "/jobs",
		node + "/containers", node + "/containers/box", node + "/containers/box/mem", node + "/containers/box/cpus", node + "/containers/box/nics",
		node + "/containers/box/info", node + "/containers/box/state", node + "/containers/box/processes", node + "/containers/box/processes/1",
		node + "/containers/box/jobs", "/health", "/version",
	} {
		status, header, body := d.raw(http.MethodGet, path, "")
		var v any
		if err := json.Unmarshal([]byte(body), &v); status != http.StatusOK || err != nil {
			t.Errorf("GET %s = %d %s", path, status, body)
			continue
		}
		if list, ok := v.([]any); ok && len(list) == 0 {
			t.Errorf("GET %s is empty", path)
		}
		if !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
			t.Errorf("GET %s is %s", path, header.Get("Content-Type"))
		}
	}
	for _, path := range []string{node + "/ping", node + "/containers/box/ping"} {
		if status, _, body := d.raw(http.MethodPost, path, ""); status != http.StatusOK || strings.TrimSpace(body) != "true" {
			t.Errorf("POST %s = %d %q, want true", path, status, body)
		}
	}
	if m, err := d.client.Memory(t.Context(), "box"); err != nil || m.Total != 64<<20 {
		t.Errorf("memory of a container limited to 64 MiB: %+v, %v", m, err)
	}
	for _, path := range []string{"/metrics", "/openapi.yaml"} {
		if status, _, body := d.raw(http.MethodGet, path, ""); status != http.StatusOK || len(body) < 500 {
			t.Errorf("GET %s = %d, %d bytes", path, status, len(body))
		}
	}
}

// TestSignalsReach: a signal to a job reaches its whole process group, and one
// to a process that process.
func TestSignalsReach(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "box", Flist: image(t)})
	id, err := d.client.Exec(t.Context(), "box", buoy.Command{Name: "/bin/sh", Args: []string{"-c", "sleep 1000 & sleep 1000; wait"}})
	if err != nil {
		t.Fatal(err)
	}
	count := func() int {
		list, err := d.client.Processes(t.Context(), "box")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	d.await("the job's processes run", func() bool { return count() == 4 })
	if err := d.client.KillJob(t.Context(), "box", id); err != nil {
		t.Fatal(err)
	}
	d.await("the group is gone", func() bool { return count() == 1 })
	j, err := d.client.WaitJob(t.Context(), "box", id)
	if err != nil || j.State != "KILLED" {
		t.Errorf("job %+v, %v; want KILLED", j, err)
	}
	if id, err = d.client.Exec(t.Context(), "box", buoy.Command{Name: "/bin/sh", Args: []string{"-c", "trap 'echo caught; exit 4' USR1; while :; do sleep 0.02; done"}}); err != nil {
		t.Fatal(err)
	}
	d.await("the signal is caught", func() bool {
		if err := d.client.SignalJob(t.Context(), "box", id, 10); err != nil {
			return true // it has ended already
		}
		j, err := d.client.Job(t.Context(), "box", id)
		return err == nil && j.Ended()
	})
	if j, err = d.client.WaitJob(t.Context(), "box", id); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(j.Stdout, "caught") && j.State != "KILLED" { // before the trap was set the signal kills
		t.Errorf("job %+v", j)
	}
}
