package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// fakeUpgrades takes any bundle; one that says "bad" is not healthy.
type fakeUpgrades struct {
	mu    sync.Mutex // guards all
	state buoy.UpgradeState
	next  []buoy.UpgradeState // what it is in the answers to come
}

func (u *fakeUpgrades) serve(mux *http.ServeMux) {
	u.state = buoy.UpgradeState{Version: "v1.0.0", Installed: "v1.0.0", Phase: "idle"}
	mux.HandleFunc("GET /nodes/{node}/upgrade", func(w http.ResponseWriter, _ *http.Request) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if len(u.next) > 0 {
			u.state, u.next = u.next[0], u.next[1:]
		}
		_ = json.NewEncoder(w).Encode(u.state)
	})
	mux.HandleFunc("POST /nodes/{node}/upgrade", u.take)
	mux.HandleFunc("DELETE /nodes/{node}/upgrade", func(w http.ResponseWriter, _ *http.Request) { fail(w, 404, "nothing is being fetched") })
}

func (u *fakeUpgrades) take(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	text := strings.TrimSpace(string(body)) + " " + r.URL.Query().Get("window")
	if strings.HasPrefix(text, "unsigned") {
		fail(w, 400, "the bundle is not signed by anybody whom this node trusts")
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	trial := u.state
	trial.Phase, trial.Trial = "trial", &buoy.UpgradeTrial{Version: "v2.0.0", From: u.state.Version, Window: 60, Boots: 1}
	end := u.state
	end.Version = "v2.0.0"
	end.Last = &buoy.UpgradeOutcome{Version: "v2.0.0", From: "v1.0.0", Result: "confirmed", Reason: "Healthy", Message: "healthy, " + strings.TrimSpace(text), Time: time.Now()}
	if strings.HasPrefix(text, "bad") {
		end.Version, end.Last.Result, end.Last.Reason = u.state.Version, "failed", "Exited"
	}
	u.next = []buoy.UpgradeState{trial, end}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(u.state)
}
