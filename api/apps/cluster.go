package apps

import (
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/version"
)

// There is one controller, which is the leader from its start on: what the
// document says of several is answered for a cluster of one.

const (
	term      = 1
	leaseTime = 30 * time.Second // as Orchestry's; it is renewed by each answer
)

// clusterNode is a controller.
type clusterNode struct {
	NodeID    string  `json:"node_id"`
	Hostname  string  `json:"hostname"`
	State     string  `json:"state"`
	Healthy   bool    `json:"is_healthy"`
	Heartbeat float64 `json:"last_heartbeat"`
}

// lease is what makes a controller the leader.
type lease struct {
	LeaderID string  `json:"leader_id"`
	Term     int     `json:"term"`
	Acquired float64 `json:"acquired_at"`
	Expires  float64 `json:"expires_at"`
	Renewed  float64 `json:"renewed_at"`
	Hostname string  `json:"hostname"`
	URL      string  `json:"api_url"`
}

// clusterObject is the controllers.
type clusterObject struct {
	NodeID   string        `json:"node_id"`
	Hostname string        `json:"hostname"`
	State    string        `json:"state"` // "leader"; "candidate" until it knows its apps
	Term     int           `json:"term"`
	IsLeader bool          `json:"is_leader"`
	LeaderID *string       `json:"leader_id"` // null: none
	Size     int           `json:"cluster_size"`
	Nodes    []clusterNode `json:"nodes"`
	Lease    *lease        `json:"lease"` // null: none
}

// apiURL is where the client has found us.
func apiURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func (d *Dialect) clusterStatus(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	id, host := d.cfg.Node, d.cfg.Hostname
	o := clusterObject{NodeID: id, Hostname: host, State: "candidate", Term: term, Size: 1}
	if d.cfg.Ready() {
		o.State, o.IsLeader, o.LeaderID = "leader", true, &id
		o.Lease = &lease{
			LeaderID: id, Term: term, Acquired: unix(d.start), Expires: unix(now.Add(leaseTime)), Renewed: unix(now), Hostname: host, URL: apiURL(r),
		}
	}
	o.Nodes = []clusterNode{{NodeID: id, Hostname: host, State: o.State, Healthy: true, Heartbeat: unix(now)}}
	api.JSON(w, http.StatusOK, o)
	return nil
}

// leaderObject is who leads.
type leaderObject struct {
	LeaderID string  `json:"leader_id"`
	Hostname string  `json:"hostname"`
	URL      string  `json:"api_url"`
	Term     int     `json:"term"`
	Expires  float64 `json:"lease_expires_at"`
}

func (d *Dialect) clusterLeader(w http.ResponseWriter, r *http.Request) error {
	if !d.cfg.Ready() {
		answer(w, noLeader, errorObject{})
		return nil
	}
	api.JSON(w, http.StatusOK, leaderObject{d.cfg.Node, d.cfg.Hostname, apiURL(r), term, unix(time.Now().Add(leaseTime))})
	return nil
}

// loneHealth is how a cluster of one is.
type loneHealth struct {
	Status     string  `json:"status"`
	Clustering string  `json:"clustering"`
	Timestamp  float64 `json:"timestamp"`
	Version    string  `json:"version"`
}

// clusterHealth is the document's answer of a single node.
func (d *Dialect) clusterHealth(w http.ResponseWriter, _ *http.Request) error {
	status := healthy
	if !d.cfg.Ready() {
		status = "degraded"
	}
	api.JSON(w, http.StatusOK, loneHealth{status, "disabled", unix(time.Now()), version.Version})
	return nil
}

// needsLeader refuses changes while the engine does not know its apps.
func (d *Dialect) needsLeader(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !d.cfg.Ready() {
			w.Header().Set("Retry-After", "1")
			answer(w, notReady, errorObject{})
			return
		}
		next.ServeHTTP(w, r)
	})
}
