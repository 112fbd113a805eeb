package packages

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
	"github.com/buoy-edge/buoy/test/vm"
)

// system is a machine with systemd, the packages and an image for containers.
type system struct {
	*testing.T
	*vm.Machine
	*buoy.Client
}

const (
	image   = "/srv/busybox.tar"
	webPort = 8081
)

func start(t *testing.T) *system {
	t.Helper()
	dir := dist(t)
	m := vm.Start(t, vm.Config{Name: "debian", Root: vm.DebianDisk(t), CPUs: 2, Memory: 1024, Forward: []int{webPort}})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return m.Dial(ctx, "unix", "/run/buoy/buoy.sock")
	}
	client, err := buoy.New("http://localhost", buoy.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := &system{t, m, client}
	s.put(image, vm.Rootfs(t, append(vm.Busybox(t, "/"), vm.File{Path: "/www/hello", Perm: 0o644, Data: []byte("hello\n")})...))
	for _, name := range []string{deb(older), deb(newer), rpm(older), rpm(newer), bundle(air), "key.pem"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		s.put("/srv/"+name, data)
	}
	return s
}

func (s *system) put(name string, data []byte) {
	s.T.Helper()
	if err := s.Put(s.Context(), name, 0o644, data); err != nil {
		s.T.Fatal(err)
	}
}

// sh runs a script, and fails the test if that fails.
func (s *system) sh(script string) string {
	s.T.Helper()
	return s.Must("sh", "-ec", script)
}

// want compares what a script says.
func (s *system) want(script, want string) {
	s.T.Helper()
	out, _ := s.Machine.Run(s.Context(), "sh", "-c", script)
	if got := strings.TrimSpace(out); got != want {
		s.T.Errorf("%s\nsays %q, want %q", script, got, want)
	}
}

// web starts a container that has a port and a volume, and says in the volume
// how it is ended.
func (s *system) web() {
	s.T.Helper()
	err := s.Create(s.Context(), buoy.CreateRequest{
		Name: "web", Flist: image, NICs: []buoy.NIC{{Type: "default"}}, Ports: []string{fmt.Sprintf("%d:80", webPort)},
		Mounts:  []buoy.Mount{{Type: "volume", Source: "said", Target: "/said"}},
		Devices: []buoy.Device{{Path: "/dev/vcs", Target: "/dev/card0"}},
		Command: []string{"/bin/sh", "-c", "/bin/httpd -p 80 -h /www; trap 'echo bye >>/said/log; exit' TERM; echo hello >>/said/log; while true; do sleep 0.1; done"},
	})
	if err != nil {
		s.T.Fatal(err)
	}
	s.serves()
}

// serves waits until the container answers, and gives its pid.
func (s *system) serves() int {
	s.T.Helper()
	s.Await("the container answers", s.answers)
	var c buoy.Container
	s.Await("buoyd, which may have just been started, knows its process", func() (known bool) {
		var err error
		c, err = s.Container(s.Context(), "web")
		return err == nil && c.PID != 0
	})
	return c.PID
}

// answers says whether the container serves its page.
func (s *system) answers() bool {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + s.Machine.Addr(webPort) + "/hello")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return err == nil && string(text) == "hello\n"
}

// hasDevice says whether the container may use its device, and no other.
func (s *system) hasDevice(after string) {
	s.T.Helper()
	const script = "true </dev/card0 && echo its own; rm -f /other; mknod /other c 7 1; true </other && echo another"
	id, err := s.Client.Exec(s.Context(), "web", buoy.Command{Name: "/bin/sh", Args: []string{"-c", script}})
	if err != nil {
		s.T.Fatal(err)
	}
	job, err := s.Client.WaitJob(s.Context(), "web", id)
	if err != nil || job.Stdout != "its own\n" {
		s.T.Errorf("after %s the container uses %q, %v; %s", after, job.Stdout, err, job.Stderr)
	}
}

// same says that the container has run on.
func (s *system) same(pid int, after string) {
	s.T.Helper()
	if now := s.serves(); now != pid {
		s.T.Errorf("after %s the container has pid %d, it had %d", after, now, pid)
	}
}

func (s *system) runs() string {
	s.T.Helper()
	v, err := s.Version(s.Context())
	if err != nil {
		s.T.Fatalf("%v\n%s", err, s.sh("systemctl status buoyd || true"))
	}
	return strings.TrimPrefix(v.Version, "v")
}

// running is what of buoy is on the machine besides files.
func (s *system) running() string {
	s.T.Helper()
	return s.sh(`
		for link in /sys/class/net/*; do echo "link $link"; done
		nft list ruleset
		find /sys/fs/cgroup -name '*buoy*'
		grep -v credentials /proc/mounts | sort
		cat /proc/sys/net/ipv4/ip_forward
		ls -d /run/buoy 2>/dev/null || true
		busybox ps -o args | grep -o '^[^ ]*buoy[^ ]*' || true`)
}

// files are all files of the machine but what dpkg and rpm keep for themselves.
func (s *system) files() string {
	s.T.Helper()
	return s.sh(`find / -xdev \( -path /var/lib/dpkg -o -path /var/lib/rpm -o -path /root/.rpmdb -o -path /var/log -o -path /tmp -o -path /var/tmp \) -prune -o -print | sort`)
}

// settled waits until what closed network namespaces held is gone.
func (s *system) settled() {
	s.T.Helper()
	s.Await("links of containers are gone", func() bool { return !strings.Contains(s.sh("ls /sys/class/net"), "bv") })
}

func (s *system) gone(running, files string) {
	s.T.Helper()
	s.settled()
	if diff := cmp.Diff(running, s.running()); diff != "" {
		s.T.Errorf("left on the machine (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(files, s.files()); diff != "" {
		s.T.Errorf("files left (-before +after):\n%s", diff)
	}
}

// TestDebian is the life of the package: installed, upgraded, crashed, wrongly
// configured, rebooted, removed, installed again, purged.
func TestDebian(t *testing.T) {
	t.Parallel()
	s := start(t)
	running, files := s.running(), s.files()

	s.sh("dpkg -i /srv/" + deb(older))
	s.want("systemctl is-active buoyd buoy-halt", "active\nactive")
	s.want("systemctl is-enabled buoyd", "enabled")
	if got := s.runs(); got != older {
		t.Errorf("it says to be %s", got)
	}
	s.web()
	pid := s.serves()
	shim := s.sh("busybox pidof buoy-shim")
	s.want("cat /sys/fs/cgroup/system.slice/buoyd.service/cgroup.procs", s.sh("busybox pidof buoyd"))

	s.sh("echo '# mine' >>/etc/buoy/buoyd.yaml; dpkg -i /srv/" + deb(newer))
	if got := s.runs(); got != newer {
		t.Errorf("after the upgrade it says to be %s", got)
	}
	s.same(pid, "the upgrade")
	s.want("tail -n 1 /etc/buoy/buoyd.yaml", "# mine")
	if s.sh("busybox pidof buoy-shim") == shim {
		t.Error("buoy-shim is still the old one")
	}

	// What takes devices from containers whose cgroups are systemd's.
	s.hasDevice("its start")
	s.sh("systemctl daemon-reload; systemctl daemon-reexec")
	s.hasDevice("daemon-reload")
	s.same(pid, "daemon-reload")

	s.sh("/var/lib/dpkg/info/buoy.postinst configure " + newer + "-1")
	s.same(pid, "configuring again")
	daemon := s.sh("busybox pidof buoyd")
	s.sh("kill -KILL " + daemon)
	s.Await("systemd has started it again", func() bool {
		h, err := s.Health(t.Context())
		return err == nil && h.Ready
	})
	s.same(pid, "kill -9 of buoyd")

	s.air(t, pid)

	// What is wrong with the configuration is for a person to mend, once.
	s.sh("echo 'cidr: none' >/etc/buoy/conf.d/mine.yaml; systemctl restart buoyd && exit 1; true")
	s.want("systemctl is-failed buoyd; systemctl show -P NRestarts buoyd", "failed\n0")
	s.want(`journalctl -q -u buoyd -o cat | grep -c '^buoyd: /etc/buoy/conf.d/mine.yaml:1: cidr "none": it is not a prefix'`, "1")
	if !s.answers() {
		t.Error("without its daemon the container does not answer")
	}
	s.sh("echo 'label: [a=b]' >/etc/buoy/conf.d/mine.yaml; systemctl start buoyd")
	s.same(pid, "a wrong configuration")

	s.shutdown(t)
	s.PowerOn()
	s.Await("buoyd is ready", func() bool {
		h, err := s.Health(t.Context())
		return err == nil && h.Ready
	})
	s.serves()
	s.want("cat /var/lib/buoy/volumes/said/log", "hello\nbye\nhello")
	if got := s.runs(); got != air {
		t.Errorf("after the reboot it says to be %s", got)
	}

	s.remove(t, running)
	s.sh("dpkg -i /srv/" + deb(newer))
	s.serves()
	s.want("cat /var/lib/buoy/volumes/said/log", "hello\nbye\nhello\nbye\nhello")
	s.sh("dpkg -P buoy")
	s.gone(running, files)

	t.Run("without systemd", func(t *testing.T) { s.chroot(t) })
	t.Run("rpm", func(t *testing.T) { s.rpm(t) })
	s.settled()
	if diff := cmp.Diff(running, s.running()); diff != "" {
		t.Errorf("the other package leaves on the machine (-before +after):\n%s", diff)
	}
	s.want("find / -xdev -path /srv -prune -o -name '*buoy*' -print", "") // above, rpm leaves directories that are no package's here
}

// air upgrades over the air: systemd sees the same service, by the same pid.
func (s *system) air(t *testing.T, pid int) {
	t.Helper()
	state := "systemctl is-active buoyd; systemctl show -P MainPID -P NRestarts buoyd"
	before := s.sh(state)
	s.sh("mkdir /etc/buoy/upgrade-keys; cp /srv/key.pem /etc/buoy/upgrade-keys/; buoy node upgrade --window 2m /srv/" + bundle(air))
	if got := s.runs(); got != air {
		t.Errorf("after the upgrade over the air it says to be %s", got)
	}
	s.same(pid, "the upgrade over the air")
	if after := s.sh(state); after != before {
		t.Errorf("systemd says %q, and before it said %q", after, before)
	}
	s.want("/usr/bin/buoyd version", "buoyd v"+newer)
}

// shutdown: containers are asked to end, and nothing has to be waited for.
func (s *system) shutdown(t *testing.T) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Machine.Shutdown(ctx); err != nil {
		t.Fatalf("%v after %v\n%s", err, time.Since(began), s.Console())
	}
	t.Logf("shut down in %v", time.Since(began))
}

// remove removes the package: what runs is ended and gone, what lasts stays.
func (s *system) remove(t *testing.T, running string) {
	s.sh("dpkg -r buoy")
	s.settled()
	if diff := cmp.Diff(running, s.running()); diff != "" {
		t.Errorf("a removed package leaves on the machine (-before +after):\n%s", diff)
	}
	s.want("cat /var/lib/buoy/volumes/said/log", "hello\nbye\nhello\nbye")
	s.want("cd /etc/buoy; echo *; cat conf.d/mine.yaml; tail -n 1 buoyd.yaml", "buoyd.yaml conf.d upgrade-keys\nlabel: [a=b]\n# mine")
	s.want("ls /var/lib/buoy/node.db", "/var/lib/buoy/node.db")
	s.want("ls -d /usr/bin/buoy* /usr/libexec/buoy /usr/lib/systemd/system/buoy* 2>/dev/null", "")
	s.want("systemctl is-active buoyd buoy-halt", "inactive\ninactive")
}

// chroot is the package's life where nothing of it can run.
func (s *system) chroot(t *testing.T) {
	script := fmt.Sprintf(`
		mkdir /run/u /run/root
		mount -t tmpfs none /run/u
		mkdir /run/u/upper /run/u/work
		mount -t overlay -o lowerdir=/,upperdir=/run/u/upper,workdir=/run/u/work none /run/root
		mount -t proc none /run/root/proc
		inside() { chroot /run/root "$@" >/dev/null; }
		inside dpkg -i /srv/%s
		inside /var/lib/dpkg/info/buoy.postinst configure ''
		ls -l /run/root/etc/systemd/system/multi-user.target.wants | grep -o 'buoyd.*'
		inside dpkg -r buoy
		inside dpkg -P buoy
		ls -d /run/root/*/buoy /run/root/var/lib/buoy /run/root/etc/systemd/system/multi-user.target.wants/buoyd.service 2>/dev/null || true`, deb(newer))
	out, err := s.Machine.Run(t.Context(), "unshare", "-m", "sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	if want := "buoyd.service -> /lib/systemd/system/buoyd.service\n"; out != want {
		t.Errorf("it says\n%swant\n%s", out, want)
	}
	s.sh("rmdir /run/u /run/root")
}

// rpm is the life of the other package, on the same machine.
func (s *system) rpm(t *testing.T) {
	const rpms = "rpm --force-debian --nodeps "
	s.sh(rpms + "-i /srv/" + rpm(older) + "; systemctl start buoyd")
	s.web()
	pid := s.serves()
	s.sh(rpms + "-U /srv/" + rpm(newer))
	if got := s.runs(); got != newer {
		t.Errorf("after the upgrade it says to be %s", got)
	}
	s.same(pid, "the upgrade")
	s.sh("rpm --force-debian -e buoy")
	s.want("cat /var/lib/buoy/volumes/said/log", "hello\nbye")
	s.sh("rm -r /var/lib/buoy")
}
