// Package sqlite is the controller's SQLite file: an app.Store.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/buoy-edge/buoy/internal/errs"
)

// migrations lead from an empty file to what this buoyd knows; a newer version
// of the file is a further step.
var migrations = []string{firstTables}

// Values are JSON, but those of settings, which are whatever was given. What
// is asked for by more than its key has columns of its own. Partial indexes
// are used by queries that repeat their conditions.
const firstTables = `
CREATE TABLE apps     (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE replicas (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE hosts    (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE events (
	id    INTEGER PRIMARY KEY,
	time  INTEGER NOT NULL,
	type  TEXT NOT NULL,
	app   TEXT NOT NULL,
	host  TEXT NOT NULL,
	value TEXT NOT NULL
) STRICT;
CREATE INDEX events_time ON events (time);
CREATE INDEX events_type ON events (type);
CREATE INDEX events_app  ON events (app)  WHERE app <> '';
CREATE INDEX events_host ON events (host) WHERE host <> '';
`

// Store is the open file. One buoyd at a time has it open.
type Store struct {
	db  *sql.DB
	put map[table]*sql.Stmt
	del map[table]*sql.Stmt
	add *sql.Stmt // of an event

	mu      sync.Mutex // guards waiting
	waiting []*change
	commit  sync.Mutex // held by the one that commits for all who wait; guards last
	last    int64      // id of the newest event there ever was
}

// Open opens or makes the file. Conflict: another buoyd has it, or it is from a newer one.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	// The driver sorts pragmas and sets the journal mode last. Nothing may read
	// the file before locking_mode, so that there is no -shm file: a full disk
	// would have no room for it when a controller starts.
	q := url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_pragma": {
		"busy_timeout(1000)", "journal_size_limit(8388608)", "locking_mode(EXCLUSIVE)", "main.cache_size(-8192)",
		"synchronous(FULL)", // a replica is durable before its host is told of it
		"wal_autocheckpoint(1000)",
	}}
	if err := private(path); err != nil {
		return nil, fmt.Errorf("open the controller's state: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open the controller's state: %w", err)
	}
	db.SetMaxOpenConns(1)
	s := &Store{db: db, put: map[table]*sql.Stmt{}, del: map[table]*sql.Stmt{}}
	if err := s.migrate(ctx, path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), db.Close())
	}
	return s, nil
}

// private makes the file, if it is not there, and for its owner alone: SQLite
// would make it readable to everyone. Its companions take over the mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func (s *Store) migrate(ctx context.Context, path string) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		if code(err) == sqlite3.SQLITE_BUSY {
			return errs.E(errs.Conflict, "open %s: another buoyd is using it: %w", path, err)
		}
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it says that it is done
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if version > len(migrations) {
		return errs.E(errs.Conflict, "%s is from a newer buoyd (version %d, this one knows %d); install that one, or move the file away to begin anew",
			path, version, len(migrations))
	}
	for _, step := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("upgrade %s: %w", path, err)
		}
	}
	if version == len(migrations) {
		return nil
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return fmt.Errorf("upgrade %s: %w", path, err)
	}
	return tx.Commit()
}

// prepare makes the statements of Commit, which end with db. What would not
// change a row does not touch its page either.
func (s *Store) prepare(ctx context.Context) (err error) {
	for _, t := range []table{apps, replicas, hosts, settings} {
		put := fmt.Sprintf("INSERT INTO %s VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value WHERE value<>excluded.value", t)
		if s.put[t], err = s.db.PrepareContext(ctx, put); err != nil { //nolint:sqlclosecheck // see above
			return err
		}
		del := fmt.Sprintf("DELETE FROM %s WHERE key = ?", t)
		if s.del[t], err = s.db.PrepareContext(ctx, del); err != nil { //nolint:sqlclosecheck // see above
			return err
		}
	}
	if s.add, err = s.db.PrepareContext(ctx, "INSERT INTO events VALUES (?,?,?,?,?,?)"); err != nil {
		return err
	}
	return s.db.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM events").Scan(&s.last)
}

// Close closes the file. Nobody may be in the middle of a call.
func (s *Store) Close() error { return s.db.Close() }

// code is SQLite's primary code of an error, 0 if it is not SQLite's.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}
