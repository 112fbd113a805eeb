package apps

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
)

// compare lists what differs in the manifests of two specs, by path.
func compare(a *app.Spec, b app.Spec) ([]fieldChange, error) {
	if a == nil {
		return []fieldChange{}, nil
	}
	x, err := flatten(*a)
	if err != nil {
		return nil, err
	}
	y, err := flatten(b)
	if err != nil {
		return nil, err
	}
	paths := map[string]struct{}{}
	for p := range x {
		paths[p] = struct{}{}
	}
	for p := range y {
		paths[p] = struct{}{}
	}
	out := []fieldChange{}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if string(x[p]) != string(y[p]) {
			out = append(out, fieldChange{Path: p, Old: x[p], New: y[p]})
		}
	}
	return out, nil
}

// flatten is the manifest of a spec by the paths of its leaves.
func flatten(s app.Spec) (map[string]json.RawMessage, error) {
	text, err := manifest.Of(s)
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	var walk func(path string, text json.RawMessage)
	walk = func(path string, text json.RawMessage) {
		var fields map[string]json.RawMessage
		if len(text) > 0 && text[0] == '{' && json.Unmarshal(text, &fields) == nil {
			for k, f := range fields {
				if path != "" {
					k = path + "." + k
				}
				walk(k, f)
			}
			return
		}
		out[path] = text
	}
	walk("", text)
	return out, nil
}
