package apps

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
)

// policy is when an app is scaled.
type policy struct {
	Min      int     `json:"min_replicas"`
	Max      int     `json:"max_replicas"`
	RPS      float64 `json:"target_rps_per_replica"`
	P95      float64 `json:"max_p95_latency_ms"`
	CPU      float64 `json:"max_cpu_percent"`
	Memory   float64 `json:"max_memory_percent"`
	OutPct   float64 `json:"scale_out_threshold_pct"`
	InPct    float64 `json:"scale_in_threshold_pct"`
	Window   float64 `json:"window_seconds"`
	Cooldown float64 `json:"cooldown_seconds"`

	// Ours.
	Connections   float64 `json:"max_conn_per_replica"`
	Stabilization float64 `json:"stabilization_window_seconds"`
	OutStep       int     `json:"max_scale_out_step"` // 0: any
	InStep        int     `json:"max_scale_in_step"`  // 0: one
	Standby       int     `json:"standby"`
}

func policyOf(s app.Scaling) policy {
	return policy{
		Min: s.Min, Max: s.Max, RPS: s.RPS, P95: millis(s.P95), CPU: s.CPU, Memory: s.Memory, OutPct: s.OutPct, InPct: s.InPct,
		Window: s.Window.Seconds(), Cooldown: s.Cooldown.Seconds(), Connections: s.Connections, Stabilization: s.Stabilization.Seconds(),
		OutStep: s.OutStep, InStep: s.InStep, Standby: s.Standby,
	}
}

// scaleEvent is a change of the number of replicas.
type scaleEvent struct {
	Timestamp string `json:"timestamp"`
	Action    string `json:"action"` // "scale_out", "scale_in"
	From      int    `json:"from_replicas"`
	To        int    `json:"to_replicas"`
	Reason    string `json:"reason"`

	Manual bool `json:"manual"` // ours
}

func scaleEventOf(e app.ScaleEvent) *scaleEvent {
	if e.At.IsZero() {
		return nil
	}
	action := "scale_out"
	if e.To < e.From {
		action = "scale_in"
	}
	return &scaleEvent{Timestamp: stamp(e.At), Action: action, From: e.From, To: e.To, Reason: e.Reason, Manual: e.Person}
}

// scalingObject is an app's policy and what came of it.
type scalingObject struct {
	AppName string      `json:"app_name"`
	Mode    string      `json:"mode"`
	Policy  policy      `json:"policy"`
	Last    *scaleEvent `json:"last_scaling_event"` // null: none yet
}

func (d *Dialect) getScaling(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, scalingObject{v.App.Name, string(v.App.Scaling.Mode), policyOf(v.App.Scaling), scaleEventOf(v.App.Scaled)})
	return nil
}

// policyChange are the fields that a policy is to have; others stay.
type policyChange struct {
	Mode          *string  `json:"mode"`
	Min           *int     `json:"min_replicas"`
	Max           *int     `json:"max_replicas"`
	RPS           *float64 `json:"target_rps_per_replica"`
	P95           *float64 `json:"max_p95_latency_ms"`
	CPU           *float64 `json:"max_cpu_percent"`
	Memory        *float64 `json:"max_memory_percent"`
	OutPct        *float64 `json:"scale_out_threshold_pct"`
	InPct         *float64 `json:"scale_in_threshold_pct"`
	Window        *float64 `json:"window_seconds"`
	Cooldown      *float64 `json:"cooldown_seconds"`
	Connections   *float64 `json:"max_conn_per_replica"`
	Stabilization *float64 `json:"stabilization_window_seconds"`
	OutStep       *int     `json:"max_scale_out_step"`
	InStep        *int     `json:"max_scale_in_step"`
	Standby       *int     `json:"standby"`
}

// longestTime is what a policy's times may be at most; the engine says less.
const longestTime = 365 * 24 * time.Hour

// on is the policy with the changes made.
func (c policyChange) on(s app.Scaling) (app.Scaling, error) {
	if c.Mode != nil {
		switch m := app.ScaleMode(*c.Mode); m {
		case app.Auto, app.Manual:
			s.Mode = m
		default:
			return s, invalidf("field \"mode\" is %q; it must be auto or manual", *c.Mode)
		}
	}
	set(&s.Min, c.Min)
	set(&s.Max, c.Max)
	set(&s.RPS, c.RPS)
	set(&s.CPU, c.CPU)
	set(&s.Memory, c.Memory)
	set(&s.OutPct, c.OutPct)
	set(&s.InPct, c.InPct)
	set(&s.Connections, c.Connections)
	set(&s.OutStep, c.OutStep)
	set(&s.InStep, c.InStep)
	set(&s.Standby, c.Standby)
	return s, errors.Join(
		setTime(&s.P95, "max_p95_latency_ms", c.P95, time.Millisecond),
		setTime(&s.Window, "window_seconds", c.Window, time.Second),
		setTime(&s.Cooldown, "cooldown_seconds", c.Cooldown, time.Second),
		setTime(&s.Stabilization, "stabilization_window_seconds", c.Stabilization, time.Second),
	)
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

func setTime(field *time.Duration, name string, value *float64, unit time.Duration) (err error) {
	if value != nil {
		*field, err = timeIn(name, *value, unit, longestTime)
	}
	return err
}

// scalingChanged is the answer to a change of the policy.
type scalingChanged struct {
	Message string `json:"message"`
	AppName string `json:"app_name"`
	Mode    string `json:"mode"` // ours
	Old     policy `json:"previous_policy"`
	New     policy `json:"new_policy"`
}

func (d *Dialect) putScaling(w http.ResponseWriter, r *http.Request) error {
	c, err := api.Decode[policyChange](w, r)
	if err != nil {
		return err
	}
	name := api.Param(r, "app")
	old, s, err := d.changePolicy(r, name, c)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, scalingChanged{"Scaling policy updated successfully", name, string(s.Mode), policyOf(old), policyOf(s)})
	return nil
}

// changePolicy changes what c says of an app's policy.
func (d *Dialect) changePolicy(r *http.Request, name string, c policyChange) (old, s app.Scaling, err error) {
	d.merge.Lock() // two changes of different fields must both come through
	defer d.merge.Unlock()
	v, err := d.engine.App(name)
	if err != nil {
		return old, s, err
	}
	if s, err = c.on(v.App.Scaling); err != nil {
		return old, s, err
	}
	if old, err = d.engine.SetScaling(r.Context(), name, s); err != nil {
		return old, s, asFields(err)
	}
	return old, s, nil
}

// policyPaths are the fields of a policy as manifests spell them.
var policyPaths = map[string]string{
	"mode": "mode", "minReplicas": "min_replicas", "maxReplicas": "max_replicas", "targetRPSPerReplica": "target_rps_per_replica",
	"maxP95LatencyMs": "max_p95_latency_ms", "maxCPUPercent": "max_cpu_percent", "maxMemoryPercent": "max_memory_percent",
	"scaleOutThresholdPct": "scale_out_threshold_pct", "scaleInThresholdPct": "scale_in_threshold_pct", "windowSeconds": "window_seconds",
	"cooldownSeconds": "cooldown_seconds", "maxConnPerReplica": "max_conn_per_replica",
	"stabilizationWindowSeconds": "stabilization_window_seconds", "maxScaleOutStep": "max_scale_out_step", "maxScaleInStep": "max_scale_in_step",
	"standby": "standby",
}

// asFields makes problems of a spec ones of the request, in its spelling.
func asFields(err error) error {
	problems, ok := errors.AsType[app.Problems](err)
	if !ok {
		return err
	}
	ours := make(app.Problems, len(problems))
	for i, p := range problems {
		ours[i] = p
		if field, ok := policyPaths[p.Path[strings.LastIndexByte(p.Path, '.')+1:]]; ok {
			ours[i].Path = field
		}
	}
	return as(invalid, ours)
}

// simulation is a load that an app is thought to have.
type simulation struct {
	RPS         float64 `json:"rps"`
	P95         float64 `json:"latency_p95_ms"`
	Connections float64 `json:"active_connections"`
	CPU         float64 `json:"cpu_percent"`
	Memory      float64 `json:"memory_percent"`
	Healthy     int     `json:"healthy_replicas"` // 0: all that are wanted
}

func (s simulation) sample() (app.Sample, error) {
	p95, err := timeIn("latency_p95_ms", s.P95, time.Millisecond, time.Hour)
	if err != nil {
		return app.Sample{}, err
	}
	for _, n := range []float64{s.RPS, s.Connections, s.CPU, s.Memory, float64(s.Healthy)} {
		if !(n >= 0 && n <= 1e12) {
			return app.Sample{}, invalidf("%v is no load; each field must be a number, 0 or more", n)
		}
	}
	return app.Sample{
		At: time.Now(), RPS: s.RPS, P95: p95, Connections: s.Connections, CPU: s.CPU, Memory: s.Memory, Ready: s.Healthy, Total: s.Healthy,
	}, nil
}

// evaluation is what the autoscaler would do.
type evaluation struct {
	ShouldScale bool               `json:"should_scale"`
	Target      int                `json:"target_replicas"`
	Reason      string             `json:"reason"`
	Factors     map[string]float64 `json:"scale_factors"`
}

func evaluationOf(x app.Decision) evaluation {
	e := evaluation{ShouldScale: x.Changed, Target: x.Replicas, Reason: x.Reason, Factors: map[string]float64{}}
	for k, f := range x.Factors {
		e.Factors[k] = round(f)
	}
	return e
}

// simulated is the answer to a simulation.
type simulated struct {
	AppName    string     `json:"app_name"`
	Evaluation evaluation `json:"evaluation"`
}

// simulate asks the autoscaler what it would do under a load, and does nothing.
func (d *Dialect) simulate(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[simulation](w, r)
	if err != nil {
		return err
	}
	sample, err := b.sample()
	if err != nil {
		return err
	}
	name := api.Param(r, "app")
	x, err := d.engine.Simulate(name, sample)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, simulated{name, evaluationOf(x)})
	return nil
}
