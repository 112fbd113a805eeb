package apps

import (
	"net/http"
	"net/netip"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
)

// group is what the document counts and filters by; a state that it does not
// know is in none.
func group(s app.Status) string {
	switch s {
	case app.Up, app.Degraded:
		return string(app.Up)
	case app.Down, app.Completed:
		return string(app.Down)
	case app.Failing:
		return string(app.Failing)
	default:
		return string(s)
	}
}

// totals are how many apps are in each group.
type totals struct {
	Total    int `json:"total"`
	Running  int `json:"running"`
	Stopped  int `json:"stopped"`
	Error    int `json:"error"`
	Starting int `json:"starting"` // ours
}

func (t *totals) add(s app.Status, n int) {
	t.Total += n
	switch group(s) {
	case string(app.Up):
		t.Running += n
	case string(app.Down):
		t.Stopped += n
	case string(app.Failing):
		t.Error += n
	default:
		t.Starting += n
	}
}

// listItem is an app in the list.
type listItem struct {
	Name      string       `json:"name"`
	Status    string       `json:"status"`
	Replicas  listReplicas `json:"replicas"`
	Image     string       `json:"image"`
	CreatedAt string       `json:"created_at"`

	// Ours.
	Kind    string `json:"kind"`
	Mode    string `json:"mode"`
	Origin  string `json:"origin"`
	Message string `json:"message,omitempty"` // why it is not well
}

type listReplicas struct {
	Current int `json:"current"`
	Desired int `json:"desired"`
	Ready   int `json:"ready"` // ours
}

func listItemOf(v app.View) listItem {
	s := v.App.Spec()
	return listItem{
		Name: v.App.Name, Status: string(v.Status), Image: s.Container.Flist, CreatedAt: stamp(v.App.Created),
		Replicas: listReplicas{Current: v.Current, Desired: v.Desired, Ready: v.Ready},
		Kind:     string(s.Kind), Mode: string(v.App.Scaling.Mode), Origin: v.App.Origin, Message: v.Message,
	}
}

// briefItem is an app in the summary.
type briefItem struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

// appList is all apps.
type appList struct {
	Apps []listItem `json:"apps"`
	totals
}

// briefList is all apps in short.
type briefList struct {
	Apps []briefItem `json:"apps"`
	totals
}

// listApps answers with all apps. The counts are of all, also with a filter,
// which takes the three words of the document and our finer ones.
func (d *Dialect) listApps(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	want, err := statusIn(q.Get("status"))
	if err != nil {
		return err
	}
	summary := false
	switch format := q.Get("format"); format {
	case "", "json":
	case "summary":
		summary = true
	default:
		return invalidf("parameter format is %q; it must be json or summary", format)
	}
	var sums totals
	items, brief := []listItem{}, []briefItem{}
	limits := auth.Of(r.Context()).Limits
	for _, v := range d.engine.Apps() {
		if !limits.App(v.App.Name) {
			continue
		}
		sums.add(v.Status, 1)
		if want != "" && string(v.Status) != want && group(v.Status) != want {
			continue
		}
		items = append(items, listItemOf(v))
		brief = append(brief, briefItem{v.App.Name, string(v.Status)})
	}
	if summary {
		api.JSON(w, http.StatusOK, briefList{brief, sums})
		return nil
	}
	api.JSON(w, http.StatusOK, appList{items, sums})
	return nil
}

func statusIn(text string) (string, error) {
	switch app.Status(text) {
	case "", app.Up, app.Down, app.Failing, app.Pending, app.Degraded, app.Completed:
		return text, nil
	}
	return "", invalidf("parameter status is %q; it must be running, stopped, error, starting, degraded or completed", text)
}

// appObject is an app.
type appObject struct {
	Name         string         `json:"name"`
	Status       string         `json:"status"`
	Replicas     replicaCounts  `json:"replicas"`
	Metrics      metrics        `json:"metrics"`
	CreatedAt    string         `json:"created_at"`
	UpdatedAt    string         `json:"updated_at"`
	LastScaledAt *string        `json:"last_scaled_at"` // null: never
	Containers   []appContainer `json:"containers"`

	// Ours.
	Kind     string            `json:"kind"`
	Mode     string            `json:"mode"`
	Image    string            `json:"image"`
	Origin   string            `json:"origin"`
	Labels   map[string]string `json:"labels,omitempty"`
	Reason   string            `json:"reason,omitempty"`  // a word, while not all is well
	Message  string            `json:"message,omitempty"` // and a sentence
	Rollout  rollout           `json:"rollout"`
	Unplaced []hostReason      `json:"unplaced,omitempty"` // why hosts take no more
}

type replicaCounts struct {
	Current int `json:"current"`
	Desired int `json:"desired"`
	Healthy int `json:"healthy"`
	Standby int `json:"standby"` // ours
	Missing int `json:"missing"` // ours: that no host takes
}

// appContainer is a replica.
type appContainer struct {
	ID        string  `json:"id"` // of the launch, which events have, too
	Name      string  `json:"name"`
	IP        string  `json:"ip"`
	Port      uint16  `json:"port"`
	Status    string  `json:"status"`
	Health    string  `json:"health"`
	StartedAt *string `json:"started_at"` // null: not yet

	// Ours.
	Host      string   `json:"host"`
	Container string   `json:"container,omitempty"` // its name on the host
	Endpoints []string `json:"endpoints"`           // where its ports are published
	Revision  int      `json:"revision"`
	Restarts  int      `json:"restarts"`
	ExitCode  *int     `json:"exit_code,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Message   string   `json:"message,omitempty"`
}

func (d *Dialect) getApp(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	s := v.App.Spec()
	o := appObject{
		Name: v.App.Name, Status: string(v.Status),
		Replicas:  replicaCounts{Current: v.Current, Desired: v.Desired, Healthy: v.Ready, Standby: v.Standby, Missing: v.Missing},
		Metrics:   metricsOf(v.Sample),
		CreatedAt: stamp(v.App.Created), UpdatedAt: stamp(v.App.Updated), LastScaledAt: stampOrNull(v.App.Scaled.At),
		Containers: make([]appContainer, len(v.Replicas)),
		Kind:       string(s.Kind), Mode: string(v.App.Scaling.Mode), Image: s.Container.Flist, Origin: v.App.Origin, Labels: s.Labels,
		Reason: v.Reason, Message: v.Message, Rollout: rolloutOf(&v),
	}
	for i := range v.Replicas {
		o.Containers[i] = containerOf(&v.Replicas[i], mainPort(s))
	}
	if v.Missing > 0 {
		o.Unplaced = each(v.Unplaced, func(h app.WhyNot) hostReason { return hostReason{Host: h.Host, Name: h.Name, Reason: h.Reason} })
	}
	api.JSON(w, http.StatusOK, o)
	return nil
}

// mainPort is the port of an app that is shown where one can be; 0: it has none.
func mainPort(s *app.Spec) uint16 {
	if len(s.Ports) == 0 {
		return 0
	}
	return s.Ports[0].Container
}

func containerOf(r *app.Replica, port uint16) appContainer {
	c := appContainer{
		ID: r.ID, Name: r.Name(), IP: r.Address, Port: port, Status: statusOf(r), Health: healthOf(r), StartedAt: stampOrNull(r.Started),
		Host: r.Host, Container: r.Seen.Name, Endpoints: []string{}, Revision: r.Revision, Restarts: r.Restarts, Reason: r.Reason, Message: r.Message,
	}
	if c.Message == "" {
		c.Message = r.Why
	}
	if r.Phase == app.Ended || r.Phase == app.Failed {
		c.ExitCode = &r.ExitCode
	}
	for _, at := range published(r) {
		c.Endpoints = append(c.Endpoints, at.String())
	}
	return c
}

// published are the addresses of a replica's ports, by port.
func published(r *app.Replica) (at []netip.AddrPort) {
	for _, port := range sortedKeys(r.Ports) {
		at = append(at, r.Ports[port])
	}
	return at
}

// statusOf is what a replica does, in a word.
func statusOf(r *app.Replica) string {
	switch {
	case !r.Away.IsZero():
		return "lost"
	case !r.Stopped.IsZero() && r.Phase != app.Ended && r.Phase != app.Failed && r.Phase != app.Gone:
		return "stopping"
	}
	switch r.Phase {
	case app.Ordered:
		return "creating"
	case app.Ended, app.Gone:
		return "exited"
	case app.Starting, app.Waiting, app.Running, app.Failed:
		return string(r.Phase)
	}
	return string(r.Phase)
}

// healthOf is how a replica is. Without a check, who runs is well.
func healthOf(r *app.Replica) string {
	switch {
	case r.Seen.Health == "unhealthy":
		return "unhealthy"
	case r.Phase == app.Running && !r.Well.IsZero():
		return "healthy"
	}
	return "unknown"
}
