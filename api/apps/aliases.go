package apps

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// The answers of Orchestry's code, which its command line and its users know.
// They differ from the document's in shape, not in what is done. Where the code
// lost data (a second registration, a policy without all fields) we do not.

// aliasRegister takes in a new app, or gives one that is there a new revision;
// nothing is started or stopped by it.
func (d *Dialect) aliasRegister(w http.ResponseWriter, r *http.Request) error {
	m, err := d.oneManifest(w, r)
	if err != nil {
		return err
	}
	message := "App registered successfully"
	_, err = d.engine.Create(r.Context(), m.Spec, m.Source, dialect)
	if errors.Is(err, errs.Exists) {
		message = "App updated successfully"
		_, err = d.engine.Update(r.Context(), m.Spec, m.Source)
	}
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, struct {
		Status  string `json:"status"`
		App     string `json:"app"`
		Message string `json:"message"`
	}{"registered", m.Spec.Name, message})
	return nil
}

func (d *Dialect) aliasList(w http.ResponseWriter, _ *http.Request) error {
	api.JSON(w, http.StatusOK, struct {
		Apps []listItem `json:"apps"`
	}{each(d.engine.Apps(), listItemOf)})
	return nil
}

func (d *Dialect) aliasRemove(w http.ResponseWriter, r *http.Request) error {
	name := api.Param(r, "app")
	if _, err := d.remove(r.Context(), name, false, false); err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, struct {
		Status  string `json:"status"`
		App     string `json:"app"`
		Message string `json:"message"`
	}{"deleted", name, "App deleted successfully"})
	return nil
}

// aliasUp starts an app and does not wait.
func (d *Dialect) aliasUp(w http.ResponseWriter, r *http.Request) error {
	name := api.Param(r, "app")
	before, err := d.engine.App(name)
	if err != nil {
		return err
	}
	if _, err := d.engine.Start(r.Context(), name, -1); err != nil {
		return d.whyNot(name, err)
	}
	v, err := d.placed(r.Context(), name)
	if err == nil {
		err = crowded(v)
	}
	if err != nil {
		return err
	}
	adopted := min(before.Current, v.Desired)
	api.JSON(w, http.StatusOK, struct {
		Status   string `json:"status"`
		App      string `json:"app"`
		Replicas int    `json:"replicas"`
		Adopted  int    `json:"adopted"` // that ran already
		Started  int    `json:"started"`
	}{"started", name, v.Desired, adopted, v.Desired - adopted})
	return nil
}

func (d *Dialect) aliasDown(w http.ResponseWriter, r *http.Request) error {
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	if err := d.stop(r.Context(), name, false, ownGrace(v)); err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, struct {
		Status  string `json:"status"`
		App     string `json:"app"`
		Stopped int    `json:"containers_stopped"`
	}{"stopped", name, len(present(v))})
	return nil
}

func (d *Dialect) aliasScale(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[struct {
		Replicas *int `json:"replicas"`
	}](w, r)
	if err != nil {
		return err
	}
	if b.Replicas == nil || *b.Replicas < 0 || *b.Replicas > 100 {
		return invalidf("field \"replicas\" must be a number from 0 to 100")
	}
	name := api.Param(r, "app")
	from, err := d.engine.Scale(r.Context(), name, *b.Replicas, "requested through the API", true)
	if err != nil {
		return d.whyNot(name, err)
	}
	status := "scaled"
	if from == *b.Replicas {
		status = "no_change"
	}
	api.JSON(w, http.StatusOK, struct {
		Status   string `json:"status"`
		App      string `json:"app"`
		Replicas int    `json:"replicas"`
	}{status, name, *b.Replicas})
	return nil
}

// aliasInstance is a replica.
type aliasInstance struct {
	ContainerID string  `json:"container_id"` // its first 12 characters
	IP          string  `json:"ip"`
	Port        uint16  `json:"port"`
	State       string  `json:"state"` // "ready", "draining", "down"
	CPU         float64 `json:"cpu_percent"`
	Memory      float64 `json:"memory_percent"` // of its limit; 0: it has none
	Failures    int     `json:"failures"`
}

func aliasInstanceOf(r *app.Replica, s *app.Spec) aliasInstance {
	id := orElse(r.Seen.ID, r.ID)
	o := aliasInstance{
		ContainerID: id[:min(12, len(id))], IP: r.Address, Port: mainPort(s), State: "down", CPU: round(r.Seen.CPU), Failures: r.Seen.Failures,
	}
	if limit := s.Container.Limits.Memory; limit > 0 {
		o.Memory = round(100 * float64(r.Seen.Memory) / float64(limit))
	}
	switch {
	case !r.Stopped.IsZero() && r.Phase == app.Running:
		o.State = "draining"
	case r.Ready():
		o.State = "ready"
	}
	return o
}

func (d *Dialect) aliasStatus(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	instances := make([]aliasInstance, 0, len(v.Replicas))
	for i := range v.Replicas {
		instances = append(instances, aliasInstanceOf(&v.Replicas[i], v.App.Spec()))
	}
	status := string(v.Status)
	if v.Status == app.Pending || v.Status == app.Failing {
		status = string(app.Degraded) // of the three that the code knows
	}
	if v.Status == app.Completed {
		status = string(app.Down)
	}
	api.JSON(w, http.StatusOK, struct {
		App       string          `json:"app"`
		Status    string          `json:"status"`
		Replicas  int             `json:"replicas"`
		Ready     int             `json:"ready_replicas"`
		Instances []aliasInstance `json:"instances"`
		Mode      string          `json:"mode"`
	}{v.App.Name, status, v.Current, v.Ready, instances, string(v.App.Scaling.Mode)})
	return nil
}

func (d *Dialect) aliasRaw(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	source, full, err := d.manifestsOf(&v.App)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, struct {
		Name   string                     `json:"name"`
		Raw    map[string]json.RawMessage `json:"raw"`    // as it was given
		Parsed map[string]json.RawMessage `json:"parsed"` // with all defaults
	}{v.App.Name, source, full})
	return nil
}

// aliasScaleEvent is a change of the number of replicas.
type aliasScaleEvent struct {
	ID        int64          `json:"id"`
	AppName   string         `json:"app_name"`
	From      any            `json:"from_replicas"`
	To        any            `json:"to_replicas"`
	Reason    string         `json:"trigger_reason"`
	Snapshot  map[string]any `json:"metrics_snapshot"`
	Timestamp string         `json:"timestamp"`
}

func (d *Dialect) aliasMetrics(w http.ResponseWriter, r *http.Request) error {
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	events, _, err := d.engine.Events(r.Context(), app.EventQuery{App: name, Type: app.Rescale, Limit: 20})
	if err != nil {
		return as(databaseError, err)
	}
	history := each(events, func(e app.Event) aliasScaleEvent {
		o := eventOf(e)
		return aliasScaleEvent{
			ID: e.ID, AppName: e.App, From: o.Details["previous_replicas"], To: o.Details["new_replicas"], Reason: e.Message,
			Snapshot: o.Details, Timestamp: o.Timestamp,
		}
	})
	api.JSON(w, http.StatusOK, struct {
		App     string            `json:"app"`
		Metrics currentMetrics    `json:"metrics"`
		History []aliasScaleEvent `json:"scaling_history"`
	}{name, currentOf(v.Sample), history})
	return nil
}

// aliasEvent is something that happened.
type aliasEvent struct {
	ID        int64          `json:"id"`
	AppName   string         `json:"app_name"`
	Type      string         `json:"event_type"`
	Message   string         `json:"message"`
	Timestamp string         `json:"timestamp"`
	Details   map[string]any `json:"details"`
}

// aliasEvents answers with the newest events of apps and hosts, unless it is
// asked in words that Orchestry has not: then with those of the node, too, one
// after the other.
func (d *Dialect) aliasEvents(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if d.cfg.Events != nil && (slices.ContainsFunc(streamParams, q.Has) || streamed(r.Header.Get("Accept"))) {
		d.cfg.Events.ServeHTTP(w, r)
		return nil
	}
	limit, err := count(q, "limit", eventsDefault, eventsMost)
	if err != nil {
		return err
	}
	events, _, err := d.engine.Events(r.Context(), app.EventQuery{App: q.Get("app"), Limit: max(1, limit)})
	if err != nil {
		return as(databaseError, err)
	}
	api.JSON(w, http.StatusOK, struct {
		Events []aliasEvent `json:"events"`
	}{each(events, func(e app.Event) aliasEvent {
		o := eventOf(e)
		return aliasEvent{ID: o.ID, AppName: o.AppName, Type: o.Type, Message: o.Message, Timestamp: o.Timestamp, Details: o.Details}
	})})
	return nil
}

// streamParams are parameters of the stream of events that Orchestry has not.
var streamParams = []string{"follow", "since", "until", "after", "type", "container", "image"}

func streamed(accept string) bool {
	return strings.Contains(accept, "application/x-ndjson") || strings.Contains(accept, "text/event-stream")
}

// aliasLog is a line of a replica.
type aliasLog struct {
	Timestamp float64 `json:"timestamp"` // seconds since 1970
	Container string  `json:"container"`
	Full      string  `json:"container_full"` // its id
	Message   string  `json:"message"`
}

func (d *Dialect) aliasLogs(w http.ResponseWriter, r *http.Request) error {
	lines, err := count(r.URL.Query(), "lines", tailDefault, tailMost)
	if err != nil {
		return err
	}
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	l, err := d.collect(r.Context(), v, logParams{tail: lines})
	if err != nil {
		return err
	}
	slices.Reverse(l.lines)
	api.JSON(w, http.StatusOK, struct {
		App        string     `json:"app"`
		Containers int        `json:"total_containers"`
		Logs       []aliasLog `json:"logs"`
	}{v.App.Name, len(v.Replicas), each(l.lines, func(one line) aliasLog {
		return aliasLog{
			Timestamp: unix(one.Time), Container: one.replica.Name(), Full: orElse(one.replica.Seen.ID, one.replica.ID), Message: one.Text,
		}
	})})
	return nil
}

// aliasPolicyBody has the fields of a policy as manifests spell them.
type aliasPolicyBody struct {
	Min           *int     `json:"minReplicas,omitempty"`
	Max           *int     `json:"maxReplicas,omitempty"`
	RPS           *float64 `json:"targetRPSPerReplica,omitempty"`
	P95           *float64 `json:"maxP95LatencyMs,omitempty"`
	CPU           *float64 `json:"maxCPUPercent,omitempty"`
	Memory        *float64 `json:"maxMemoryPercent,omitempty"`
	Connections   *float64 `json:"maxConnPerReplica,omitempty"`
	OutPct        *float64 `json:"scaleOutThresholdPct,omitempty"`
	InPct         *float64 `json:"scaleInThresholdPct,omitempty"`
	Window        *float64 `json:"windowSeconds,omitempty"`
	Cooldown      *float64 `json:"cooldownSeconds,omitempty"`
	Stabilization *float64 `json:"stabilizationWindowSeconds,omitempty"`
	Mode          *string  `json:"mode,omitempty"`
}

func (d *Dialect) aliasPolicy(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[struct {
		Policy *aliasPolicyBody `json:"policy"`
	}](w, r)
	if err != nil {
		return err
	}
	if b.Policy == nil {
		return invalidf("field \"policy\" is missing")
	}
	p := *b.Policy
	name := api.Param(r, "app")
	_, s, err := d.changePolicy(r, name, policyChange{
		Mode: p.Mode, Min: p.Min, Max: p.Max, RPS: p.RPS, P95: p.P95, CPU: p.CPU, Memory: p.Memory, Connections: p.Connections,
		OutPct: p.OutPct, InPct: p.InPct, Window: p.Window, Cooldown: p.Cooldown, Stabilization: p.Stabilization,
	})
	if err != nil {
		return err
	}
	o := policyOf(s)
	api.JSON(w, http.StatusOK, struct {
		Status string          `json:"status"`
		App    string          `json:"app"`
		Policy aliasPolicyBody `json:"policy"`
	}{"updated", name, aliasPolicyBody{
		Min: &o.Min, Max: &o.Max, RPS: &o.RPS, P95: &o.P95, CPU: &o.CPU, Memory: &o.Memory, Connections: &o.Connections, OutPct: &o.OutPct,
		InPct: &o.InPct, Window: &o.Window, Cooldown: &o.Cooldown, Stabilization: &o.Stabilization, Mode: new(string(s.Mode)),
	}})
	return nil
}

func (d *Dialect) aliasSimulate(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[struct {
		RPS         float64 `json:"rps"`
		P95         float64 `json:"p95LatencyMs"`
		Connections float64 `json:"activeConnections"`
		CPU         float64 `json:"cpuPercent"`
		Memory      float64 `json:"memoryPercent"`
		Healthy     int     `json:"healthyReplicas"`
		Evaluate    *bool   `json:"evaluate"`
	}](w, r)
	if err != nil {
		return err
	}
	sample, err := simulation{RPS: b.RPS, P95: b.P95, Connections: b.Connections, CPU: b.CPU, Memory: b.Memory, Healthy: b.Healthy}.sample()
	if err != nil {
		return err
	}
	name := api.Param(r, "app")
	x, err := d.engine.Simulate(name, sample)
	if err != nil {
		return err
	}
	answer := struct {
		App        string      `json:"app"`
		Metrics    metrics     `json:"metrics_added"` // to what is asked; the app's own are as they were
		Evaluation *evaluation `json:"evaluation"`
		Action     string      `json:"action"`
	}{App: name, Metrics: metricsOf(sample), Action: "none"}
	if b.Evaluate == nil || *b.Evaluate {
		answer.Evaluation = new(evaluationOf(x))
		if x.Changed {
			answer.Action = fmt.Sprintf("would scale to %d replicas", x.Replicas)
		}
	}
	api.JSON(w, http.StatusOK, answer)
	return nil
}
