package app

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/size"
)

// need is what a replica takes of a host.
type need struct {
	Resources
	light Resources // in place of what it does not reserve
	ports []uint32
}

// A replica without limits takes something all the same, of which nothing is
// known. So much of it is assumed when hosts are compared, and only then, so
// that such replicas spread, too.
const (
	lightCPU    = 10       // the least limit there can be
	lightMemory = 16 << 20 // a small server in C or Go
)

func needOf(s *Spec) need {
	l := s.Container.Limits
	n := need{Resources: Resources{MilliCPU: l.MilliCPU, Memory: l.Memory, GPUs: s.GPUs}}
	if n.MilliCPU == 0 {
		n.light.MilliCPU = lightCPU
	}
	if n.Memory == 0 {
		n.light.Memory = lightMemory
	}
	for _, p := range s.Ports {
		if s.Container.HostNetworking {
			n.ports = append(n.ports, HostPort(p.Proto, p.Container))
		} else if p.Host != 0 {
			n.ports = append(n.ports, HostPort(p.Proto, p.Host))
		}
	}
	return n
}

// linksOf are the affinities to other apps.
func linksOf(s *Spec) (links []Affinity) {
	for _, a := range s.Placement.Affinity {
		if a.App != "" && a.App != s.Name {
			links = append(links, a)
		}
	}
	return links
}

// demand is a spec made ready to be asked about many hosts.
type demand struct {
	spec       *Spec
	need       need
	conditions []condition
	pulls      []pull
	selfPull   int       // sum of the weights of affinities to the app itself
	home       *presence // where the app is
	settled    bool      // it is on a host that stays
	foes       []foe     // apps that do not share a host with this one
	most       int       // replicas on a host; 0: any number
	total      int       // replicas, with those to come
	seed       uint64    // for ties
	shares     bool      // placement spreads over the values of an attribute
	byHost     bool      // placement spreads over hosts
}

// pull is an Affinity made ready.
type pull struct {
	Affinity
	condition *condition // or
	self      bool       // or
	other     *presence
}

// foe is another app with a required affinity against this one.
type foe struct {
	name string
	*presence
}

// demand makes a spec ready; n replicas are to come.
func (c *Cluster) demand(spec *Spec, n int) *demand {
	d := &demand{spec: spec, need: needOf(spec), home: c.apps[spec.Name], most: spec.Placement.MaxPerHost, seed: hash(spec.Name)}
	if d.home == nil {
		d.home = &presence{}
	}
	d.total = max(1, d.home.n+min(n, 1<<30))
	if spec.Kind == Daemon {
		d.most = 1
	}
	d.byHost = spec.Placement.Spread == spreadHosts
	d.shares = spec.Placement.Spread != "" && !d.byHost
	for _, one := range spec.Placement.Constraints {
		d.conditions = append(d.conditions, one.compile())
	}
	for _, a := range spec.Placement.Affinity {
		p := pull{Affinity: a}
		switch {
		case a.Constraint != nil:
			one := a.Constraint.compile()
			p.condition = &one
		case a.App == spec.Name:
			p.self = true
			if !a.Required {
				d.selfPull += a.Weight
			}
		default:
			if p.other = c.apps[a.App]; p.other == nil {
				p.other = &presence{}
			}
		}
		d.pulls = append(d.pulls, p)
	}
	d.settled = d.elsewhere(nil)
	d.foes = c.foes(spec.Name)
	return d
}

// elsewhere says whether the app is on a host that stays, one replica on s not
// counted.
func (d *demand) elsewhere(s *site) bool {
	for other, n := range d.home.on {
		if !other.Leaving && (other != s || n > 1) {
			return true
		}
	}
	return false
}

// spreadHosts is what Placement.Spread says of hosts themselves.
const spreadHosts = "host"

func (c *Cluster) foes(name string) (foes []foe) {
	for other, p := range c.apps {
		for _, l := range p.links {
			if l.Required && l.Weight < 0 && l.App == name {
				foes = append(foes, foe{other, p})
				break
			}
		}
	}
	slices.SortFunc(foes, func(a, b foe) int { return cmp.Compare(a.name, b.name) })
	return foes
}

// holds says whether the host is one that the affinity speaks of; own is how
// many replicas of the app are there.
func (p *pull) holds(s *site, own int) bool {
	switch {
	case p.condition != nil:
		return p.condition.holds(s.Attr)
	case p.self:
		return own > 0
	default:
		return p.other.on[s] > 0
	}
}

// obstacle is why a host does not take a replica.
type obstacle struct {
	kind obstacleKind
	n    int // which of several
}

type obstacleKind int

const (
	fits        obstacleKind = iota
	isClosed                 // n: 0
	byCondition              // n: of demand.conditions
	byAffinity               // n: of demand.pulls
	byFoe                    // n: of demand.foes
	isCrowded                // n: 0, as in those below
	lacksCPU
	lacksMemory
	lacksGPUs
	lacksPort // n: of need.ports
)

// obstacle is what keeps one more replica from a host that has own already.
func (d *demand) obstacle(s *site, own int) obstacle {
	if !s.Open {
		return obstacle{isClosed, 0}
	}
	if o := d.misfit(s, own); o.kind != fits {
		return o
	}
	if d.most > 0 && own >= d.most {
		return obstacle{isCrowded, 0}
	}
	switch {
	case d.need.MilliCPU > 0 && d.need.MilliCPU > s.free.MilliCPU:
		return obstacle{lacksCPU, 0}
	case d.need.Memory > 0 && d.need.Memory > s.free.Memory:
		return obstacle{lacksMemory, 0}
	case d.need.GPUs > 0 && d.need.GPUs > s.free.GPUs:
		return obstacle{lacksGPUs, 0}
	}
	for i, p := range d.need.ports {
		if s.ports[p] > 0 {
			return obstacle{lacksPort, i}
		}
	}
	return obstacle{}
}

// misfit is what is wrong with a host however much room it has. A replica may
// be wrong where it is, too; it is not among own then.
func (d *demand) misfit(s *site, own int) obstacle {
	for i := range d.conditions {
		if !d.conditions[i].holds(s.Attr) {
			return obstacle{byCondition, i}
		}
	}
	for i := range d.pulls {
		p := &d.pulls[i]
		if !p.Required {
			continue
		}
		there := p.holds(s, own)
		first := p.self && !d.settled // somebody has to be
		if p.Weight < 0 && there || p.Weight >= 0 && !there && !first {
			return obstacle{byAffinity, i}
		}
	}
	for i := range d.foes {
		if d.foes[i].on[s] > 0 {
			return obstacle{byFoe, i}
		}
	}
	return obstacle{}
}

// sentence says to people what an obstacle is.
func (d *demand) sentence(s *site, own int, o obstacle) string {
	switch o.kind {
	case fits:
		return ""
	case isClosed:
		if s.Why == "" {
			return "takes nothing new"
		}
		return s.Why
	case byCondition:
		return d.conditions[o.n].why(s.Attr, false)
	case byAffinity:
		if p := d.pulls[o.n]; p.condition != nil {
			return p.condition.why(s.Attr, p.Weight < 0)
		}
		return d.general(o)
	case isCrowded:
		if d.spec.Kind == Daemon {
			return "has its replica already"
		}
		return fmt.Sprintf("has %d of its replicas; %d may be on a host", own, d.most)
	case lacksCPU:
		return lack("CPU", d.need.MilliCPU, s.free.MilliCPU, "", cpus)
	case lacksMemory:
		return lack("memory", d.need.Memory, s.free.Memory, "", bytesText)
	case lacksGPUs:
		return lack("GPUs", int64(d.need.GPUs), int64(s.free.GPUs), "", count)
	case byFoe, lacksPort:
		return d.general(o)
	}
	return ""
}

// general is the sentence for many hosts, as far as no figures are in it.
func (d *demand) general(o obstacle) string {
	switch o.kind {
	case byCondition:
		return d.conditions[o.n].whyMany(false)
	case byAffinity:
		p := d.pulls[o.n]
		switch {
		case p.condition != nil:
			return p.condition.whyMany(p.Weight < 0)
		case p.Weight < 0:
			return fmt.Sprintf("app %q is there, and they do not share a host", p.App)
		default:
			return fmt.Sprintf("app %q is not there, and it needs that", p.App)
		}
	case byFoe:
		return fmt.Sprintf("app %q is there, and they do not share a host", d.foes[o.n].name)
	case isCrowded:
		return "as many of its replicas as may be on a host are there"
	case lacksPort:
		p := d.need.ports[o.n]
		return fmt.Sprintf("port %d/%s is taken", uint16(p), [...]string{"tcp", "udp"}[p>>16])
	default:
		return "takes nothing new"
	}
}

// summary says what an obstacle is that several hosts have.
func (d *demand) summary(sites []*site, o obstacle) string {
	most := sites[0].free
	same := true
	for _, s := range sites {
		most.MilliCPU = max(most.MilliCPU, s.free.MilliCPU)
		most.Memory = max(most.Memory, s.free.Memory)
		most.GPUs = max(most.GPUs, s.free.GPUs)
		same = same && s.Why == sites[0].Why
	}
	switch o.kind {
	case isClosed:
		switch {
		case sites[0].Why == "":
		case same:
			return sites[0].Why
		default:
			return "takes nothing new, for instance: " + sites[0].Why
		}
	case lacksCPU:
		return lack("CPU", d.need.MilliCPU, most.MilliCPU, "at most ", cpus)
	case lacksMemory:
		return lack("memory", d.need.Memory, most.Memory, "at most ", bytesText)
	case lacksGPUs:
		return lack("GPUs", int64(d.need.GPUs), int64(most.GPUs), "at most ", count)
	default:
	}
	return d.general(o)
}

// lack is `memory: 512 MiB wanted, 130 MiB free`.
func lack(what string, want, free int64, bound string, text func(int64) string) string {
	free = max(free, 0)
	w, f := text(want), text(free)
	if w == f { // but for rounding
		w, f = count(want)+" B", count(free)+" B"
	}
	return what + ": " + w + " wanted, " + bound + f + " free"
}

func cpus(n int64) string { return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) }

func bytesText(n int64) string { return strings.Replace(size.Text(n), ".0 ", " ", 1) }

func count(n int64) string { return strconv.FormatInt(n, 10) }
