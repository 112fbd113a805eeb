package app

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Bounds of what a spec may say.
const (
	maxReplicas    = 1000 // of an app
	maxName        = 53   // a container is called NAME-INDEX-xxxx and its host takes 63
	maxCompletions = 100_000
	maxTime        = 365 * 24 * time.Hour
	maxThreshold   = 1000 // percent of a target, and checks of health in a row
	maxShown       = 256  // bytes of a text that a problem repeats
)

// Validate says all that is wrong with s as far as s alone tells: Problems, with
// the paths of a manifest that has its sections beside spec.
func (s *Spec) Validate() error {
	c := &checker{}
	c.identity(s)
	c.container(s)
	c.storage(&s.Container)
	c.network(s)
	c.env(s)
	c.secrets(s)
	c.ports(s)
	c.exposed(s)
	c.health(s.Container.Health)
	c.placement(s)
	switch s.Kind {
	case Service:
		c.scaling(s)
		c.rollout(s)
	case Daemon:
		c.rollout(s)
	case Job, Cron:
		c.job(s)
	}
	if len(c.problems) == 0 {
		return nil
	}
	return c.problems
}

// checker collects problems.
type checker struct{ problems Problems }

// add has texts of strangers cut short. With is set in what it gives.
func (c *checker) add(path, format string, args ...any) *Problem {
	for i, arg := range args {
		if text, ok := arg.(string); ok && len(text) > maxShown {
			args[i] = strings.ToValidUTF8(text[:maxShown], "") + "…"
		}
	}
	c.problems = append(c.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
	return &c.problems[len(c.problems)-1]
}

// number complains about n outside its bounds.
func (c *checker) number(path string, n, least, most int64) {
	if n < least || n > most {
		c.add(path, "is %d; it must be %d to %d", n, least, most)
	}
}

// span complains about a time outside its bounds.
func (c *checker) span(path string, d, most time.Duration) {
	if d < 0 || d > most {
		c.add(path, "is %s; it must be 0s to %s", d, most)
	}
}

// word complains about a value that is none of those there are.
func (c *checker) word(path, value string, words ...string) {
	if !slices.Contains(words, value) {
		words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
		last := len(words) - 1
		c.add(path, "is %q; it must be %s or %s", value, strings.Join(words[:last], ", "), words[last])
	}
}

// each are the paths of a field of all of a list, or of the list if it is empty.
func each(path string, n int, field string) []string {
	if n == 0 {
		return []string{path}
	}
	var all []string
	for i := range n {
		all = append(all, at(path, i, field))
	}
	return all
}

func at(path string, i int, field string) string {
	if field != "" {
		field = "." + field
	}
	return fmt.Sprintf("%s[%d]%s", path, i, field)
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9]([-_a-zA-Z0-9]*[a-zA-Z0-9])?$`)

func (c *checker) identity(s *Spec) {
	c.name("metadata.name", s.Name)
	c.word("kind", string(s.Kind), string(Service), string(Daemon), string(Job), string(Cron))
	for _, m := range []struct {
		path string
		of   map[string]string
	}{{"metadata.labels", s.Labels}, {"metadata.annotations", s.Annotations}, {"spec.labels", s.Container.Labels}} {
		if _, ok := m.of[""]; ok {
			c.add(m.path, "has a key that is empty")
		}
	}
	c.number("spec.resources.gpus", int64(s.GPUs), 0, 64)
	if s.Kind != Job && s.Kind != Cron && s.Job != (JobSpec{}) {
		c.add("job", "is for jobs alone, and this is a %s", s.Kind).With = []string{"kind"}
	}
	if s.Kind != Service && s.Replicas != 0 {
		c.add("spec.replicas", "is %d, and the number of replicas of a %s is not chosen", s.Replicas, s.Kind).With = []string{"kind"}
	}
	if s.Kind != Service && s.Scaling.Standby != 0 {
		c.add("scaling.standby", "is %d, and only replicas of a service stand by", s.Scaling.Standby).With = []string{"kind"}
	}
}

// name complains about what cannot be the name of an app.
func (c *checker) name(path, name string) {
	switch {
	case name == "":
		c.add(path, "is missing")
	case len(name) > maxName:
		c.add(path, "has %d characters; at most %d are possible", len(name), maxName)
	case !namePattern.MatchString(name):
		c.add(path, "is %q; it must be of letters, digits, dashes and underscores, and begin and end with a letter or digit", name)
	}
}

func (c *checker) scaling(s *Spec) {
	p := &s.Scaling
	c.word("scaling.mode", string(p.Mode), string(Auto), string(Manual))
	c.number("scaling.maxReplicas", int64(p.Max), 0, maxReplicas)
	most := []string{"scaling.maxReplicas", "scaling.mode"} // on which its default depends
	if p.Min < 0 || p.Min > p.Max {
		c.add("scaling.minReplicas", "is %d; it must be 0 to scaling.maxReplicas, which is %d", p.Min, p.Max).With = most
	}
	if s.Replicas < 0 || s.Replicas > p.Max {
		c.add("spec.replicas", "is %d; it must be 0 to scaling.maxReplicas, which is %d", s.Replicas, p.Max).With = append(most, "scaling.minReplicas")
	}
	c.number("scaling.standby", int64(p.Standby), 0, maxReplicas)
	c.number("scaling.maxScaleOutStep", int64(p.OutStep), 0, maxReplicas)
	c.number("scaling.maxScaleInStep", int64(p.InStep), 0, maxReplicas)
	for _, f := range []struct {
		path    string
		v, most float64
	}{
		{"scaling.targetRPSPerReplica", p.RPS, 1e9},
		{"scaling.maxConnPerReplica", p.Connections, 1e9},
		{"scaling.maxCPUPercent", p.CPU, 100},
		{"scaling.maxMemoryPercent", p.Memory, 100},
		{"scaling.scaleInThresholdPct", p.InPct, maxThreshold},
		{"scaling.scaleOutThresholdPct", p.OutPct, maxThreshold},
	} {
		if !(f.v >= 0 && f.v <= f.most) {
			c.add(f.path, "is %g; it must be 0 to %.0f", f.v, f.most)
		}
	}
	c.span("scaling.maxP95LatencyMs", p.P95, time.Hour)
	c.span("scaling.cooldownSeconds", p.Cooldown, maxTime)
	c.span("scaling.stabilizationWindowSeconds", p.Stabilization, maxTime)
	if p.Mode != Auto {
		return
	}
	if p.Window < time.Second || p.Window > time.Hour { // so much is kept, see Window
		c.add("scaling.windowSeconds", "is %s; it must be %s to %s", p.Window, time.Second, time.Hour).With = []string{"scaling.mode"}
	}
	if p.InPct >= p.OutPct {
		c.add("scaling.scaleInThresholdPct", "is %g; it must be less than scaling.scaleOutThresholdPct, which is %g", p.InPct, p.OutPct).With = []string{"scaling.mode", "scaling.scaleOutThresholdPct"}
	}
}

func (c *checker) rollout(s *Spec) {
	r := &s.Rollout
	c.number("rollout.maxUnavailable", int64(r.MaxUnavailable), 0, maxReplicas)
	c.number("rollout.maxSurge", int64(r.MaxSurge), 0, maxReplicas)
	if r.MaxUnavailable == 0 && r.MaxSurge == 0 {
		c.add("rollout.maxSurge", "is 0, and so is rollout.maxUnavailable: no replica could ever be replaced").With = append(each("spec.ports", len(s.Ports), "hostPort"), "rollout.maxUnavailable", "kind", "spec.hostNetwork")
	}
	c.number("rollout.canary", int64(r.Canary), 0, maxReplicas)
	if s.Kind == Daemon && r.Canary > 0 {
		c.add("rollout.canary", "is %d, and daemons have no canaries", r.Canary).With = []string{"kind"}
	}
	c.span("rollout.progressDeadlineSeconds", r.Deadline, maxTime)
	c.span("rollout.minHealthySeconds", r.Healthy, maxTime)
	if r.Deadline > 0 && r.Healthy >= r.Deadline {
		c.add("rollout.minHealthySeconds", "is %s; it must be less than rollout.progressDeadlineSeconds, which is %s", r.Healthy, r.Deadline).With = []string{"rollout.progressDeadlineSeconds"}
	}
}

func (c *checker) job(s *Spec) {
	j := &s.Job
	c.number("job.completions", int64(j.Completions), 1, maxCompletions)
	c.number("job.parallelism", int64(j.Parallelism), 1, maxReplicas)
	c.number("job.backoffLimit", int64(j.Retries), 0, maxCompletions)
	c.span("job.activeDeadlineSeconds", j.Timeout, maxTime)
	if r := s.Container.Restart; r == "always" || r == "unless-stopped" {
		c.add("spec.restartPolicy", "is %q, and replicas of a %s come to an end; it must be Never or OnFailure[:N]", r, s.Kind).With = []string{"kind"}
	}
	switch {
	case s.Kind == Job && j.Schedule != "":
		c.add("spec.schedule", "is for cron alone, and this is a job").With = []string{"kind"}
	case s.Kind == Cron:
		c.schedule("spec.schedule", j.Schedule)
	}
}

func (c *checker) schedule(path, text string) {
	switch {
	case text == "":
		c.add(path, "is missing")
		return
	case strings.Contains(text, "TZ="): // the parser would panic without a space behind it
		c.add(path, "is %q; times are in UTC, and no zone can be named", text)
		return
	}
	schedule, err := cron.ParseStandard(text)
	switch {
	case err != nil:
		c.add(path, "is %q, which is no schedule: %v", text, err)
	case schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero(): // it looks ahead for five years
		c.add(path, "is %q, a time that never comes", text)
	}
}

func (c *checker) placement(s *Spec) {
	p := &s.Placement
	for i, one := range p.Constraints {
		c.constraint(at("placement.constraints", i, ""), one)
	}
	for i, a := range p.Affinity {
		path := func(field string) string { return at("placement.affinity", i, field) }
		switch {
		case a.App != "" && a.Constraint != nil:
			c.add(path(""), "has an app and a constraint: keep one of them")
		case a.App != "":
			c.name(path("app"), a.App)
		case a.Constraint != nil:
			c.constraint(path("constraint"), *a.Constraint)
		default:
			c.add(path(""), "has neither app nor constraint; it must have one of them").With = []string{path("app"), path("constraint")}
		}
		c.number(path("weight"), int64(a.Weight), -100, 100)
		if a.Weight == 0 && !a.Required {
			c.add(path("weight"), "is 0: without a weight, or required, it says nothing").With = []string{path("required")}
		}
	}
	if p.Spread != "" && p.Spread != spreadHosts && !validAttribute(p.Spread) {
		c.add("placement.spread", "is %q; it must be host, id, name, arch, os, gpu.model or label.KEY", p.Spread)
	}
	c.word("placement.strategy", string(p.Strategy), "", string(SpreadOut), string(BinPack))
	c.number("placement.maxPerHost", int64(p.MaxPerHost), 0, maxReplicas)
}

func (c *checker) constraint(path string, one Constraint) {
	if !validAttribute(one.Attribute) {
		c.add(path+".attribute", "is %q; it must be id, name, arch, os, gpu.model or label.KEY", one.Attribute)
	}
	if broken := one.compile().broken; broken != "" {
		c.add(path, "%s", broken).With = []string{path + ".op", path + ".value", path + ".values"}
	}
}
