package osc

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	"github.com/buoy-edge/buoy/internal/size"
)

// What a descriptor may have; it costs what it is.
const (
	maxContainers = 64
	maxPorts      = 64   // of a container
	maxRules      = 1000 // of all security groups
)

// checker collects what is wrong with a descriptor, beyond the types of its fields.
type checker struct {
	desc     descriptor
	lengths  map[string]int // of the lists that references lead to
	problems app.Problems
}

// read reads a descriptor. Its error is app.Problems.
func read(raw []byte) (*checker, error) {
	c := &checker{}
	if err := manifest.Decode(raw, &c.desc); err != nil {
		if problems, ok := errors.AsType[app.Problems](err); ok && problems[0].Path == "" { // it is the only one then
			problems[0].Path = "the descriptor"
		}
		return nil, err
	}
	d := &c.desc
	c.lengths = map[string]int{
		"image.provisioners": len(d.Image.Provisioners), "image.base": len(d.Image.Base), "image.artifacts": len(d.Image.Artifacts),
		"compute.vm": len(d.Compute.VM), "compute.containers": len(d.Compute.Containers),
		"network.vpc": len(d.Network.VPC), "network.subnet": len(d.Network.Subnet), "network.security": len(d.Network.Security),
		"storage": len(d.Storage),
	}
	c.bounds()
	c.images()
	c.machines()
	c.networks()
	for i, s := range d.Storage {
		if _, err := size.Parse(string(s.Size)); s.Size != "" && err != nil {
			c.add(fmt.Sprintf("storage[%d].size", i), "is %q; it must be a size, like 8GiB", s.Size)
		}
	}
	if len(d.Compute.Containers) == 0 && len(d.Compute.VM) == 0 {
		c.add("compute.containers", "is missing: it says what the service runs; see docs/osc.md")
	}
	return c, nil
}

// bounds refuses what there is too much of. The rest is not looked at then.
func (c *checker) bounds() {
	d := &c.desc
	if n := len(d.Compute.Containers); n > maxContainers {
		c.add("compute.containers", "has %d of them; at most %d are possible", n, maxContainers)
		d.Compute.Containers = d.Compute.Containers[:1]
	}
	for i := range d.Compute.Containers {
		one := &d.Compute.Containers[i]
		if n := len(one.Ports); n > maxPorts {
			c.add(fmt.Sprintf("compute.containers[%d].ports", i), "has %d of them; at most %d are possible", n, maxPorts)
			one.Ports = one.Ports[:maxPorts]
		}
	}
	rules := 0
	for _, g := range d.Network.Security {
		rules += len(g.Rules)
	}
	if rules > maxRules {
		c.add("network.security", "has %d rules; at most %d are possible", rules, maxRules)
		for i := range d.Network.Security {
			d.Network.Security[i].Rules = nil
		}
	}
}

func (c *checker) add(path, format string, args ...any) {
	c.problems = append(c.problems, app.Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

var refForm = regexp.MustCompile(`^\$\.([a-z]+(?:\.[a-z]+)*)\[([0-9]{1,6})\]$`)

// ref is the index that a reference has in the list that it must lead to.
func (c *checker) ref(path, text, list string) (index int, ok bool) {
	parts := refForm.FindStringSubmatch(text)
	if parts == nil {
		c.add(path, "is %q; it must be a reference, like $.%s[0]", text, list)
		return 0, false
	}
	there, known := c.lengths[parts[1]]
	index, _ = strconv.Atoi(parts[2]) // has at most six digits
	switch {
	case !known:
		c.add(path, "is %q, and there is no %s", text, parts[1])
	case parts[1] != list:
		c.add(path, "is %q; it must lead to one of %s", text, list)
	case index >= there:
		c.add(path, "is %q, which leads nowhere: %s has %d", text, list, there)
	default:
		return index, true
	}
	return 0, false
}

// refs are all of a list that lead somewhere.
func (c *checker) refs(path string, texts []string, list string) (indices []int) {
	for i, text := range texts {
		if n, ok := c.ref(fmt.Sprintf("%s[%d]", path, i), text, list); ok {
			indices = append(indices, n)
		}
	}
	return indices
}

func (c *checker) images() {
	for i, a := range c.desc.Image.Artifacts {
		path := fmt.Sprintf("image.artifacts[%d]", i)
		if a.Base != "" {
			c.ref(path+".base", a.Base, "image.base")
		}
		c.refs(path+".provisioners", a.Provisioners, "image.provisioners")
	}
}

// machines are refused, with all else that is wrong with them.
func (c *checker) machines() {
	for i, m := range c.desc.Compute.VM {
		path := fmt.Sprintf("compute.vm[%d]", i)
		if m.Image != "" {
			c.ref(path+".image", m.Image, "image.artifacts")
		}
		c.refs(path+".subnet", m.Subnet, "network.subnet")
		c.refs(path+".security", m.Security, "network.security")
		c.refs(path+".storage", m.Storage, "storage")
	}
	if len(c.desc.Compute.VM) > 0 {
		c.add("compute.vm", "asks for virtual machines, and buoy runs containers: describe them as compute.containers, see docs/osc.md")
	}
}

func (c *checker) networks() {
	n := &c.desc.Network
	vpcs := make([]netip.Prefix, len(n.VPC))
	for i, v := range n.VPC {
		vpcs[i], _ = c.cidr(fmt.Sprintf("network.vpc[%d].cidr", i), v.CIDR)
	}
	for i, s := range n.Subnet {
		path := fmt.Sprintf("network.subnet[%d]", i)
		net, ok := c.cidr(path+".cidr", s.CIDR)
		if s.VPC == "" {
			continue
		}
		at, led := c.ref(path+".vpc", s.VPC, "network.vpc")
		if ok && led && vpcs[at].IsValid() && (!vpcs[at].Contains(net.Addr()) || net.Bits() < vpcs[at].Bits()) {
			c.add(path+".cidr", "is %s, which is not within %s of its vpc", s.CIDR, n.VPC[at].CIDR)
		}
	}
	for i, s := range n.Security {
		for j, r := range s.Rules {
			path := fmt.Sprintf("network.security[%d].rules[%d]", i, j)
			if !r.anywhere() {
				c.cidr(path+".cidr", r.CIDR)
			}
			if _, ok := spansOf(string(r.Ports)); !ok {
				c.add(path+".ports", `is %q; it must be ports, like "80", "1-30" or "22,3389,80"`, r.Ports)
			}
		}
	}
}

// cidr reads a network, which need not be said.
func (c *checker) cidr(path, text string) (net netip.Prefix, ok bool) {
	if text == "" {
		return net, false
	}
	net, err := netip.ParsePrefix(text)
	if err != nil {
		c.add(path, "is %q; it must be a network, like 10.20.1.0/24", text)
		return net, false
	}
	return net, true
}
