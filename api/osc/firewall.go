package osc

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/app"
)

// A port of a container is reached from outside its host's bridge only where
// the host publishes it, and then by everybody. So rules say what is published;
// what they say besides is refused, since nobody would see to it.

// span is ports from one to another, both included.
type span struct{ first, last uint16 }

// spansOf reads "80", "1-30" or "22,3389,80"; empty or "*" is all.
func spansOf(text string) (spans []span, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" || text == "*" {
		return []span{{1, 65535}}, true
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil || first == 0 || last < first {
			return nil, false
		}
		spans = append(spans, span{uint16(first), uint16(last)})
	}
	return spans, true
}

// anywhere says that a rule is about everybody.
func (r rule) anywhere() bool { return r.CIDR == "" || r.CIDR == "*" || r.CIDR == "0.0.0.0/0" }

// covers says whether a rule is about ports of TCP, or of UDP.
func (r rule) covers(proto string) bool {
	return r.Protocol == "" || r.Protocol == "*" || r.Protocol == proto
}

// firewall has which ports of TCP and of UDP may be reached. What no rule
// allows may not.
type firewall struct{ tcp, udp []bool }

// firewall decides by the rules of groups, of which that with the lowest
// priority wins.
func (c *checker) firewall(groups []int) firewall {
	var rules []rule
	for _, g := range groups {
		rules = append(rules, c.desc.Network.Security[g].Rules...)
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(a.Priority, b.Priority) })
	return firewall{decide(rules, "tcp"), decide(rules, "udp")}
}

func decide(rules []rule, proto string) []bool {
	const ports = 1 << 16
	open := make([]bool, ports)
	// next leads from a port to one nearer to the first that is not decided yet,
	// itself if that is it: so each port is decided once, however many rules there are.
	next := make([]int32, ports+1)
	for i := range next {
		next[i] = int32(i)
	}
	find := func(p int32) int32 {
		for next[p] != p {
			next[p] = next[next[p]]
			p = next[p]
		}
		return p
	}
	for _, r := range rules {
		if r.Direction != "inbound" || !r.covers(proto) {
			continue
		}
		spans, _ := spansOf(string(r.Ports))
		for _, s := range spans {
			for p := find(int32(s.first)); p <= int32(s.last); p = find(p) {
				open[p], next[p] = r.Action == "allow", p+1
			}
		}
	}
	return open
}

// opens says whether a port may be reached.
func (f firewall) opens(proto string, port uint16) bool {
	if proto == "udp" {
		return f.udp[port]
	}
	return f.tcp[port]
}

// all are the ports that are open. It is not ok if there are too many.
func (f firewall) all() (ports []app.Port, ok bool) {
	for port := range 1 << 16 {
		if f.tcp[port] {
			ports = append(ports, app.Port{Container: uint16(port)})
		}
		if f.udp[port] {
			ports = append(ports, app.Port{Container: uint16(port), Proto: "udp"})
		}
		if len(ports) > maxPorts {
			return nil, false
		}
	}
	return ports, true
}

// enforce refuses rules of a group that nobody could see to.
func (c *checker) enforce(group int) {
	for i, r := range c.desc.Network.Security[group].Rules {
		path := fmt.Sprintf("network.security[%d].rules[%d]", group, i)
		every := r.Ports == "" || r.Ports == "*"
		switch {
		case !r.anywhere():
			c.add(path+".cidr", "is %q, and buoy cannot restrict who reaches a port: hosts publish it for everybody. It must be *; "+
				"let the firewall of the hosts do the rest", r.CIDR)
		case r.Direction == "outbound" && (r.Action == "deny" || !every || r.Protocol != "" && r.Protocol != "*"):
			c.add(path+".direction", "is outbound, and buoy does not filter what containers send; leave the rule out, or allow all")
		case r.Direction == "inbound" && r.Action == "allow" && r.Protocol == "icmp":
			c.add(path+".protocol", "is icmp, which does not reach containers from outside: they are behind the address of their host")
		}
	}
}
