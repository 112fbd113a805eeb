package buoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// ExecRequest is a command to run in a container, to its end.
type ExecRequest struct {
	Command []string `json:"command"`       // the program and its arguments
	Env     []string `json:"env,omitempty"` // "KEY=value", added to the container's
	User    string   `json:"user,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	Stdin   string   `json:"stdin,omitempty"`
}

// ExecResult is how it has ended. Of each output there is the first MiB.
type ExecResult struct {
	ExitCode  int    `json:"exitCode"`
	Stdout    string `json:"stdout"`
	Stderr    string `json:"stderr"`
	Truncated bool   `json:"truncated"` // there was more
}

// ExecWait runs a command in a container to its end, or to that of ctx.
func (c *Client) ExecWait(ctx context.Context, container string, r ExecRequest) (ExecResult, error) {
	var result ExecResult
	return result, c.Do(ctx, http.MethodPost, containerPath(container, "exec"), r, &result)
}

// ExecOptions is a command to talk with.
type ExecOptions struct {
	Command       []string // the program and its arguments
	Env           []string // "KEY=value", added to the container's
	User, Workdir string
	Stdin         bool // it has one; else that is empty
	TTY           bool // it has a terminal, and no stderr of its own
	Width, Height int  // of the terminal, in characters
}

// ExecSession starts a command in a container. It is ended when the session is
// closed or ctx ends.
func (c *Client) ExecSession(ctx context.Context, container string, o ExecOptions) (*Session, error) {
	q := url.Values{"command": o.Command, "env": o.Env}
	for key, value := range map[string]string{"user": o.User, "workdir": o.Workdir} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if o.Stdin {
		q.Set("stdin", "true")
	}
	if o.TTY {
		q.Set("tty", "true")
		q.Set("width", strconv.Itoa(o.Width))
		q.Set("height", strconv.Itoa(o.Height))
	}
	return c.session(ctx, containerPath(container, "exec"), q)
}

// AttachOptions says how to be attached to a container.
type AttachOptions struct {
	Stdin bool // write to its stdin or terminal, too; it was created with Stdin
	// Lossless makes the container wait while this client does not read. Without
	// it a client that lags a MiB behind is cut off.
	Lossless bool
}

// Attach hears what a container says from now on. The container, which may be in
// standby, runs on when the session is closed.
func (c *Client) Attach(ctx context.Context, container string, o AttachOptions) (*Session, error) {
	q := url.Values{}
	if o.Stdin {
		q.Set("stdin", "true")
	}
	if o.Lossless {
		q.Set("lossless", "true")
	}
	return c.session(ctx, containerPath(container, "attach"), q)
}

// The channels of a session, and its subprotocol.
const (
	subprotocol   = "v5.channel.k8s.io"
	stdinChannel  = 0
	stdoutChannel = 1
	stderrChannel = 2
	statusChannel = 3
	resizeChannel = 4
	signalChannel = 5
	closeChannel  = 255
)

// aliveEvery is how often a session says that its client is there. One that does
// not read does not answer pings, which buoyd sends after 5 seconds of silence;
// after 30 it gives up.
const aliveEvery = 3 * time.Second

// Session is a conversation with a process. Its methods may be used by several
// goroutines at once, but Copy is called once.
type Session struct {
	socket *socket
	detach func() bool // from ctx

	mu    sync.Mutex  // held while a message is written
	pings chan []byte // to be answered
	once  sync.Once
	done  chan struct{} // closed by Close
	alive sync.WaitGroup
}

func (c *Client) session(ctx context.Context, path string, q url.Values) (*Session, error) {
	socket, err := c.dial(ctx, request{path: path, query: q}, subprotocol)
	if err != nil {
		return nil, err
	}
	s := &Session{socket: socket, pings: make(chan []byte, 1), done: make(chan struct{})}
	// Whoever reads must not wait until the process reads its stdin.
	socket.pong = func(ping []byte) error {
		select {
		case s.pings <- ping:
		default: // one answer will do
		}
		return nil
	}
	s.detach = context.AfterFunc(ctx, s.hangUp)
	s.alive.Go(s.stayAlive)
	return s, nil
}

// stayAlive answers pings, and says unasked that we are there.
func (s *Session) stayAlive() {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		var ping []byte
		select {
		case ping = <-s.pings:
		case <-tick.C:
		case <-s.done:
			return
		}
		if s.message(framePong, ping) != nil {
			return // who reads finds out
		}
	}
}

func (s *Session) message(op byte, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.socket.write(op, body)
}

func (s *Session) channel(channel byte, body []byte) error {
	return s.message(frameBinary, append([]byte{channel}, body...))
}

// Write writes to the process's stdin. It waits while the process does not read.
func (s *Session) Write(p []byte) (int, error) {
	const piece = 32 << 10
	for done := 0; done < len(p); {
		n := min(piece, len(p)-done)
		if err := s.channel(stdinChannel, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// CloseStdin ends what there is to read for the process. A terminal has no end.
func (s *Session) CloseStdin() error { return s.channel(closeChannel, []byte{stdinChannel}) }

// Resize sets the size of the terminal, in characters.
func (s *Session) Resize(width, height int) error {
	text, err := json.Marshal(map[string]int{"Width": width, "Height": height})
	if err != nil {
		return err
	}
	return s.channel(resizeChannel, text)
}

// Signal sends a signal, "SIGINT", to the process; of a command, to its whole
// process group.
func (s *Session) Signal(name string) error {
	text, err := json.Marshal(map[string]string{"signal": name})
	if err != nil {
		return err
	}
	return s.channel(signalChannel, text)
}

// sessionStatus is the end of a session.
type sessionStatus struct {
	Message  string `json:"message"`
	ExitCode *int   `json:"exitCode"`
}

// Copy writes what the process says to stdout and stderr until it has ended, and
// returns its exit code. As long as they do not take it, the process waits. The
// session is over then.
func (s *Session) Copy(stdout, stderr io.Writer) (exitCode int, err error) {
	defer s.hangUp()
	for {
		message, err := s.socket.next()
		switch {
		case errors.Is(err, io.EOF):
			return 0, errors.New("buoyd has ended the session without a word")
		case err != nil:
			return 0, err
		case len(message) == 0:
			continue
		}
		switch body := message[1:]; message[0] {
		case stdoutChannel:
			_, err = stdout.Write(body)
		case stderrChannel:
			_, err = stderr.Write(body)
		case statusChannel:
			var end sessionStatus
			if err := json.Unmarshal(body, &end); err != nil {
				return 0, fmt.Errorf("decode how it ended: %w", err)
			}
			if end.ExitCode == nil {
				return 0, &Error{Message: end.Message}
			}
			return *end.ExitCode, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// Close hangs up. It may be called again.
func (s *Session) Close() error {
	s.detach()
	s.hangUp()
	s.alive.Wait()
	return nil
}

func (s *Session) hangUp() {
	s.once.Do(func() {
		close(s.done)
		_ = s.socket.Close()
	})
}
