package app

import "context"

// Store keeps what the engine must not forget. One engine at a time uses it.
// Values that are handed in or out are not changed afterwards by either side.
type Store interface {
	// Load is everything but events.
	Load(ctx context.Context) (State, error)
	// Commit makes a change durable, all of it or nothing, and gives its events
	// their ids. Putting what is there and deleting what is not there is fine.
	// Unavailable: nothing was changed and the same may work later (a full
	// disk, say).
	Commit(ctx context.Context, c Change) error
	// Events are the newest that match, newest first, and how many match in
	// all. Old ones are forgotten, beyond a bound that the store has.
	Events(ctx context.Context, q EventQuery) ([]Event, int, error)
}

// State is all apps, replicas and hosts.
type State struct {
	Apps     []App
	Replicas []Replica
	Hosts    []Host
	Settings map[string][]byte // what else is to be kept, by key: tokens, configuration
}

// Change is a set of things to put and to delete.
type Change struct {
	Apps     []App
	Replicas []Replica
	Hosts    []Host
	Settings map[string][]byte // nil value: delete

	DropApps     []string // by name
	DropReplicas []string // by id
	DropHosts    []string // by id

	Events []Event // ids are given by the store, which sets them here
}
