package mount

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/flist/cache"
)

// childServer has, in the environment of a server in a process of its own, what it serves.
const childServer = "BUOY_MOUNT_TEST_CHILD"

type childConfig struct {
	Files            map[string]int    // with content of their own
	Copies           map[string]string // of files of this machine
	Mode             uint32            // of all of them; 0: 0644
	Cache, State     string
	Conn             uint32
	Delay            time.Duration
	NoResend, NoPass bool
}

func (c childConfig) world() (*world, error) {
	all := map[string][]byte{}
	for name, size := range c.Files {
		all[name] = content(name, size)
	}
	for name, path := range c.Copies {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		all[name] = b
	}
	w := newWorld(all, cmp.Or(c.Mode, 0o644))
	w.delay = c.Delay
	return w, nil
}

// serveChild serves descriptor 3; descriptor 4 is closed once it is ready.
func serveChild(raw string) int {
	var c childConfig
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w, err := c.world()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	store, err := cache.Open(cache.Config{Dir: c.Cache})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m, err := New(Config{
		List: w.list, View: store.View(w), StateDir: c.State, Conn: c.Conn, NoResend: c.NoResend, NoPassthrough: c.NoPass,
		Deadline: 30 * time.Second,
		Log:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-m.Ready()
		os.NewFile(4, "ready").Close()
	}()
	if err := m.Run(context.Background(), 3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// spawn starts a server in a process of its own and waits until it is ready.
func (d *device0) spawn(c childConfig) *exec.Cmd {
	d.Helper()
	c.Conn = d.conn
	raw, err := json.Marshal(c)
	if err != nil {
		d.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		d.Fatal(err)
	}
	defer r.Close()
	fuse := os.NewFile(uintptr(d.dup()), "fuse")
	defer fuse.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childServer+"="+string(raw))
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{fuse, w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		d.Fatal(err)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		d.Fatal("the server says something")
	}
	return cmd
}

// kill is kill -9.
func kill(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}
