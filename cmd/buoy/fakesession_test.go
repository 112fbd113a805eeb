package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"
)

// fakeTalk is a session with nothing behind it.
type fakeTalk struct {
	*websocket.Conn
	ctx context.Context
}

func (k fakeTalk) say(channel byte, text string) {
	_ = k.Write(k.ctx, websocket.MessageBinary, append([]byte{channel}, text...))
}

// echo says what it hears until stdin ends, and gives the exit code. A signal
// ends it, too; f notes it.
func (k fakeTalk) echo(f *fakeNode) int {
	for {
		_, message, err := k.Read(k.ctx)
		switch {
		case err != nil:
			return 255
		case message[0] == 0:
			k.say(1, string(message[1:]))
		case message[0] == 5:
			f.set(func() { f.asked = append(f.asked, "SIGNAL "+string(message[1:])) })
			return 130
		case message[0] == 255:
			return 0
		}
	}
}

func (k fakeTalk) end(code int) {
	text, _ := json.Marshal(map[string]any{"status": "Success", "exitCode": code})
	k.say(3, string(text))
	_, _, _ = k.Read(k.ctx) // the client hangs up
	_ = k.CloseNow()
}

func talkWith(w http.ResponseWriter, r *http.Request) (fakeTalk, bool) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"v5.channel.k8s.io"}})
	if err != nil {
		return fakeTalk{}, false
	}
	c.SetReadLimit(-1)
	return fakeTalk{c, r.Context()}, true
}

func (f *fakeNode) execSession(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	command := q["command"]
	switch state := f.state(r.PathValue("name")); {
	case state == "absent":
		fail(w, 404, fmt.Sprintf("container %q does not exist", r.PathValue("name")))
		return
	case state != "running":
		fail(w, 409, fmt.Sprintf("container %q is not running", r.PathValue("name")))
		return
	case !strings.Contains("cat echo env fail sleep", command[0]):
		fail(w, 404, fmt.Sprintf("command %q not found in the image", command[0]))
		return
	}
	k, ok := talkWith(w, r)
	if !ok {
		return
	}
	code := 0
	switch command[0] {
	case "echo":
		k.say(1, strings.Join(command[1:], " ")+"\n")
	case "env":
		k.say(1, strings.Join(q["env"], "\n")+"\n")
	case "fail":
		k.say(2, "it broke\n")
		code = 3
	case "sleep":
		code = k.echo(f)
	case "cat":
		if q.Get("stdin") == "true" {
			code = k.echo(f)
		}
	}
	k.end(code)
}

// attach shows what a container says from its start on, and then echoes.
func (f *fakeNode) attach(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if f.state(name) == "absent" {
		fail(w, 404, fmt.Sprintf("container %q does not exist", name))
		return
	}
	k, ok := talkWith(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	for f.containers[name].state == "standby" {
		changed := f.changed
		f.mu.Unlock()
		<-changed
		f.mu.Lock()
	}
	for _, l := range f.containers[name].log {
		k.say(map[string]byte{"stdout": 1, "stderr": 2}[l.stream], l.text)
	}
	f.mu.Unlock()
	code := k.echo(f)
	f.set(func() { f.containers[name].end(code) })
	k.end(code)
}

func (f *fakeNode) exec(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	f.jobs++
	w.Header().Set("Location", r.URL.Path+"/job-"+strconv.Itoa(f.jobs))
	w.WriteHeader(202)
}
