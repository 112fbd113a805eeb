package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	apievents "github.com/buoy-edge/buoy/api/events"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/egress"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/inventory"
	"github.com/buoy-edge/buoy/node/webhooks"
)

// eventsConfig is what the configuration says of who is told what happens.
type eventsConfig struct {
	hooks []webhooks.Hook // their secrets are those of files, "@FILE"
	allow []netip.Prefix
}

const webhookAllow = "webhook-allow"

func (c *eventsConfig) register(f *flag.FlagSet) {
	f.Var(several(&c.hooks, readWebhook), "webhook", "`webhook` that is told of events: name=NAME,url=URL,secret=@FILE, and any number of type=TYPE, container=NAME and image=REF; may be repeated")
	f.Var(several(&c.allow, readPrefix), webhookAllow, "`prefix` of addresses on loopback or link-local that webhooks may have; may be repeated")
}

// anywhere are rules for a look at what is written alone.
func anywhere() egress.Rules {
	return egress.Rules{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
}

func readWebhook(s string) (h webhooks.Hook, err error) {
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return h, fmt.Errorf("%q in it is not KEY=VALUE", field)
		}
		switch key {
		case "name":
			h.Name = value
		case "url":
			h.URL = value
		case "secret":
			h.Secret = value
		case "type":
			h.Types = append(h.Types, value)
		case "container":
			h.Containers = append(h.Containers, value)
		case "image":
			h.Images = append(h.Images, apievents.Images([]string{value})...)
		default:
			return h, fmt.Errorf("it has %q, and takes name, url, secret, type, container and image", key)
		}
	}
	if len(h.Secret) < 2 || h.Secret[0] != '@' {
		return h, errors.New("its secret must be that of a file, @FILE")
	}
	looked := h
	looked.Secret = webhooks.NewSecret()
	return h, looked.Validate(anywhere())
}

// withSecrets are the webhooks with what is in the files.
func (c *eventsConfig) withSecrets() ([]webhooks.Hook, error) {
	all := slices.Clone(c.hooks)
	for i := range all {
		text, err := os.ReadFile(all[i].Secret[1:])
		if err != nil {
			return nil, fmt.Errorf("webhook %s: read its secret: %w", all[i].Name, err)
		}
		all[i].Secret = strings.TrimSpace(string(text))
	}
	return all, nil
}

// told is the log of events, and who is told of them.
type told struct {
	id    string // of the node
	log   *events.Log
	hooks *webhooks.Hooks
	api   *apievents.Dialect

	reached *atomic.Bool // the controller answers
}

// newTold makes it. Nothing has been started when it returns.
func newTold(cfg config, store webhooks.Store, keys *seal.Keys, log *slog.Logger) (t told, err error) {
	t.reached = new(atomic.Bool)
	if t.id = cfg.nodeID; t.id == "" {
		if t.id, err = (inventory.FS{}).NodeID(); err != nil {
			return t, err
		}
	}
	if t.log, err = events.Open(events.Config{Dir: filepath.Join(cfg.data, "events"), Source: "/nodes/" + t.id, Log: log}); err != nil {
		return t, err
	}
	hooks, err := cfg.events.withSecrets()
	if err != nil {
		return t, err
	}
	t.hooks, err = webhooks.New(webhooks.Config{
		Events: t.log, Store: store, Keys: keys, Configured: hooks, Rules: egress.Rules{Allow: cfg.events.allow, Flag: "--" + webhookAllow}, Log: log,
	})
	if err != nil {
		return t, err
	}
	t.api, err = apievents.New(apievents.Config{Log: t.log, Webhooks: t.hooks, Logger: log, Shared: cfg.fleet.controller == self})
	return t, err
}

// keep writes what is emitted until the function that it gives is called.
func (t *told) keep(ctx context.Context, log *slog.Logger) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := t.log.Run(ctx); err != nil {
			log.Error("events are not all on the disk", "error", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// untilStopped is ctx, but that it ends a moment later: when it has been told
// that the daemon stops.
func (t *told) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	undo := context.AfterFunc(ctx, func() {
		t.log.Emit(ctx, events.Event{Type: events.NodeStopping})
		t.log.Flush()
		cancel(context.Cause(ctx))
	})
	return running, func() { undo(); cancel(nil) }
}

// by says in events that what h is asked for is done by somebody else than a
// client.
func by(a events.Actor, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(events.By(r.Context(), a)))
	})
}

// controllerSeen tells that the controller answers, or why not.
func (t *told) controllerSeen(ctx context.Context, url string, err error) {
	t.reached.Store(err == nil)
	e := events.Event{Type: events.ControllerFound, Data: events.Data{Attributes: map[string]string{"controller": url}}}
	if err != nil {
		e.Type, e.Data.Message = events.ControllerLost, err.Error()
	}
	t.log.Emit(ctx, e)
}

// fleetTypes are the types of what happens to apps.
var fleetTypes = map[app.EventType]events.Type{
	app.Rescale: events.AppScaling, app.HealthOf: events.AppHealth, app.Configured: events.AppConfig,
	app.Trouble: events.AppError, app.Life: events.AppLifecycle, app.OfHost: events.HostChanged,
}

// follow adds what happens to a controller's apps and hosts to the events of its
// node, until ctx ends.
func (t *told) follow(engine *app.Engine) func(ctx context.Context) error {
	ch, stop := engine.Subscribe() // before anything can happen
	return func(ctx context.Context) error {
		defer func() { stop() }()
		for {
			select {
			case e, open := <-ch:
				if open {
					t.log.Emit(ctx, fleetEvent(*e))
					continue
				}
				ch, stop = engine.Subscribe()
				t.log.Emit(ctx, events.Event{Type: events.Gap, Data: events.Data{Reason: "Overflow", Message: "events of apps and hosts came faster than they could be taken"}})
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func fleetEvent(e app.Event) events.Event {
	out := events.Event{Type: fleetTypes[e.Type], Source: "/api/v1", Subject: "apps/" + e.App, Time: e.Time, Data: events.Data{
		Actor: events.Actor{Kind: events.ByController}, Message: e.Message, Attributes: map[string]string{},
	}}
	if e.App == "" {
		out.Source, out.Subject = "/host/"+e.Host, ""
		if e.Type == app.Trouble {
			out.Type = events.HostError
		}
	}
	for k, v := range e.Details {
		switch v.(type) {
		case string, bool, int, int64, uint64, float64:
			out.Data.Attributes[k] = fmt.Sprint(v)
		}
	}
	for k, v := range map[string]string{"app": e.App, "host": e.Host, "replica": e.Replica} {
		if v != "" {
			out.Data.Attributes[k] = v
		}
	}
	if reason, ok := e.Details["reason"].(string); ok && !strings.Contains(reason, " ") {
		out.Data.Reason = reason
		delete(out.Data.Attributes, "reason")
	}
	return out
}
