package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/proxy"
)

// others are the CPUs without the first, as taskset writes them: it takes a
// list that goes beyond what there is.
const others = "1-1023"

// pinned is a program on some CPUs, with the libraries of those that
// scripts/bench has unpacked.
func pinned(ctx context.Context, cpus string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", cpus}, args...)...)
	dirs, _ := filepath.Glob(filepath.Join(os.Getenv("BUOY_BENCH"), "debs/usr/lib/*-linux-gnu*"))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(dirs, ":"))
	return cmd
}

// makers start servers that end with a section.
type makers struct {
	dir  string
	undo *cleanup.Stack
}

// start runs a server and waits until it listens.
func (m *makers) start(ctx context.Context, f *front, cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(m.dir, f.name+".log"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return err
	}
	f.pid = cmd.Process.Pid
	m.undo.Push(func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		return nil
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", f.at.String())
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s does not listen: %w\n%s", f.name, err, text)
		}
	}
}

// freePort is one that nobody has at this moment.
func freePort(ctx context.Context) (netip.AddrPort, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	return l.Addr().(*net.TCPAddr).AddrPort(), l.Close()
}

// nginx starts one process of it.
func (m *makers) nginx(ctx context.Context, path, name, cpus string, server func(netip.AddrPort) string) (front, error) {
	at, err := freePort(ctx)
	if err != nil {
		return front{}, err
	}
	dir := filepath.Join(m.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return front{}, err
	}
	var temps strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temps, "%s_temp_path %s/%s; ", kind, dir, kind)
	}
	conf := fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr;\nevents { worker_connections 4096; }\n"+
		"http { access_log off; keepalive_requests 1000000000; %s\n%s }\n", dir, temps.String(), server(at))
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		return front{}, err
	}
	f := front{name: name, at: at}
	return f, m.start(ctx, &f, pinned(ctx, cpus, path, "-p", dir, "-c", filepath.Join(dir, "conf")))
}

// nginxBefore is nginx as a balancer that does what ours does.
func nginxBefore(at, backend netip.AddrPort) string {
	return fmt.Sprintf(`upstream u { server %s; keepalive 256; keepalive_requests 1000000000; }
server { listen %s; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host; } }`, backend, at)
}

// haproxy does, too.
func (m *makers) haproxy(ctx context.Context, path string, backend netip.AddrPort) (front, error) {
	at, err := freePort(ctx)
	if err != nil {
		return front{}, err
	}
	conf := fmt.Sprintf("global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n timeout connect 2s\n timeout client 60s\n timeout server 60s\n"+
		" http-reuse always\n option forwardfor\nfrontend f\n bind %s\n http-request set-header X-Forwarded-Proto http\n default_backend b\nbackend b\n server s %s\n", at, backend)
	file := filepath.Join(m.dir, "haproxy.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return front{}, err
	}
	f := front{name: "haproxy", at: at}
	return f, m.start(ctx, &f, pinned(ctx, "0", path, "-db", "-f", file))
}

// ours is our proxy in a process of its own: this program, started with
// proxyServer. It reads what is wanted from its input, a line each.
type ours struct {
	front
	in  io.Writer
	out *bufio.Reader
}

const proxyServer = "proxy-server"

// wanted is one line to it, and its answer.
type wanted struct {
	Backends []proxy.Backend
	Active   map[string]int64 `json:",omitempty"`
	Error    string           `json:",omitempty"`
}

func (m *makers) ours(ctx context.Context, backend netip.AddrPort) (*ours, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	at, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	cmd := pinned(ctx, "0", self, proxyServer, at.String())
	o := &ours{front: front{name: "buoy", at: at}}
	if o.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.undo.Push(out.Close)
	defer w.Close()
	cmd.Stdout, o.out = w, bufio.NewReader(out)
	if err := m.start(ctx, &o.front, cmd); err != nil {
		return nil, err
	}
	_, err = o.set(wanted{Backends: []proxy.Backend{{ID: "nginx", Ports: map[uint16]netip.AddrPort{80: backend}}}})
	return o, err
}

// set has it take other backends.
func (o *ours) set(w wanted) (wanted, error) {
	if err := json.NewEncoder(o.in).Encode(w); err != nil {
		return w, err
	}
	line, err := o.out.ReadBytes('\n')
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal(line, &w); err != nil {
		return w, err
	}
	if w.Error != "" {
		return w, errors.New(w.Error)
	}
	return w, nil
}

// serveProxy is that other process.
func serveProxy(ctx context.Context, args []string, out io.Writer) error {
	// A read that blocks would keep the only CPU from looking at the network.
	if err := syscall.SetNonblock(0, true); err != nil {
		return err
	}
	in := os.NewFile(0, "stdin")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := proxy.New(proxy.Config{HTTP: args})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { err = p.Run(ctx) })
	lines := json.NewDecoder(in)
	for {
		var w wanted
		if lines.Decode(&w) != nil { // the end
			cancel()
			wg.Wait()
			return err
		}
		app := proxy.App{Name: "bench", Rules: []proxy.Rule{{}}, Port: 80, Backends: w.Backends}
		if err := p.Update([]proxy.App{app}); err != nil {
			w.Error = err.Error()
		}
		w.Active = map[string]int64{}
		for id, s := range p.Stats()["bench"].Backends {
			w.Active[id] = s.Active
		}
		if err := json.NewEncoder(out).Encode(w); err != nil {
			return err
		}
	}
}
