package manifest

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// composeDeploy is how Compose, and Swarm, say where a service runs.
type composeDeploy struct {
	Mode      string     `json:"mode" oneof:"replicated,global"`
	Replicas  *int       `json:"replicas" min:"0" max:"1000"`
	Labels    listOrDict `json:"labels"`
	Resources struct {
		Limits struct {
			CPUs   cpu      `json:"cpus"`
			Memory byteSize `json:"memory"`
			PIDs   int64    `json:"pids"`
		} `json:"limits"`
		Reservations struct {
			CPUs    cpu         `json:"cpus"`
			Memory  byteSize    `json:"memory"`
			Devices composeGPUs `json:"devices"`
		} `json:"reservations"`
	} `json:"resources"`
	Placement struct {
		Constraints words `json:"constraints"`
		Preferences []struct {
			Spread string `json:"spread" need:"it is the only preference"`
		} `json:"preferences"`
		MaxPerNode int `json:"max_replicas_per_node" min:"0" max:"1000"`
	} `json:"placement"`
	Update  *composeUpdate  `json:"update_config"`
	Restart *composeRestart `json:"restart_policy"`
}

type composeUpdate struct {
	Parallelism   *int         `json:"parallelism" min:"0" max:"1000"`
	Delay         *composeTime `json:"delay"`
	Monitor       *composeTime `json:"monitor"`
	FailureAction string       `json:"failure_action" oneof:"pause,rollback"`
	Order         string       `json:"order" oneof:"stop-first,start-first"`
}

type composeRestart struct {
	Condition   string `json:"condition" oneof:"none,on-failure,any"`
	MaxAttempts int    `json:"max_attempts" min:"0" max:"1000000"`
}

// apply takes over all but the update.
func (c *composeDeploy) apply(d *decoder, out *app.Spec, path string) {
	if c.Mode == "global" {
		out.Kind = app.Daemon
	}
	limits, reserved := c.Resources.Limits, c.Resources.Reservations
	l := &out.Container.Limits
	for _, one := range []struct {
		into  *int64
		value int64
		name  string
	}{{&l.MilliCPU, int64(limits.CPUs), "cpus"}, {&l.Memory, int64(limits.Memory), "memory"}, {&l.PIDs, limits.PIDs, "pids"}} {
		if one.value != 0 && *one.into != 0 && *one.into != one.value {
			d.problem(below(path, "resources.limits."+one.name), "differs from what the service says: keep one of them")
		}
		if one.value != 0 {
			*one.into = one.value
		}
	}
	at := below(path, "resources.reservations")
	for _, one := range []struct {
		limit, reserved int64
		name            string
	}{{l.MilliCPU, int64(reserved.CPUs), "cpus"}, {l.Memory, int64(reserved.Memory), "memory"}} {
		switch {
		case one.reserved == 0:
		case one.limit == 0:
			d.problem(below(at, one.name), "is there without a limit: a host reserves what a replica may use, so write it as a limit")
		case one.limit != one.reserved:
			d.note(below(at, one.name), "is taken to be the limit: a host reserves what a replica may use")
		}
	}
	reserved.Devices.reserve(d, out, below(at, "devices"))
	c.place(d, out, below(path, "placement"))
}

// nodeAttribute is what Swarm calls attributes of hosts.
var nodeAttribute = regexp.MustCompile(`^\s*node\.(labels\.[-_./A-Za-z0-9]+|hostname|id|platform\.arch)\s*(==|!=)\s*(.+?)\s*$`)

func (c *composeDeploy) place(d *decoder, out *app.Spec, path string) {
	out.Placement.MaxPerHost = c.Placement.MaxPerNode
	for i, text := range c.Placement.Constraints {
		m := nodeAttribute.FindStringSubmatch(text)
		if m == nil {
			d.problem(index(below(path, "constraints"), i), "is %q; it must be node.labels.KEY, node.hostname, node.id or node.platform.arch, then == or !=, and a value", brief(text))
			continue
		}
		op := "="
		if m[2] == "!=" {
			op = "!="
		}
		d.paths[index("placement.constraints", len(out.Placement.Constraints))] = index(below(path, "constraints"), i)
		out.Placement.Constraints = append(out.Placement.Constraints, app.Constraint{Attribute: attributeOf(m[1]), Op: op, Values: []string{m[3]}})
	}
	for i, p := range c.Placement.Preferences {
		attribute, ok := strings.CutPrefix(p.Spread, "node.")
		if !ok || i > 0 {
			d.problem(index(below(path, "preferences"), i), "is not possible: there is one preference, of node.labels.KEY or node.hostname")
			continue
		}
		out.Placement.Spread = attributeOf(attribute)
	}
}

func attributeOf(node string) string {
	if key, ok := strings.CutPrefix(node, "labels."); ok {
		return "label." + key
	}
	switch node {
	case "hostname":
		return "name"
	case "platform.arch":
		return "arch"
	default:
		return node
	}
}

// rollout is what update_config means. Without it, it is as in a manifest.
func (c *composeDeploy) rollout(spec *app.Spec) app.Rollout {
	out := (*rollout)(nil).rules(spec)
	u := c.Update
	if u == nil {
		return out
	}
	n := 1
	set(&n, u.Parallelism)
	if n == 0 { // all at once
		n = 1000
	}
	out.MaxUnavailable, out.MaxSurge = n, 0
	if u.Order == "start-first" && spec.Kind != app.Daemon {
		out.MaxUnavailable, out.MaxSurge = 0, n
	}
	out.Revert = u.FailureAction == "rollback"
	for _, t := range []*composeTime{u.Delay, u.Monitor} {
		if t != nil {
			out.Healthy = max(out.Healthy, time.Duration(*t))
		}
	}
	return out
}

func (r *composeRestart) policy(d *decoder, path string) string {
	switch {
	case r.Condition == "none":
		return "no"
	case r.Condition == "on-failure" && r.MaxAttempts > 0:
		return "on-failure:" + strconv.Itoa(r.MaxAttempts)
	case r.Condition == "on-failure":
		return "on-failure"
	case r.MaxAttempts > 0:
		d.problem(below(path, "max_attempts"), "is for the condition on-failure alone")
	}
	return "always"
}
