package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/buoy-edge/buoy/app"
)

// How many events are kept: the oldest go first. An app that is in trouble
// does not push out what happened to others. Each time pruneEvery more have
// come, so many fewer than the bounds are left, so that nothing is counted or
// deleted in between. A round of it takes 2 ms (2026-11).
const (
	maxEvents    = 20_000
	maxAppEvents = 2_000
	pruneEvery   = 500
)

// prune forgets old events when those up to last have been added to those up to former.
func prune(ctx context.Context, tx *sql.Tx, former, last int64) error {
	if former/pruneEvery == last/pruneEvery {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `WITH crowded AS (SELECT app FROM events WHERE app <> '' GROUP BY app HAVING count(*) > ?)
		DELETE FROM events WHERE id IN (SELECT old.id FROM crowded, events old WHERE old.app <> '' AND old.app = crowded.app
		AND old.id <= (SELECT e.id FROM events e WHERE e.app <> '' AND e.app = crowded.app ORDER BY e.id DESC LIMIT 1 OFFSET ?))`,
		maxAppEvents-pruneEvery, maxAppEvents-pruneEvery); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)",
		maxEvents-pruneEvery)
	return err
}

// defaultLimit is how many events a query that does not say gets.
const defaultLimit = 100

// Events are the newest that match, newest first, and how many match in all.
func (s *Store) Events(ctx context.Context, q app.EventQuery) (all []app.Event, total int, err error) {
	stmt, args := selectEvents(q)
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// Waiting for a commit ends with ctx. The query takes milliseconds and does
	// not: the driver closes the file after one that was interrupted.
	rows, err := conn.QueryContext(context.WithoutCancel(ctx), stmt, args...)
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		var value sql.RawBytes
		if err := rows.Scan(&id, &value, &total); err != nil {
			return nil, 0, fmt.Errorf("read events: %w", err)
		}
		var e app.Event
		if err := json.Unmarshal(value, &e); err != nil {
			return nil, 0, fmt.Errorf("read event %d: %w", id, err)
		}
		e.ID = id
		all = append(all, e)
	}
	return all, total, rows.Err()
}

func selectEvents(q app.EventQuery) (stmt string, args []any) {
	where, args := conditions(q)
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	return "SELECT id, value, (SELECT count(*) FROM events" + where + ") FROM events" + where + " ORDER BY id DESC LIMIT ?",
		append(append(args, args...), limit)
}

// conditions are a WHERE clause, empty if everything matches, and its arguments.
func conditions(q app.EventQuery) (string, []any) {
	var terms []string
	var args []any
	add := func(wanted bool, term string, arg any) {
		if wanted {
			terms, args = append(terms, term), append(args, arg)
		}
	}
	add(q.App != "", "app <> '' AND app = ?", q.App)
	add(q.Host != "", "host <> '' AND host = ?", q.Host)
	add(q.Type != "", "type = ?", string(q.Type))
	add(!q.Since.IsZero(), "time >= ?", stamp(q.Since))
	add(q.After > 0, "id > ?", q.After)
	if terms == nil {
		return "", nil
	}
	return " WHERE " + strings.Join(terms, " AND "), args
}
