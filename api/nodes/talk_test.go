package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// echo is a program that says what it hears, on both outputs, until stdin ends.
type echo struct {
	stdin        *io.PipeWriter
	out, err     *io.PipeReader
	done, hungUp chan struct{}
	once         sync.Once
	failure      error
	copied       sync.WaitGroup
	mu           sync.Mutex // guards did
	did          []string
}

func newEcho(exit error) *echo {
	e := &echo{done: make(chan struct{}), hungUp: make(chan struct{}), failure: exit}
	in, stdin := io.Pipe()
	out, stdout := io.Pipe()
	errOut, stderr := io.Pipe()
	e.stdin, e.out, e.err = stdin, out, errOut
	e.copied.Go(func() {
		_, err := io.Copy(stdout, io.TeeReader(in, stderr))
		in.CloseWithError(err)
		stdout.Close()
		stderr.Close()
		close(e.done)
	})
	return e
}

func (e *echo) Write(p []byte) (int, error)    { return e.stdin.Write(p) }
func (e *echo) CloseStdin()                    { e.stdin.Close() }
func (e *echo) Output() (io.Reader, io.Reader) { return e.out, e.err }
func (e *echo) Resize(w, h uint16) error       { return e.note("resize %dx%d", w, h) }
func (e *echo) Signal(_ context.Context, sig syscall.Signal) error {
	return e.note("signal %d", sig)
}

func (e *echo) Wait(ctx context.Context) (container.Exit, error) {
	select {
	case <-e.done:
		return container.Exit{Code: 3}, e.failure
	case <-ctx.Done():
		return container.Exit{}, ctx.Err()
	}
}

func (e *echo) Close() {
	e.once.Do(func() {
		close(e.hungUp)
		e.stdin.Close()
		e.out.Close()
		e.err.Close()
	})
}

func (e *echo) note(format string, args ...any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did = append(e.did, fmt.Sprintf(format, args...))
	return nil
}

func (e *echo) doings() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.did, ", ")
}

// converse serves p and gives the client's end.
func converse(t *testing.T, p program, pace pace) *websocket.Conn {
	t.Helper()
	testleak.Check(t)
	f, _ := server(t)
	d, err := New(Config{Node: f})
	if err != nil {
		t.Fatal(err)
	}
	d.pace = pace
	over := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		d.do(func(w http.ResponseWriter, r *http.Request) error {
			return d.talk(w, r, func(context.Context) (program, error) { return p, nil })
		}).ServeHTTP(w, r)
	}))
	c, resp, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{Subprotocols: []string{"other", subprotocol}}) //nolint:bodyclose // there is none after a WebSocket
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != subprotocol {
		t.Errorf("subprotocol %q", got)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() {
		_ = c.CloseNow()
		select {
		case <-over:
		case <-time.After(20 * time.Second):
			t.Error("the session goes on without a client")
		}
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
		if len(d.sessions) > 0 {
			t.Error("a session is still counted")
		}
	})
	return c
}

func say(t *testing.T, c *websocket.Conn, channel byte, text string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageBinary, append([]byte{channel}, text...)); err != nil {
		t.Fatal(err)
	}
}

// heard reads to the end, and gives what came on each channel.
func heard(t *testing.T, c *websocket.Conn) (channels [4]bytes.Buffer, end websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, message, err := c.Read(ctx)
		if err != nil {
			return channels, websocket.CloseStatus(err)
		}
		channels[message[0]].Write(message[1:])
	}
}

func TestTalk(t *testing.T) {
	e := newEcho(nil)
	c := converse(t, e, normal())
	long := strings.Repeat("0123456789", 20_000)
	say(t, c, resizeChannel, `{"Width":100,"Height":40}`)
	say(t, c, signalChannel, `{"signal":"INT"}`)
	say(t, c, signalChannel, `{"signal":"no such"}`)
	say(t, c, resizeChannel, `{"Width":-1}`)
	say(t, c, 77, "what is this")
	if err := c.Write(t.Context(), websocket.MessageBinary, nil); err != nil {
		t.Fatal(err)
	}
	go func() { // what comes back has to be read meanwhile
		say(t, c, stdinChannel, "hello ")
		say(t, c, stdinChannel, long)
		say(t, c, closeChannel, "\x07")
		say(t, c, closeChannel, "\x00")
		say(t, c, stdinChannel, "too late")
	}()
	got, end := heard(t, c)
	for _, channel := range []int{stdoutChannel, stderrChannel} {
		if got[channel].String() != "hello "+long {
			t.Errorf("channel %d: %d bytes", channel, got[channel].Len())
		}
	}
	want := `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with exit code 3",` +
		`"details":{"causes":[{"reason":"ExitCode","message":"3"}]},"exitCode":3}`
	if got[statusChannel].String() != want {
		t.Errorf("status %s", got[statusChannel].String())
	}
	if end != websocket.StatusNormalClosure {
		t.Errorf("closed with %d", end)
	}
	if did := e.doings(); did != "resize 100x40, signal 2" {
		t.Errorf("did %s", did)
	}
}

func TestEndOf(t *testing.T) {
	for want, e := range map[string]container.Exit{
		`"status":"Success","exitCode":0`:                           {},
		`"reason":"ExitCode","message":"137"}]},"exitCode":137`:     {Code: 137, Signal: 9},
		`"reason":"InternalError","message":"it has ended, and nob`: {Code: 255, Lost: true},
	} {
		if text, err := json.Marshal(endOf(e)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%+v: %s, %v", e, text, err)
		}
	}
}

// TestTalkFails ends with a sentence when it is not known how the program ended.
func TestTalkFails(t *testing.T) {
	e := newEcho(errs.E(errs.Conflict, "the output was not read fast enough"))
	c := converse(t, e, normal())
	say(t, c, closeChannel, "\x00")
	got, _ := heard(t, c)
	if text := got[statusChannel].String(); !strings.Contains(text, `"message":"the output was not read fast enough"}`) {
		t.Errorf("status %s", text)
	}
}

// TestTalkHangsUp: a client that goes, in whatever way, ends the program.
func TestTalkHangsUp(t *testing.T) {
	quick := pace{ping: 20 * time.Millisecond, dead: 100 * time.Millisecond}
	var e *echo
	for name, leave := range map[string]func(c *websocket.Conn){
		"in order":      func(c *websocket.Conn) { _ = c.Close(websocket.StatusNormalClosure, "") },
		"without order": func(c *websocket.Conn) { _ = c.CloseNow() },
		"silently":      func(*websocket.Conn) {}, // it reads no more, so it answers no ping
		"silently, with much to read": func(*websocket.Conn) {
			e.copied.Go(func() { _, _ = e.Write(make([]byte, 30<<20)) })
		},
		"while the program does not read": func(c *websocket.Conn) {
			for ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond); ; {
				if c.Write(ctx, websocket.MessageBinary, make([]byte, 1<<20)) != nil {
					cancel()
					return // which has closed it
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e = newEcho(nil)
			c := converse(t, e, quick)
			leave(c)
			select {
			case <-e.hungUp:
			case <-time.After(20 * time.Second):
				t.Error("the program goes on")
			}
		})
	}
}

// TestTalkSlow: a client that does not read is not taken for dead as long as it
// says something, and gets all in the end.
func TestTalkSlow(t *testing.T) {
	e := newEcho(nil)
	c := converse(t, e, pace{ping: 50 * time.Millisecond, dead: time.Second})
	long := make([]byte, 8<<20)
	e.copied.Go(func() {
		_, _ = e.Write(long)
		e.CloseStdin()
	})
	ctx, cancel := context.WithCancel(t.Context())
	var pings sync.WaitGroup
	defer pings.Wait()
	defer cancel()
	pings.Go(func() {
		for tick := time.Tick(50 * time.Millisecond); ; {
			select {
			case <-tick:
				pings.Go(func() { _ = c.Ping(ctx) }) // the answer comes when somebody reads
			case <-ctx.Done():
				return
			}
		}
	})
	time.Sleep(2 * time.Second) // twice what a silent client is given
	select {
	case <-e.hungUp:
		t.Fatal("the program was hung up on")
	default:
	}
	got, end := heard(t, c)
	if got[stdoutChannel].Len() != len(long) || end != websocket.StatusNormalClosure {
		t.Errorf("%d bytes, closed with %d", got[stdoutChannel].Len(), end)
	}
}

// TestTalkRefused are requests that never become a session.
func TestTalkRefused(t *testing.T) {
	f, s := server(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	c := here + "/containers/vfw_21"
	for _, tt := range []struct {
		path, origin, protocol string
		status                 int
		answer, did            string
	}{
		{c + "/exec?command=a", "http://elsewhere", subprotocol, 403, "another origin", ""},
		{c + "/exec?command=a", "", "v4.channel.k8s.io", 400, "subprotocol v5.channel.k8s.io", ""},
		{c + "/exec", "", subprotocol, 400, "parameter command is missing", ""},
		{c + "/exec?command=a&width=70000", "", subprotocol, 400, "parameter width", ""},
		{c + "/exec?command=a&tty=perhaps", "", subprotocol, 400, "parameter tty", ""},
		{c + "/exec?command=a&env=x", "", subprotocol, 400, `environment entry`, ""},
		{here + "/containers/none/exec?command=a", "", subprotocol, 404, "none", ""},
		{
			c + "/exec?command=a&command=b+c&tty=true&stdin=1&width=80&height=24&user=u&workdir=/x&env=A=B", srv.URL, "x, " + subprotocol, 409, "nothing runs",
			`exec session vfw_21 ["a" "b c"] tty=true 80x24 open=true`,
		},
		{c + "/attach?stdin&lossless=true", "", subprotocol, 409, "nothing runs", "attach vfw_21 open=true lossless=true"},
		{c + "/attach?lossless=2", "", subprotocol, 400, "parameter lossless", ""},
		{here + "/containers/none/attach", "", subprotocol, 404, "none", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
			"Sec-WebSocket-Protocol": tt.protocol, "Origin": tt.origin,
		} {
			if value != "" {
				req.Header.Set(key, value)
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		did := strings.Join(f.done(), ", ")
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.answer) || did != tt.did {
			t.Errorf("%s: %d %s, did %q; want %d, %q, %q", tt.path, resp.StatusCode, body, did, tt.status, tt.answer, tt.did)
		}
	}
}

// FuzzObey: whatever a client says on a channel, at most one thing comes of it,
// and that is a size or a signal that there is.
func FuzzObey(f *testing.F) {
	f.Add(byte(resizeChannel), []byte(`{"Width":80,"Height":24}`))
	f.Add(byte(resizeChannel), []byte(`{"width":65536,"height":-1}`))
	f.Add(byte(signalChannel), []byte(`{"signal":"TERM"}`))
	f.Add(byte(signalChannel), []byte(`{"signal":"65"}`))
	f.Add(byte(closeChannel), []byte{stdinChannel})
	f.Add(byte(99), []byte(strings.Repeat("[", maxOrder+1)))
	f.Fuzz(func(t *testing.T, channel byte, order []byte) {
		e := newEcho(nil)
		defer e.copied.Wait()
		defer e.stdin.Close()
		if err := newTalk(e, normal()).obey(t.Context(), channel, bytes.NewReader(order)); err != nil {
			t.Fatal(err)
		}
		said := e.doings()
		switch {
		case said == "":
		case channel == resizeChannel:
			var w, h uint16
			if n, err := fmt.Sscanf(said, "resize %dx%d", &w, &h); n != 2 || err != nil {
				t.Fatalf("%q of %q", said, order)
			}
		case channel == signalChannel:
			var n int
			if _, err := fmt.Sscanf(said, "signal %d", &n); err != nil || n < 1 || n > 64 {
				t.Fatalf("%q of %q", said, order)
			}
		default:
			t.Fatalf("%q of channel %d", said, channel)
		}
	})
}
