package apps

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/version"
)

// configObject is what the controller is set to.
type configObject struct {
	Version    string        `json:"version"`
	Controller Listen        `json:"controller"`
	Database   Database      `json:"database"`
	Scaling    scalingConfig `json:"scaling"`
	Health     healthDefault `json:"health"`
}

// scalingConfig is in seconds.
type scalingConfig struct {
	Interval float64 `json:"default_check_interval"`
	Cooldown float64 `json:"default_cooldown"`
	AtOnce   int     `json:"max_concurrent_scales"`
}

// healthDefault is in seconds.
type healthDefault struct {
	Interval  float64 `json:"default_check_interval"`
	Timeout   float64 `json:"default_timeout"`
	Threshold int     `json:"default_failure_threshold"`
}

func (d *Dialect) configOf(s app.Settings) configObject {
	return configObject{
		Version: version.Version, Controller: d.cfg.Listen, Database: d.cfg.Database,
		Scaling: scalingConfig{Interval: s.ScaleInterval.Seconds(), Cooldown: s.ScaleCooldown.Seconds(), AtOnce: s.MaxScales},
		Health:  healthDefault{Interval: s.HealthInterval.Seconds(), Timeout: s.HealthTimeout.Seconds(), Threshold: s.FailureThreshold},
	}
}

func (d *Dialect) getConfig(w http.ResponseWriter, _ *http.Request) error {
	api.JSON(w, http.StatusOK, d.configOf(d.engine.Config()))
	return nil
}

// setting is a value that may be changed while the controller runs.
type setting struct {
	least, most float64
	whole       bool
	set         func(s *app.Settings, v float64)
}

// settings are those that may be, by their paths.
var settings = map[string]setting{
	"scaling.default_check_interval": {1, 3600, false, func(s *app.Settings, v float64) { s.ScaleInterval = inSeconds(v) }},
	"scaling.default_cooldown":       {0, 86400, false, func(s *app.Settings, v float64) { s.ScaleCooldown = inSeconds(v) }},
	"scaling.max_concurrent_scales":  {1, 10000, true, func(s *app.Settings, v float64) { s.MaxScales = int(v) }},
	"health.default_check_interval":  {1, 3600, false, func(s *app.Settings, v float64) { s.HealthInterval = inSeconds(v) }},
	"health.default_timeout":         {0.1, 3600, false, func(s *app.Settings, v float64) { s.HealthTimeout = inSeconds(v) }},
	"health.default_failure_threshold": {1, 1000, true, func(s *app.Settings, v float64) {
		s.FailureThreshold = int(v)
	}},
}

func inSeconds(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }

// readOnly are the parts that only a start of buoyd sets.
var readOnly = []string{"version", "controller", "database"}

// configUpdated is the answer to a change of settings.
type configUpdated struct {
	Message string       `json:"message"`
	Restart bool         `json:"restart_required"`
	Updated []string     `json:"updated"` // paths
	Config  configObject `json:"config"`
}

// putConfig changes settings. The document says that this takes a restart;
// here it does not.
func (d *Dialect) putConfig(w http.ResponseWriter, r *http.Request) error {
	b, err := api.Decode[map[string]json.RawMessage](w, r)
	if err != nil {
		return err
	}
	d.merge.Lock()
	defer d.merge.Unlock()
	s := d.engine.Config()
	changed, problems := changeSettings(&s, b)
	if len(problems) > 0 {
		return as(invalid, problems)
	}
	if err := d.engine.SetConfig(r.Context(), s); err != nil {
		return asFields(err)
	}
	api.JSON(w, http.StatusOK, configUpdated{"Configuration updated successfully; it is in force, no restart is required", false, changed, d.configOf(s)})
	return nil
}

// changeSettings puts the values of a body into s, and says which, or what is
// wrong with them.
func changeSettings(s *app.Settings, b map[string]json.RawMessage) (changed []string, problems app.Problems) {
	changed = []string{}
	for _, section := range sortedKeys(b) {
		if slices.Contains(readOnly, section) {
			problems = append(problems, app.Problem{Path: section, Text: "is read-only; it is set where buoyd is started"})
			continue
		}
		if !slices.ContainsFunc(sortedKeys(settings), func(path string) bool { return strings.HasPrefix(path, section+".") }) {
			problems = append(problems, app.Problem{Path: section, Text: "is not known; there are scaling and health"})
			continue
		}
		var fields map[string]json.RawMessage
		if json.Unmarshal(b[section], &fields) != nil || fields == nil {
			problems = append(problems, app.Problem{Path: section, Text: "must be an object"})
			continue
		}
		for _, key := range sortedKeys(fields) {
			path := section + "." + key
			if text := changeSetting(s, path, fields[key]); text != "" {
				problems = append(problems, app.Problem{Path: path, Text: text})
				continue
			}
			changed = append(changed, path)
		}
	}
	return changed, problems
}

// changeSetting says what is wrong with a value, or puts it into s.
func changeSetting(s *app.Settings, path string, raw json.RawMessage) string {
	one, ok := settings[path]
	if !ok {
		return "is not known"
	}
	var v *float64
	if json.Unmarshal(raw, &v) != nil || v == nil {
		return fmt.Sprintf("is %.40s; it must be a number", raw)
	}
	if *v < one.least || *v > one.most || one.whole && *v != math.Trunc(*v) {
		number := "number"
		if one.whole {
			number = "whole number"
		}
		return fmt.Sprintf("is %v; it must be a %s from %v to %v", *v, number, one.least, one.most)
	}
	one.set(s, *v)
	return ""
}
