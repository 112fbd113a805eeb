package apps

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/version"
)

// checkTime is how long checks that were asked for may take.
const checkTime = time.Minute

// healthContainer is how a replica is.
type healthContainer struct {
	ID           string  `json:"id"`
	Name         string  `json:"name"`
	Health       string  `json:"health"`
	LastCheck    *string `json:"last_check"` // null: none yet, or there is no check
	Failures     int     `json:"consecutive_failures"`
	ResponseTime float64 `json:"response_time_ms"`
	LastError    string  `json:"last_error,omitempty"`
}

// healthConfig is the check of an app's replicas.
type healthConfig struct {
	Path             string  `json:"path"`
	Port             uint16  `json:"port"`
	Protocol         string  `json:"protocol"` // "HTTP", "HTTPS", "TCP", "EXEC"; "NONE": there is no check
	Period           float64 `json:"period_seconds"`
	Timeout          float64 `json:"timeout_seconds"`
	FailureThreshold int     `json:"failure_threshold"`

	// Ours.
	InitialDelay     float64 `json:"initial_delay_seconds"`
	SuccessThreshold int     `json:"success_threshold"`
}

// healthConfigOf is the check of a spec. What it does not say is as the settings say.
func healthConfigOf(s *app.Spec, defaults app.Settings) healthConfig {
	c := healthConfig{
		Port: mainPort(s), Protocol: "NONE", Period: defaults.HealthInterval.Seconds(), Timeout: defaults.HealthTimeout.Seconds(),
		FailureThreshold: defaults.FailureThreshold, SuccessThreshold: 1,
	}
	h := s.Container.Health
	if h == nil {
		return c
	}
	c.Path, c.Protocol, c.InitialDelay = h.Path, strings.ToUpper(h.Type), h.InitialDelay
	if h.Scheme == "https" {
		c.Protocol = "HTTPS"
	}
	if h.Port != 0 {
		c.Port = h.Port
	}
	if h.Period > 0 {
		c.Period = h.Period
	}
	if h.Timeout > 0 {
		c.Timeout = h.Timeout
	}
	if h.FailureThreshold > 0 {
		c.FailureThreshold = h.FailureThreshold
	}
	if h.SuccessThreshold > 0 {
		c.SuccessThreshold = h.SuccessThreshold
	}
	return c
}

// overall is an app's health in a word.
func overall(v app.View) string {
	switch {
	case v.Status == app.Down || v.Status == app.Completed:
		return string(v.Status)
	case v.Ready >= v.Desired && v.Desired > 0:
		return "healthy"
	case v.Ready > 0:
		return "degraded"
	case v.Status == app.Pending:
		return "starting"
	}
	return "unhealthy"
}

// healthObject is how an app is.
type healthObject struct {
	AppName    string            `json:"app_name"`
	Overall    string            `json:"overall_health"` // "healthy", "degraded", "unhealthy", "starting", "stopped", "completed"
	Healthy    int               `json:"healthy_replicas"`
	Total      int               `json:"total_replicas"`
	Containers []healthContainer `json:"containers"`
	Config     healthConfig      `json:"health_check_config"`
}

func (d *Dialect) getHealth(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	list := make([]healthContainer, 0, len(v.Replicas))
	for i := range v.Replicas {
		one := &v.Replicas[i]
		list = append(list, healthContainer{
			ID: one.ID, Name: one.Name(), Health: healthOf(one), LastCheck: stampOrNull(one.Seen.Checked),
			Failures: one.Seen.Failures, ResponseTime: millis(one.Seen.Response), LastError: one.Seen.CheckErr,
		})
	}
	api.JSON(w, http.StatusOK, healthObject{v.App.Name, overall(v), v.Ready, v.Desired, list, healthConfigOf(v.App.Spec(), d.engine.Config())})
	return nil
}

// healthChecked is what checks that were asked for have found.
type healthChecked struct {
	Message   string `json:"message"`
	AppName   string `json:"app_name"`
	Checked   int    `json:"containers_checked"`
	Healthy   int    `json:"healthy"`
	Unhealthy int    `json:"unhealthy"`
}

// checkHealth has the hosts run the checks now.
func (d *Dialect) checkHealth(w http.ResponseWriter, r *http.Request) error {
	name := api.Param(r, "app")
	ctx, cancel := context.WithTimeout(r.Context(), checkTime)
	defer cancel()
	if _, err := d.engine.App(name); err != nil {
		return err
	}
	v, err := d.engine.CheckHealth(ctx, name)
	if err != nil {
		return as(dockerError, err)
	}
	checked, well := 0, 0
	for i := range v.Replicas {
		r := &v.Replicas[i]
		if r.Phase != app.Running {
			continue
		}
		checked++
		if healthOf(r) == healthy {
			well++
		}
	}
	api.JSON(w, http.StatusOK, healthChecked{"Health check triggered", name, checked, well, checked - well})
	return nil
}

// Health is how the controller is, in the words of the document.
type Health struct {
	Status       string     `json:"status"` // "healthy", "degraded"
	Timestamp    string     `json:"timestamp"`
	Version      string     `json:"version"`
	Uptime       int64      `json:"uptime_seconds"`
	Components   components `json:"components"`
	Applications totals     `json:"applications"`
}

type components struct {
	Database database `json:"database"`
	Docker   docker   `json:"docker"`
	Nginx    nginx    `json:"nginx"`
}

// database is the controller's store.
type database struct {
	Status       string  `json:"status"`
	ResponseTime float64 `json:"response_time_ms"`
}

// docker is the nodes, which run containers.
type docker struct {
	Status  string `json:"status"`
	Running int    `json:"containers_running"`
}

// nginx is the balancer.
type nginx struct {
	Status  string `json:"status"` // "disabled": there is none
	Configs int    `json:"configs_active"`
}

const healthy, unhealthy = "healthy", "unhealthy"

// Health is how the controller is, for GET /health. The daemon answers it also
// where something is not well.
func (d *Dialect) Health(ctx context.Context) Health {
	sums := d.engine.Totals()
	h := Health{
		Status: healthy, Timestamp: stamp(time.Now()), Version: version.Version, Uptime: int64(time.Since(d.start).Seconds()),
		Components: components{
			Database: database{Status: healthy},
			Docker:   docker{Status: healthy, Running: sums.Replicas},
			Nginx:    nginx{Status: "disabled"},
		},
	}
	for status, n := range sums.Apps {
		h.Applications.add(status, n)
	}
	begin := time.Now()
	_, _, err := d.engine.Events(ctx, app.EventQuery{Limit: 1})
	h.Components.Database.ResponseTime = millis(time.Since(begin))
	if err != nil {
		h.Components.Database.Status = unhealthy
	}
	if sums.Hosts[app.Alive] == 0 {
		h.Components.Docker.Status = unhealthy
	}
	if d.cfg.Balanced != nil {
		h.Components.Nginx = nginx{Status: healthy, Configs: d.cfg.Balanced()}
	}
	if err != nil || sums.Hosts[app.Alive] == 0 || !d.cfg.Ready() {
		h.Status = "degraded"
	}
	return h
}
