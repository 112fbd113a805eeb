package sqlite

import (
	"context"
	"errors"

	"github.com/buoy-edge/buoy/app"
)

// The bounds of events.
const (
	MaxEvents    = maxEvents
	MaxAppEvents = maxAppEvents
	PruneEvery   = pruneEvery
)

// Exec executes a statement beside everything else.
func (s *Store) Exec(ctx context.Context, stmt string) error {
	_, err := s.db.ExecContext(ctx, stmt)
	return err
}

// Hold lets nobody commit until release is called.
func (s *Store) Hold() (release func()) {
	s.commit.Lock()
	return s.commit.Unlock
}

// Waiting is how many changes wait for the next transaction.
func (s *Store) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// Plan is how SQLite finds the events of a query.
func (s *Store) Plan(ctx context.Context, q app.EventQuery) (plan []string, err error) {
	stmt, args := selectEvents(q)
	rows, err := s.db.QueryContext(ctx, "EXPLAIN QUERY PLAN "+stmt, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			return nil, err
		}
		plan = append(plan, detail)
	}
	return plan, rows.Err()
}
