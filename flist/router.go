package flist

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/internal/errs"
)

// maxRoutes is one for each first byte, four times.
const maxRoutes = 1024

// setRouter reads a router.yaml as 0-fs does. Pools are in the order of lookup; those that only cache come last.
func (m *Meta) setRouter(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) > maxRouter {
		return errs.E(errs.Invalid, "its router.yaml is longer than %d bytes", maxRouter)
	}
	var r struct {
		Pools  map[string]map[string]string `yaml:"pools"`
		Lookup []string                     `yaml:"lookup"`
		Cache  []string                     `yaml:"cache"`
	}
	if err := yaml.Unmarshal(b, &r); err != nil {
		return errs.E(errs.Invalid, "its router.yaml: %s", brief(err))
	}
	var order []string
	for _, name := range slices.Concat(r.Lookup, r.Cache) {
		if _, ok := r.Pools[name]; !ok {
			return errs.E(errs.Invalid, "its router.yaml has no pool %.40q", name)
		}
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for i, name := range order {
		for _, span := range slices.Sorted(maps.Keys(r.Pools[name])) {
			from, to, err := hexRange(span)
			if err == nil && len(m.Routes) >= maxRoutes {
				err = fmt.Errorf("there are more than %d", maxRoutes)
			}
			if err != nil {
				return errs.E(errs.Invalid, "the routes of its router.yaml: %w", err)
			}
			m.Routes = append(m.Routes, Route{Pool: i, From: from, To: to, URL: r.Pools[name][span], Cache: slices.Contains(r.Cache, name)})
		}
	}
	return nil
}

// hexRange reads "ab" or "00:ff". Both ends count whole bytes: a digit that is missing at the end is 0, as in 0-fs.
func hexRange(s string) (from, to string, err error) {
	from, to, ok := strings.Cut(strings.ToLower(s), ":")
	if !ok {
		to = from
	}
	if len(from)%2 != 0 {
		from += "0"
	}
	if len(to)%2 != 0 {
		to += "0"
	}
	for _, end := range []string{from, to} {
		if _, err := hex.DecodeString(end); err != nil || end == "" || len(end) > 64 || len(end) != len(from) {
			return "", "", fmt.Errorf("%.40q is no range of chunks", s)
		}
	}
	return from, to, nil
}
