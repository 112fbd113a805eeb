package buoy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func TestNodeEvents(t *testing.T) {
	asked := ""
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path + "?" + r.URL.Query().Encode() + " " + r.Header.Get("Accept")
		if r.URL.Query().Get("type") == "party" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"no such type"}`)
			return
		}
		for i := range 3 {
			_, _ = fmt.Fprintf(w, `{"id":"e-%d","type":"container.exited","data":{"actor":{"kind":"node"},"exitCode":%d}}`+"\n", i, i)
		}
	})
	read := func(c *buoy.Client, q buoy.NodeEventQuery) (ids string, err error) {
		for e, err := range c.NodeEvents(t.Context(), q) {
			if err != nil {
				return ids, err
			}
			ids += fmt.Sprint(e.ID, ":", *e.Data.ExitCode, " ")
		}
		return ids, nil
	}
	const all = "e-0:0 e-1:1 e-2:2 "
	got, err := read(c, buoy.NodeEventQuery{Types: []string{"container", "image"}, Containers: []string{"a"}, Images: []string{"i"}, Since: time.Unix(5, 0), After: "e-9", Limit: 7})
	if err != nil || got != all || asked != "/nodes/n/events?after=e-9&container=a&image=i&limit=7&since=1970-01-01T00%3A00%3A05Z&type=container&type=image application/x-ndjson" {
		t.Errorf("%q, %v, asked %s", got, err, asked)
	}
	if got, err := read(c.On(""), buoy.NodeEventQuery{}); err != nil || got != all || !strings.HasPrefix(asked, "/events? ") {
		t.Errorf("of the daemon: %q, %v, asked %s", got, err, asked)
	}
	// The end of what is followed is none, but at its time.
	if got, err := read(c, buoy.NodeEventQuery{Follow: true}); !errors.Is(err, io.ErrUnexpectedEOF) || got != all {
		t.Errorf("followed: %q, %v", got, err)
	}
	if got, err := read(c, buoy.NodeEventQuery{Follow: true, Until: time.Unix(1, 0)}); err != nil || got != all {
		t.Errorf("followed until: %q, %v", got, err)
	}
	if _, err := read(c, buoy.NodeEventQuery{Types: []string{"party"}}); !errors.Is(err, buoy.ErrInvalid) {
		t.Errorf("a wrong type: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.NodeEvents(ctx, buoy.NodeEventQuery{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after ctx: %v", err)
		}
	}
}

func TestWebhooks(t *testing.T) {
	asked := ""
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = strings.TrimSpace(r.Method + " " + r.URL.Path + " " + string(body))
		hook := `{"name":"a b","url":"u","eventtypes":["image"],"containers":[],"images":[],"secret":"s","configured":true,"status":{"state":"idle","dead":3}}`
		if r.URL.Path == "/webhooks" && r.Method == http.MethodGet {
			hook = "[" + hook + "]"
		}
		_, _ = io.WriteString(w, hook)
	})
	list, err := c.Webhooks(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "a b" || list[0].Status.Dead != 3 || !list[0].Configured || asked != "GET /webhooks" {
		t.Errorf("%+v, %v, asked %s", list, err, asked)
	}
	made, err := c.CreateWebhook(t.Context(), buoy.Webhook{Name: "a", URL: "u", Types: []string{"image"}})
	if err != nil || made.Secret != "s" || asked != `POST /webhooks {"name":"a","url":"u","eventtypes":["image"],"containers":null,"images":null}` {
		t.Errorf("%+v, %v, asked %s", made, err, asked)
	}
	one, err := c.Webhook(t.Context(), "a b")
	if err != nil || one.URL != "u" || asked != "GET /webhooks/a b" {
		t.Errorf("%+v, %v, asked %s", one, err, asked)
	}
	if err := c.ReplaceWebhook(t.Context(), buoy.Webhook{Name: "a", URL: "v", Secret: "k"}); err != nil || !strings.HasPrefix(asked, `PUT /webhooks/a {"name":"a","url":"v"`) || !strings.Contains(asked, `"secret":"k"`) {
		t.Errorf("%v, asked %s", err, asked)
	}
	if err := c.DeleteWebhook(t.Context(), "a"); err != nil || asked != "DELETE /webhooks/a" {
		t.Errorf("%v, asked %s", err, asked)
	}
}
