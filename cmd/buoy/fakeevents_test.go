package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// eventRoutes has four events. A stream that is followed is cut off after two,
// and ends after all of them when it goes on there.
func (f *fakeNode) eventRoutes(mux *http.ServeMux) {
	code := 137
	all := []buoy.NodeEvent{
		{Type: "container.started", Subject: "containers/web", Data: buoy.NodeEventData{Actor: buoy.Actor{Kind: "api", Request: "r1", Peer: "uid 0, pid 7"}}},
		{Type: "container.exited", Subject: "containers/web", Data: buoy.NodeEventData{Actor: buoy.Actor{Kind: "node"}, Reason: "OOMKilled", Message: "restart\nin 100ms", ExitCode: &code}},
		{Type: "gap", Data: buoy.NodeEventData{Actor: buoy.Actor{Kind: "node"}, Reason: "Dropped", Attributes: map[string]string{"missing": "7"}}},
		{Type: "container.started", Subject: "containers/web", Data: buoy.NodeEventData{Actor: buoy.Actor{Kind: "node", Name: "restart policy"}}},
	}
	for i := range all {
		all[i].ID, all[i].SpecVersion, all[i].Source = fmt.Sprintf("e-%d", i+1), "1.0", "/nodes/525400123456"
		all[i].Time = newYear.AddDate(0, 0, i)
	}
	stream := func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("type") == "party" {
			fail(w, 400, `parameter type: "party" is no type of event`)
			return
		}
		send := all
		if q.Has("follow") {
			send = all[:2]
			if q.Get("after") != "" {
				send = all[2:]
			}
		}
		for _, e := range send {
			_ = json.NewEncoder(w).Encode(e)
		}
		_ = http.NewResponseController(w).Flush()
		if q.Has("follow") && q.Get("after") == "" {
			panic(http.ErrAbortHandler)
		}
	}
	mux.HandleFunc("GET /events", stream)
	mux.HandleFunc("GET /nodes/{node}/events", stream)

	mux.HandleFunc("GET /webhooks", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		list := []buoy.Webhook{}
		for _, name := range slices.Sorted(maps.Keys(f.webhooks)) {
			list = append(list, f.webhooks[name])
		}
		answer(w, 200, list)
	})
	mux.HandleFunc("POST /webhooks", f.putWebhook)
	mux.HandleFunc("PUT /webhooks/{name}", f.putWebhook)
	mux.HandleFunc("GET /webhooks/{name}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		hook, ok := f.webhooks[r.PathValue("name")]
		if !ok {
			fail(w, 404, fmt.Sprintf("there is no webhook %q", r.PathValue("name")))
			return
		}
		answer(w, 200, hook)
	})
	mux.HandleFunc("DELETE /webhooks/{name}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.webhooks, r.PathValue("name"))
		w.WriteHeader(204)
	})
}

func (f *fakeNode) putWebhook(w http.ResponseWriter, r *http.Request) {
	var hook buoy.Webhook
	if err := json.NewDecoder(r.Body).Decode(&hook); err != nil {
		fail(w, 400, err.Error())
		return
	}
	hook.Name += strings.TrimPrefix(r.PathValue("name"), hook.Name)
	hook.Status = buoy.WebhookStatus{State: "retrying", Delivered: 3, Dead: 1, Missed: 2, Behind: 4, LastError: "it answered 500"}
	given := hook.Secret
	hook.Secret = ""
	f.mu.Lock()
	defer f.mu.Unlock()
	f.webhooks[hook.Name] = hook
	if given == "" && r.Method == http.MethodPost {
		hook.Secret = "whsec_made"
	}
	answer(w, map[string]int{http.MethodPost: 201, http.MethodPut: 200}[r.Method], hook)
}
