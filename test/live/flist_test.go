package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/testredis"
)

// pack makes an flist of a directory.
func pack(t *testing.T, dir, name, store string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name)
	out, err := exec.Command(filepath.Join(bin(t), "buoy-flist"), "pack", dir, "-o", file, "--store", store).CombinedOutput()
	if err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	return file
}

// bulky is the root of image, with a file of several chunks beside it.
func bulky(t *testing.T) (dir, sum string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("cp", "-a", image(t)+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "head -c 12000000 /dev/urandom > $0/data && sha256sum < $0/data", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return dir, strings.Fields(string(out))[0]
}

// flistPID is the buoy-flist of the instance, 0 if there is none.
func (d *daemon) flistPID() int {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", filepath.Join(d.run(), "flist.sock"))
	}}}
	res, err := client.Post("http://x/hello", "application/json", strings.NewReader("{}"))
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	var hello struct{ PID int }
	if json.NewDecoder(res.Body).Decode(&hello) != nil {
		return 0
	}
	return hello.PID
}

// mounts are the flists that are mounted for containers.
func (d *daemon) mounts() []shimapi.Mount {
	d.t.Helper()
	l, err := shimapi.NewClient(filepath.Join(d.run(), "shim.sock")).Mounts(context.WithoutCancel(d.t.Context()))
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

func TestFlistLazy(t *testing.T) {
	t.Parallel()
	r := testredis.New(t)
	dir, sum := bulky(t)
	for _, name := range []string{"c.flist", "d.fl"} {
		t.Run(name, func(t *testing.T) {
			file := pack(t, dir, name, r.URL())
			d := newDaemon(t)
			req := buoy.CreateRequest{Name: "web", Flist: file, Lazy: "always", Command: []string{"/bin/sh", "-c", endure}}
			d.create(req)
			c := d.awaitState("web", "running")
			if len(d.mounts()) != 1 || c.Fetch == nil {
				t.Fatalf("mounts %+v, fetched %+v; want a lazy mount", d.mounts(), c.Fetch)
			}
			d.confined()
			d.await("what is read is fetched, and no more", func() bool {
				c = d.awaitState("web", "running")
				return c.Fetch.Done > 0 && c.Fetch.Done < c.Fetch.Total/2
			})
			if j := d.exec("web", "/bin/sha256sum", "/data"); !strings.HasPrefix(j.Stdout, sum) {
				t.Errorf("the file reads as %q, %q", j.Stdout, j.Stderr)
			}
			// Directories of both layers are listed, which overlayfs does in its own way.
			if j := d.exec("web", "/bin/sh", "-c", "echo x > /new && cat /new && rm /www/hello && touch /www/other && ls /www && ls / | wc -l"); j.Stdout != "x\nother\n9\n" {
				t.Errorf("the root is written as %q, %q", j.Stdout, j.Stderr)
			}
			req.Name = "two" // shares the mount
			d.create(req)
			if len(d.mounts()) != 1 {
				t.Errorf("mounts: %+v", d.mounts())
			}
			if j := d.exec("two", "/bin/cat", "/www/hello"); j.Stdout != "hello from inside\n" {
				t.Errorf("the second container reads %q, %q", j.Stdout, j.Stderr)
			}
			d.await("what was read is recorded", func() bool {
				orders, err := filepath.Glob(d.data() + "/flist/order/*")
				return err == nil && len(orders) == 1
			})
			d.goodbye("web", 7)
			d.goodbye("two", 7)
			d.empty(t)
		})
	}
}

// TestFlistAuto starts at once and has a layer in the end, which needs neither
// the mount nor the store.
// confined looks whether buoy-flist may do no more than it needs.
func (d *daemon) confined() {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.flistPID()))
	if err != nil {
		d.t.Fatal(err)
	}
	const most = 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_MKNOD | 0x1f
	var caps uint64
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "CapEff: %x", &caps); err == nil && caps&^most != 0 {
			d.t.Errorf("buoy-flist has capabilities %x", caps)
		}
	}
	if !strings.Contains(string(status), "\nSeccomp:\t2\n") || !strings.Contains(string(status), "\nNoNewPrivs:\t1\n") || caps == 0 {
		d.t.Errorf("buoy-flist is not confined: %s", status)
	}
}

func TestFlistAuto(t *testing.T) {
	r := testredis.New(t)
	dir, sum := bulky(t)
	file := pack(t, dir, "c.flist", r.URL())
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "web", Flist: file, Command: []string{"/bin/sh", "-c", endure}})
	d.await("all of it is a layer", func() bool {
		layers, err := filepath.Glob(d.data() + "/images/layers/*.json")
		return err == nil && len(layers) == 1
	})
	r.Kill()
	if j := d.exec("web", "/bin/sha256sum", "/data"); !strings.HasPrefix(j.Stdout, sum) {
		t.Errorf("without the store the file reads as %q, %q", j.Stdout, j.Stderr)
	}
	if err := d.client.Restart(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if j := d.exec("web", "/bin/sha256sum", "/data"); !strings.HasPrefix(j.Stdout, sum) || len(d.mounts()) > 0 {
		t.Errorf("after a restart the file reads as %q, %q; mounts %+v", j.Stdout, j.Stderr, d.mounts())
	}
	d.goodbye("web", 7)
	d.empty(t)
}

func TestFlistNever(t *testing.T) {
	r := testredis.New(t)
	dir, sum := bulky(t)
	file := pack(t, dir, "d.fl", r.URL())
	d := newDaemon(t)
	for i, req := range []buoy.CreateRequest{{Lazy: "never"}, {Lazy: "always", UserNS: true}} {
		req.Name, req.Flist, req.Command = fmt.Sprint("web", i), file, []string{"/bin/sh", "-c", endure}
		d.create(req)
		if len(d.mounts()) > 0 {
			t.Errorf("%+v has a mount", req)
		}
		if j := d.exec(req.Name, "/bin/sha256sum", "/data"); !strings.HasPrefix(j.Stdout, sum) {
			t.Errorf("%+v: the file reads as %q, %q", req, j.Stdout, j.Stderr)
		}
		d.goodbye(req.Name, 7)
	}
	d.empty(t)
}

// TestFlistUnderFire kills everything that serves a lazy flist while its
// container reads it, one after the other: the store, buoy-flist, buoyd, the
// shim, and all at once. No read fails and no byte is wrong.
func TestFlistUnderFire(t *testing.T) {
	r := testredis.New(t)
	dir, sum := bulky(t)
	file := pack(t, dir, "c.flist", r.URL())
	d := newDaemon(t)
	script := "while :; do n=$(sha256sum < /data); [ \"$n\" = '" + sum + "  -' ] || exit 9; echo x >> /rounds; done & trap 'exit 7' TERM; while :; do sleep 0.05; kill -0 $! || exit 8; done"
	d.create(buoy.CreateRequest{Name: "web", Flist: file, Lazy: "always", Restart: "no", Command: []string{"/bin/sh", "-c", script}})
	pid := d.awaitState("web", "running").PID
	rounds := func() int {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/root/rounds", pid)) // it is not there at first
		return bytes.Count(raw, []byte("x"))
	}
	goesOn := func(what string) {
		t.Helper()
		// The kernel has the file in its cache after the first round.
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		from := rounds()
		d.await("the container reads on: "+what, func() bool { return rounds() >= from+2 })
		if c := d.awaitState("web", "running"); c.PID != pid {
			t.Fatalf("%s: the container has pid %d, and had %d", what, c.PID, pid)
		}
	}
	killFlist := func() {
		old := d.flistPID()
		if old == 0 {
			t.Fatal("no buoy-flist runs")
		}
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	goesOn("undisturbed")
	for i := range 5 {
		killFlist()
		goesOn(fmt.Sprint("buoy-flist was killed, ", i))
	}
	d.kill()
	killFlist()
	d.start()
	goesOn("buoyd and buoy-flist were killed")
	d.killShim()
	killFlist()
	goesOn("buoy-shim and buoy-flist were killed")
	r.Kill()
	r.Start()
	goesOn("the store was killed")
	d.goodbye("web", 7)
	d.empty(t)
}

// TestFlistDeadStore: what cannot be read is an error in time, with the reason
// in the container's status, and reads work when the store is back.
func TestFlistDeadStore(t *testing.T) {
	t.Parallel()
	r := testredis.New(t)
	dir, sum := bulky(t)
	file := pack(t, dir, "c.flist", r.URL())
	d := newDaemon(t, "--flist-timeout", "1s")
	d.create(buoy.CreateRequest{Name: "web", Flist: file, Lazy: "always", Command: []string{"/bin/sh", "-c", endure}})
	d.awaitState("web", "running")
	if j := d.exec("web", "/bin/sha256sum", "/bin/busybox"); j.Stdout == "" { // from here on it is here
		t.Fatalf("busybox: %q", j.Stderr)
	}
	r.Kill()
	if j := d.exec("web", "/bin/sha256sum", "/data"); !strings.Contains(j.Stderr, "Input/output error") {
		t.Errorf("without the store the file reads as %q, %q", j.Stdout, j.Stderr)
	}
	d.await("the status says why", func() bool {
		c := d.awaitState("web", "running")
		return c.Fetch != nil && c.Fetch.Path == "/data" && strings.Contains(c.Fetch.Error, r.Addr)
	})
	r.Start()
	d.await("the store is asked again", func() bool {
		j := d.exec("web", "/bin/sha256sum", "/data")
		return strings.HasPrefix(j.Stdout, sum)
	})
	d.goodbye("web", 7)
	d.empty(t)
}

// TestFlistStartWithoutStore: whoever wants a container learns why it cannot be
// started, and nothing of it is left.
func TestFlistStartWithoutStore(t *testing.T) {
	t.Parallel()
	r := testredis.New(t)
	dir, _ := bulky(t)
	file := pack(t, dir, "d.fl", r.URL())
	r.Kill()
	d := newDaemon(t, "--flist-timeout", "1s")
	for _, lazy := range []string{"always", "never"} {
		err := d.client.Create(t.Context(), buoy.CreateRequest{Name: "web", Flist: file, Lazy: lazy, Command: []string{"/bin/sh", "-c", endure}})
		if err == nil || !strings.Contains(err.Error(), r.Addr) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("lazy %s: %v; want the store and what is wrong with it", lazy, err)
		}
	}
	d.empty(t)
}

// TestFlistMirror: a node gets the chunks of another one.
func TestFlistMirror(t *testing.T) {
	r := testredis.New(t)
	dir, sum := bulky(t)
	for _, name := range []string{"c.flist", "d.fl"} {
		t.Run(name, func(t *testing.T) {
			r := r
			file := pack(t, dir, name, r.URL())
			one := newDaemon(t)
			one.create(buoy.CreateRequest{Name: "web", Flist: file, Lazy: "never", Command: []string{"/bin/sh", "-c", endure}})
			r.Kill()
			defer r.Start()
			two := newDaemon(t, "--flist-mirror", "buoy+http://"+one.addr+"/nodes/525400123456")
			two.create(buoy.CreateRequest{Name: "web", Flist: file, Lazy: "always", Command: []string{"/bin/sh", "-c", endure}})
			if j := two.exec("web", "/bin/sha256sum", "/data"); !strings.HasPrefix(j.Stdout, sum) {
				t.Errorf("from the mirror the file reads as %q, %q", j.Stdout, j.Stderr)
			}
			for _, d := range []*daemon{one, two} {
				d.goodbye("web", 7)
				d.empty(t)
			}
		})
	}
}

// TestFlistRefused: what is no flist, or asks for what only flists have.
func TestFlistRefused(t *testing.T) {
	d := newDaemon(t)
	bad := filepath.Join(t.TempDir(), "bad.flist")
	if err := os.WriteFile(bad, []byte("this is no flist"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		req  buoy.CreateRequest
		want string
	}{
		{buoy.CreateRequest{Flist: bad}, "flist"},
		{buoy.CreateRequest{Flist: filepath.Join(t.TempDir(), "none.flist")}, "none.flist"},
		{buoy.CreateRequest{Flist: image(t), Lazy: "always"}, "lazy is for flists"},
		{buoy.CreateRequest{Flist: image(t), Lazy: "perhaps"}, "auto, always or never"},
		{buoy.CreateRequest{Flist: image(t), Storage: r0}, "chunk store of an flist"},
	} {
		test.req.Name = "web"
		err := d.client.Create(t.Context(), test.req)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("create %+v: %v; want %q", test.req, err, test.want)
		}
	}
	d.empty(t)
}

const r0 = "redis://127.0.0.1:1"

// TestFlistDebian runs a whole Debian, which BUOY_TEST_DEBIAN names as
// debootstrap makes it, and compares every file that the container sees.
func TestFlistDebian(t *testing.T) {
	dir := os.Getenv("BUOY_TEST_DEBIAN")
	if dir == "" {
		t.Skip("SKIPPED: BUOY_TEST_DEBIAN does not name a Debian root (debootstrap --variant=minbase)")
	}
	r := testredis.New(t)
	want := treeOf(t, dir)
	for name, lazy := range map[string]string{"c.flist": "always", "d.fl": "always", "e.fl": "never"} {
		t.Run(name+" "+lazy, func(t *testing.T) {
			d := newDaemon(t)
			d.create(buoy.CreateRequest{Name: "debian", Flist: pack(t, dir, name, r.URL()), Lazy: lazy, Command: []string{"/bin/bash", "-c", endure}})
			c := d.awaitState("debian", "running")
			got := treeOf(t, fmt.Sprintf("/proc/%d/root/", c.PID))
			for path, w := range want {
				if g := got[path]; g != w {
					t.Errorf("%s is %q, and was %q", path, g, w)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files, and were %d", len(got), len(want))
			}
			if j := d.exec("debian", "/usr/bin/dpkg", "--verify"); j.Stdout != "" || j.Stderr != "" {
				t.Errorf("dpkg --verify: %q, %q", j.Stdout, j.Stderr)
			}
			d.goodbye("debian", 7)
			d.empty(t)
		})
	}
}

// treeOf says of every file below dir what an flist keeps. Left out is what a
// container has of its own.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch rel {
		case ".", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf":
			return nil
		case "proc", "sys", "dev":
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		content := ""
		switch {
		case info.Mode().IsRegular():
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			content = hex.EncodeToString(h.Sum(nil))
		case e.Type() == fs.ModeSymlink:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		tree[rel] = fmt.Sprintf("%o %d:%d %d %s", st.Mode, st.Uid, st.Gid, info.ModTime().Unix(), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
