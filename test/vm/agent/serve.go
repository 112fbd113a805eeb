package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Server does in the guest what clients ask for.
type Server struct {
	off func()

	mu        sync.Mutex // guards processes
	processes map[int]*process
}

// process is one in the background.
type process struct {
	output lockedBuffer
	ended  chan struct{} // closed when result is set
	result Result
}

// NewServer returns a server that calls off to shut the machine down. It waits
// for nothing that it starts: all of it ends with the machine.
func NewServer(off func()) *Server {
	return &Server{off: off, processes: map[int]*process{}}
}

// Handler serves the clients.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	on("GET /boot", boot)
	on("POST /run", s.run)
	on("POST /processes", s.start)
	on("GET /processes/{pid}", s.wait)
	on("GET /processes/{pid}/output", s.output)
	on("GET /file", get)
	on("PUT /file", put)
	on("GET /dial", dial)
	on("POST /off", func(http.ResponseWriter, *http.Request) error {
		go s.off() // after the answer
		return nil
	})
	return mux
}

// boot tells one run of the machine from another.
func boot(w http.ResponseWriter, _ *http.Request) error {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	_, err = w.Write(bytes.TrimSpace(id))
	return err
}

// command reads what is to run.
func command(ctx context.Context, r io.Reader) (*exec.Cmd, error) {
	var c Command
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return nil, err
	}
	if len(c.Args) == 0 {
		return nil, errors.New("no command")
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin = append(os.Environ(), c.Env...), c.Dir, bytes.NewReader(c.Stdin)
	// A daemon that a command leaves behind may hold its output open.
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// run answers when the command has ended, and kills it when nobody waits.
func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body) // to its end, or a client that goes is not noticed
	if err != nil {
		return err
	}
	cmd, err := command(r.Context(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	code, err := codeOf(cmd, cmd.Run())
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(Result{Code: code, Stdout: stdout.Bytes(), Stderr: stderr.Bytes()})
}

// codeOf is the exit code as shells count; an error means that cmd did not run.
func codeOf(cmd *exec.Cmd, err error) (int, error) {
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// start answers when the process runs.
func (s *Server) start(w http.ResponseWriter, r *http.Request) error {
	cmd, err := command(context.WithoutCancel(r.Context()), r.Body)
	if err != nil {
		return err
	}
	p := &process{ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	s.processes[cmd.Process.Pid] = p
	s.mu.Unlock()
	go func() {
		defer close(p.ended)
		var err error
		if p.result.Code, err = codeOf(cmd, cmd.Wait()); err != nil {
			p.result = Result{Code: -1, Stderr: []byte(err.Error())}
		}
	}()
	return json.NewEncoder(w).Encode(started{PID: cmd.Process.Pid})
}

func (s *Server) process(r *http.Request) (*process, error) {
	pid, err := strconv.Atoi(r.PathValue("pid"))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.processes[pid]
	if p == nil {
		return nil, fmt.Errorf("no process %d was started here", pid)
	}
	return p, nil
}

// wait answers when the process has ended.
func (s *Server) wait(w http.ResponseWriter, r *http.Request) error {
	p, err := s.process(r)
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
		return json.NewEncoder(w).Encode(p.result)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// output is what the process has said so far.
func (s *Server) output(w http.ResponseWriter, r *http.Request) error {
	p, err := s.process(r)
	if err != nil {
		return err
	}
	_, err = w.Write(p.output.Bytes())
	return err
}

func get(w http.ResponseWriter, r *http.Request) error {
	data, err := os.ReadFile(r.FormValue("path"))
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

func put(_ http.ResponseWriter, r *http.Request) (err error) {
	path := r.URL.Query().Get("path")
	mode, err := strconv.ParseUint(r.URL.Query().Get("mode"), 8, 32)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, os.FileMode(mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r.Body)
	return err
}

// dial joins the client's connection with one that the guest opens.
func dial(w http.ResponseWriter, r *http.Request) error {
	var d net.Dialer
	there, err := d.DialContext(r.Context(), r.FormValue("network"), r.FormValue("address"))
	if err != nil {
		return err
	}
	defer there.Close()
	here, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: stream\r\n\r\n"); err != nil {
		return nil // the client has gone, there is nobody to tell
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, _ = io.Copy(there, rw)
		closeWrite(there)
	})
	_, _ = io.Copy(here, there)
	closeWrite(here)
	return nil
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// lockedBuffer may be read while a process writes.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}
