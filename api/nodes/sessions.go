package nodes

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/coder/websocket"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node"
)

// Sessions are commands and containers that clients talk with.
type Sessions interface {
	ExecSession(ctx context.Context, name string, cmd container.Command) (*node.Session, error)
	Attach(ctx context.Context, name string, open, lossless bool) (*node.Session, error)
}

// program is what a client talks with; *node.Session is one.
type program interface {
	io.Writer // its stdin
	CloseStdin()
	Output() (stdout, stderr io.Reader)
	Resize(width, height uint16) error
	Signal(ctx context.Context, sig syscall.Signal) error
	Wait(ctx context.Context) (container.Exit, error)
	Close() // may be called twice
}

// subprotocol is that of Kubernetes: the first byte of a message is a channel.
const subprotocol = "v5.channel.k8s.io"

// maxSessions is how many may be open: each has pipes, buffers and goroutines.
const maxSessions = 1000

// execSession runs a command for as long as its client is there.
func (d *Dialect) execSession(w http.ResponseWriter, r *http.Request) error {
	return d.talk(w, r, func(ctx context.Context) (program, error) {
		d.node.Warm(ctx)
		name, err := containerName(r)
		if err != nil {
			return nil, err
		}
		cmd, err := sessionIn(r.URL.Query())
		if err != nil {
			return nil, err
		}
		s, err := d.node.ExecSession(ctx, name, cmd)
		if err != nil {
			return nil, err
		}
		return s, nil
	})
}

// attach shows a client what a container writes, and hands on what it types.
func (d *Dialect) attach(w http.ResponseWriter, r *http.Request) error {
	return d.talk(w, r, func(ctx context.Context) (program, error) {
		name, err := containerName(r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		open, err := api.Flag(q, "stdin")
		if err != nil {
			return nil, err
		}
		lossless, err := api.Flag(q, "lossless")
		if err != nil {
			return nil, err
		}
		s, err := d.node.Attach(ctx, name, open, lossless)
		if err != nil {
			return nil, err
		}
		return s, nil
	})
}

// sessionIn reads a command.
func sessionIn(q url.Values) (cmd container.Command, err error) {
	cmd = container.Command{Args: q["command"], Env: q["env"], Cwd: q.Get("workdir"), User: q.Get("user")}
	if len(cmd.Args) == 0 {
		return cmd, errs.E(errs.Invalid, "parameter command is missing; it is given once for the program, and once for each argument")
	}
	if cmd.TTY, err = api.Flag(q, "tty"); err != nil {
		return cmd, err
	}
	if cmd.Open, err = api.Flag(q, "stdin"); err != nil {
		return cmd, err
	}
	if cmd.Width, err = sideIn(q, "width"); err != nil {
		return cmd, err
	}
	if cmd.Height, err = sideIn(q, "height"); err != nil {
		return cmd, err
	}
	return cmd, goodEnv(cmd.Env)
}

func sideIn(q url.Values, key string) (uint16, error) {
	text := q.Get(key)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, errs.E(errs.Invalid, "parameter %s is %q; it must be 0 to 65535 characters", key, text)
	}
	return uint16(n), nil
}

// talk makes the request a WebSocket between its client and the process that
// begin starts or finds. An error is answered before.
func (d *Dialect) talk(w http.ResponseWriter, r *http.Request, begin func(ctx context.Context) (program, error)) error {
	switch {
	case !api.Upgrades(r):
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		api.Error(w, http.StatusUpgradeRequired, "this is a conversation; ask for it with a WebSocket")
		return nil
	case !api.SameOrigin(r):
		api.Error(w, http.StatusForbidden, "a web page of another origin may not do this")
		return nil
	case !api.HasToken(r.Header, "Sec-WebSocket-Protocol", subprotocol):
		return errs.E(errs.Invalid, "the WebSocket must have the subprotocol %s", subprotocol)
	}
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	p, err := begin(r.Context())
	if err != nil {
		return err
	}
	defer p.Close()
	stop, cancel := api.StreamContext(r)
	defer cancel()
	k := newTalk(p, d.pace)
	k.conn, err = websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{subprotocol}, InsecureSkipVerify: true, // the origin has been looked at
		OnPingReceived: k.pinged, OnPongReceived: k.ponged,
	})
	if err != nil {
		return nil // it has been answered
	}
	defer func() { _ = k.conn.CloseNow() }() // after Close it has nothing to do
	// What stops the server must not cut the connection before it is told why.
	k.run(context.WithoutCancel(r.Context()), stop, func(err error) string {
		_, sentence := api.Explain(r, err, d.log)
		return sentence
	})
	return nil
}

// enter counts a session, until leave.
func (d *Dialect) enter() (leave func(), err error) {
	select {
	case d.sessions <- struct{}{}:
		return func() { <-d.sessions }, nil
	default:
		return nil, errs.E(errs.Unavailable, "%d sessions are open, and no more are allowed", maxSessions)
	}
}

// endOf is how a process has ended, as Kubernetes says it, and in our words.
func endOf(e container.Exit) status {
	s := status{Kind: "Status", APIVersion: "v1", Status: "Success", ExitCode: &e.Code}
	switch {
	case e.Lost:
		s.Status, s.Reason, s.Message, s.ExitCode = "Failure", "InternalError", "it has ended, and nobody saw how", nil
	case e.Code != 0:
		s.Status, s.Reason, s.Message = "Failure", "NonZeroExitCode", fmt.Sprintf("command terminated with exit code %d", e.Code)
		s.Details = &details{Causes: []cause{{Reason: "ExitCode", Message: strconv.Itoa(e.Code)}}}
	}
	return s
}

// failure is the end of a session whose process runs on, or is being ended.
func failure(sentence string) status {
	return status{Kind: "Status", APIVersion: "v1", Status: "Failure", Reason: "InternalError", Message: sentence}
}

// status is the last message of a session: a Status of Kubernetes.
type status struct {
	Kind       string   `json:"kind"`
	APIVersion string   `json:"apiVersion"`
	Metadata   struct{} `json:"metadata"`
	Status     string   `json:"status"` // Success or Failure
	Reason     string   `json:"reason,omitempty"`
	Message    string   `json:"message,omitempty"`
	Details    *details `json:"details,omitempty"`
	ExitCode   *int     `json:"exitCode,omitempty"` // ours
}

type details struct {
	Causes []cause `json:"causes"`
}

type cause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}
