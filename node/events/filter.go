package events

import (
	"fmt"
	"slices"
	"time"
)

// Filter selects events. The zero value selects all; of several values in a
// list one has to fit. A gap is always selected.
type Filter struct {
	Types      []string // types, or kinds: "container" for all of containers
	Containers []string
	Images     []string // as the node normalises references
	Node       bool     // none of a controller's apps and hosts
	Since      time.Time
	Until      time.Time
}

// CheckTypes refuses what is no type of event, nor a kind of types.
func CheckTypes(all []string) error {
	for _, text := range all {
		if !slices.ContainsFunc(Types(), func(m Meaning) bool { return m.Type.Is(text) }) {
			return fmt.Errorf("%q is no type of event, nor a kind like container", text)
		}
	}
	return nil
}

// All says that every event is selected.
func (f *Filter) All() bool {
	return len(f.Types)+len(f.Containers)+len(f.Images) == 0 && !f.Node && f.Since.IsZero() && f.Until.IsZero()
}

// Fits says whether e is selected.
func (f *Filter) Fits(e *Event) bool {
	if e.Type == Gap {
		return true
	}
	is := func(list []string, ok func(string) bool) bool { return len(list) == 0 || slices.ContainsFunc(list, ok) }
	return is(f.Types, e.Type.Is) &&
		is(f.Containers, func(s string) bool { return s == e.Data.Container }) &&
		is(f.Images, func(s string) bool { return s == e.Data.Image }) &&
		!(f.Node && e.Type.Fleet()) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) && (f.Until.IsZero() || !e.Time.After(f.Until))
}

// Select leaves of records those that are selected.
func (f *Filter) Select(all []Record) []Record {
	if f.All() {
		return all
	}
	return slices.DeleteFunc(all, func(r Record) bool {
		e, err := r.Event()
		return err != nil || !f.Fits(&e)
	})
}
