package app

import (
	"fmt"
	"strings"
)

// several is "1 replica" or "3 replicas".
func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// hostName is how sentences name a host: two may have one name, now or later, so
// its id is said with it.
func hostName(name, id string) string {
	switch {
	case name == "" || name == id:
		return id
	case id == "":
		return name
	}
	return name + " (" + id + ")"
}

// Called is how sentences name the host.
func (h *Host) Called() string { return hostName(h.Name, h.ID) }

// String is "host edge-7 (k7qd5m2hzv): takes nothing new".
func (w WhyNot) String() string {
	switch {
	case w.Host != "":
		return "host " + hostName(w.Name, w.Host) + ": " + w.Reason
	case w.Name != "":
		return w.Name + ": " + w.Reason
	}
	return w.Reason
}

// maxReasons is how many hosts a sentence tells of.
const maxReasons = 20

// Reasons says in one line why hosts take no replica.
func Reasons(hosts []WhyNot) string {
	if len(hosts) == 0 {
		return "there is no host"
	}
	var all []string
	for _, h := range hosts[:min(len(hosts), maxReasons)] {
		all = append(all, h.String())
	}
	if more := len(hosts) - len(all); more > 0 {
		all = append(all, "and "+several(more, "more host"))
	}
	return strings.Join(all, "; ")
}
