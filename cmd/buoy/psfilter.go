package main

import (
	"fmt"
	"slices"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// states are those that a container can be in.
var states = []string{"creating", "standby", "running", "stopping", "restarting", "halted", "deleting"}

// psFilter is what containers have to be to be listed: of each key that is given,
// one of its values, and all of the labels.
type psFilter struct{ names, states, images, labels []string }

func parseFilter(texts []string) (f psFilter, err error) {
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		switch {
		case !ok || value == "":
			return f, fmt.Errorf("--filter %s: want KEY=VALUE", text)
		case key == "name":
			f.names = append(f.names, value)
		case key == "status" && !slices.Contains(states, value):
			return f, fmt.Errorf("--filter %s: want %s", text, quoted(states))
		case key == "status":
			f.states = append(f.states, value)
		case key == "image":
			f.images = append(f.images, normalRef(value))
		case key == "label":
			f.labels = append(f.labels, value)
		default:
			return f, fmt.Errorf("--filter %s: the keys are name, status, image and label", text)
		}
	}
	return f, nil
}

// takes says whether a container is listed. Halted ones are if all are, or if a
// state was asked for.
func (f psFilter) takes(one buoy.ContainerSummary, all bool) bool {
	state := stateOf(one)
	if !all && len(f.states) == 0 && state == "halted" {
		return false
	}
	named := func(part string) bool { return strings.Contains(one.Name, part) }
	lacks := func(label string) bool {
		key, want, valued := strings.Cut(label, "=")
		value, has := one.Labels[key]
		return !has || valued && value != want
	}
	return (len(f.names) == 0 || slices.ContainsFunc(f.names, named)) &&
		(len(f.states) == 0 || slices.Contains(f.states, state)) &&
		(len(f.images) == 0 || slices.Contains(f.images, normalRef(imageOf(one)))) &&
		!slices.ContainsFunc(f.labels, lacks)
}
