package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/buoy-edge/buoy/app"
)

// Load is everything but events.
func (s *Store) Load(ctx context.Context) (st app.State, err error) {
	if st.Apps, err = load[app.App](ctx, s.db, apps); err != nil {
		return app.State{}, err
	}
	if st.Replicas, err = load[app.Replica](ctx, s.db, replicas); err != nil {
		return app.State{}, err
	}
	if st.Hosts, err = load[app.Host](ctx, s.db, hosts); err != nil {
		return app.State{}, err
	}
	if st.Settings, err = loadSettings(ctx, s.db); err != nil {
		return app.State{}, err
	}
	return st, nil
}

func load[T any](ctx context.Context, db *sql.DB, t table) (all []T, err error) {
	rows, err := db.QueryContext(ctx, fmt.Sprintf("SELECT key, value FROM %s", t))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var key, value sql.RawBytes
		if err := rows.Scan(&key, &value); err != nil {
			return nil, fmt.Errorf("read %s: %w", t, err)
		}
		var v T
		if err := json.Unmarshal(value, &v); err != nil {
			return nil, fmt.Errorf("read %s: %q: %w", t, key, err)
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func loadSettings(ctx context.Context, db *sql.DB) (all map[string][]byte, err error) {
	rows, err := db.QueryContext(ctx, fmt.Sprintf("SELECT key, value FROM %s", settings))
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	all = map[string][]byte{}
	for rows.Next() {
		var key string
		value := []byte{}
		if err := rows.Scan(&key, &value); err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
		if value == nil {
			value = []byte{} // nil would mean that it is not there
		}
		all[key] = value
	}
	return all, rows.Err()
}
