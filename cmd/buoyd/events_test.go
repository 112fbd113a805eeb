package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/webhooks"
)

func TestReadWebhook(t *testing.T) {
	got, err := readWebhook("name=ops,url=https://ops.example/x?a=b,secret=@/k,type=container,type=image.pulled,container=web,image=nginx")
	want := webhooks.Hook{
		Name: "ops", URL: "https://ops.example/x?a=b", Secret: "@/k", Types: []string{"container", "image.pulled"},
		Containers: []string{"web"}, Images: []string{"docker.io/library/nginx:latest"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	for want, text := range map[string]string{
		"is not KEY=VALUE":              "ops",
		"takes name, url, secret":       "name=a,url=http://h,secret=@k,colour=red",
		"its secret must be":            "name=a,url=http://h,secret=plain",
		"a name has":                    "url=http://h,secret=@k",
		"must begin with http":          "name=a,url=h,secret=@k",
		`"party" is no type of event`:   "name=a,url=http://h,secret=@k,type=party",
		"its secret must be that of a ": "name=a,url=http://h",
	} {
		if _, err := readWebhook(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestSecretsOfWebhooks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	c := eventsConfig{hooks: []webhooks.Hook{{Name: "a", Secret: "@" + file}}}
	if _, err := c.withSecrets(); err == nil || !strings.Contains(err.Error(), "webhook a: read its secret") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(file, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.withSecrets()
	if err != nil || got[0].Secret != "hush" || c.hooks[0].Secret != "@"+file {
		t.Errorf("%v, %v, and the configuration is %v", got, err, c.hooks)
	}
}

// TestFleetEvent: what happens to apps and hosts, in the words of the node's log.
func TestFleetEvent(t *testing.T) {
	now := time.Unix(5, 0)
	for _, tt := range []struct {
		in   app.Event
		want events.Event
	}{
		{
			app.Event{
				Time: now, Type: app.Trouble, App: "web", Host: "h1", Replica: "r1", Message: "it failed",
				Details: map[string]any{"exit_code": 3, "reason": "OOMKilled", "list": []string{"not told"}},
			},
			events.Event{Type: events.AppError, Source: "/api/v1", Subject: "apps/web", Time: now, Data: events.Data{
				Actor: events.Actor{Kind: events.ByController}, Reason: "OOMKilled", Message: "it failed",
				Attributes: map[string]string{"exit_code": "3", "app": "web", "host": "h1", "replica": "r1"},
			}},
		},
		{
			app.Event{Time: now, Type: app.OfHost, Host: "h1", Message: "Host mode is draining", Details: map[string]any{"reason": "a new fan"}},
			events.Event{Type: events.HostChanged, Source: "/host/h1", Time: now, Data: events.Data{
				Actor: events.Actor{Kind: events.ByController}, Message: "Host mode is draining", Attributes: map[string]string{"reason": "a new fan", "host": "h1"},
			}},
		},
		{
			app.Event{Time: now, Type: app.Trouble, Host: "h1", Message: "Alert"},
			events.Event{Type: events.HostError, Source: "/host/h1", Time: now, Data: events.Data{
				Actor: events.Actor{Kind: events.ByController}, Message: "Alert", Attributes: map[string]string{"host": "h1"},
			}},
		},
	} {
		if diff := cmp.Diff(tt.want, fleetEvent(tt.in)); diff != "" {
			t.Errorf("%+v: -want +got\n%s", tt.in, diff)
		}
	}
	for _, typ := range []app.EventType{app.Rescale, app.HealthOf, app.Configured, app.Trouble, app.Life, app.OfHost} {
		if !fleetTypes[typ].Fleet() {
			t.Errorf("%s is %q", typ, fleetTypes[typ])
		}
	}
}
