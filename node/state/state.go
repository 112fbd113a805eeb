// Package state is the node's SQLite file: the desired state of its
// containers, durable before anything is done about it.
package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Record is one container as the file has it.
type Record struct {
	Name    string
	Spec    []byte // JSON; opaque here
	Wanted  Wanted
	Person  bool   // Wanted is what a person asked for, not what a restart policy decided
	NICs    []byte // JSON; opaque here: what the node gave each NIC, kept as long as the container has it
	GPUs    []byte // JSON; opaque here: what it was given
	Created time.Time

	// The last run, for restart policies and for people. Started without
	// Finished: it ran when the record was written.
	Started  time.Time
	Finished time.Time
	ExitCode int
	OOM      bool
	Restarts int // by policy
	Quick    int // of these, in a row after short runs
	Reason   string
	Message  string
}

// Wanted is what should be the case.
type Wanted string

// The two things that can be wanted of a container that exists.
const (
	Run  Wanted = "run"
	Halt Wanted = "halt"
)

// migrations lead from an empty file to what this buoyd knows; a newer version
// of the file is a further step.
var migrations = []string{containersTable, nicsColumn, bridgesTables, webhooksTable, gpusColumn, sealed}

const containersTable = `
CREATE TABLE containers (
	name     TEXT PRIMARY KEY,
	spec     TEXT NOT NULL,
	wanted   TEXT NOT NULL,
	person   INTEGER NOT NULL,
	address  TEXT NOT NULL,
	created  INTEGER NOT NULL,
	started  INTEGER NOT NULL,
	finished INTEGER NOT NULL,
	exit     INTEGER NOT NULL,
	oom      INTEGER NOT NULL,
	restarts INTEGER NOT NULL,
	quick    INTEGER NOT NULL,
	reason   TEXT NOT NULL,
	message  TEXT NOT NULL
) STRICT;
`

// nicsColumn replaces the one address by what each NIC was given.
const nicsColumn = `
UPDATE containers SET address = CASE address WHEN '' THEN '[]' ELSE json_array(json_object('key', 'default', 'addrs', json_array(address))) END;
ALTER TABLE containers RENAME COLUMN address TO nics;
`

const gpusColumn = `ALTER TABLE containers ADD COLUMN gpus TEXT NOT NULL DEFAULT '';`

// sealed is the form in which secrets may be sealed, which nobody before it can read.
const sealed = ""

// DB is the open file. One buoyd at a time has it open.
type DB struct {
	db    *sql.DB
	fresh bool

	mu      sync.Mutex // guards waiting
	waiting []*change
	commit  sync.Mutex // held by the one that commits for all who wait
}

// change is one statement on its way into the next transaction.
type change struct {
	stmt string
	args []any
	done bool
	err  error
}

// Open opens or makes the file. Conflict: another buoyd has it, or it is from a newer one.
func Open(ctx context.Context, path string) (*DB, error) {
	// The driver sorts pragmas and sets the journal mode last. Nothing may read
	// the file before locking_mode, so that there is no -shm file: a full disk
	// would have no room for it when a node starts.
	q := url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_pragma": {
		"busy_timeout(1000)", "synchronous(FULL)", // FULL: an acknowledged create survives a power cut
		"locking_mode(EXCLUSIVE)", "wal_autocheckpoint(256)", "main.cache_size(-512)",
	}}
	// SQLite would make it readable to everyone; its companions take over the mode.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	db.SetMaxOpenConns(1)
	d := &DB{db: db}
	if err := d.migrate(ctx, path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// Schema is the version of the form of a file, which migrations raise. It takes
// in what is in its -wal.
func Schema(ctx context.Context, path string) (version int, err error) {
	if _, err := os.Stat(path); err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?_pragma=locking_mode(EXCLUSIVE)")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return version, nil
}

func (d *DB) migrate(ctx context.Context, path string) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return errs.E(errs.Conflict, "open %s: another buoyd may be using it: %w", path, err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it says that it is done
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if version > len(migrations) {
		return errs.E(errs.Conflict, "%s is from a newer buoyd (version %d, this one knows %d); install that one or run \"buoy reset\"", path, version, len(migrations))
	}
	var mark int
	if err := tx.QueryRowContext(ctx, "PRAGMA application_id").Scan(&mark); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	d.fresh = version == 0 || mark == unsettled
	for _, step := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("upgrade %s: %w", path, err)
		}
	}
	if version == len(migrations) {
		return nil
	}
	pragmas := fmt.Sprintf("PRAGMA user_version = %d", len(migrations))
	if version == 0 {
		pragmas += fmt.Sprintf("; PRAGMA application_id = %d", unsettled)
	}
	if _, err := tx.ExecContext(ctx, pragmas); err != nil {
		return fmt.Errorf("upgrade %s: %w", path, err)
	}
	return tx.Commit()
}

// unsettled is the mark of a file that was made, and with which nobody has said
// yet that it is the node's. Files from before there was a mark have none.
const unsettled = 1

// Fresh says that the file was made by Open, or was empty, now or before, and
// that Settle has not been called since.
func (d *DB) Fresh() bool { return d.fresh }

// Settle says that a fresh file is the node's.
func (d *DB) Settle(ctx context.Context) error {
	if _, err := d.db.ExecContext(ctx, "PRAGMA application_id = 0"); err != nil {
		return fmt.Errorf("settle state: %w", err)
	}
	d.fresh = false
	return nil
}

// Close closes the file.
func (d *DB) Close() error { return d.db.Close() }

// Put writes a record, new or not. It is durable when Put returns.
func (d *DB) Put(ctx context.Context, r Record) error {
	return d.apply(ctx, `INSERT INTO containers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (name) DO UPDATE SET spec=excluded.spec, wanted=excluded.wanted, person=excluded.person,
		nics=excluded.nics, created=excluded.created, started=excluded.started, finished=excluded.finished,
		exit=excluded.exit, oom=excluded.oom, restarts=excluded.restarts, quick=excluded.quick, reason=excluded.reason, message=excluded.message, gpus=excluded.gpus`,
		r.Name, string(r.Spec), string(r.Wanted), r.Person, string(r.NICs), stamp(r.Created), stamp(r.Started), stamp(r.Finished),
		r.ExitCode, r.OOM, r.Restarts, r.Quick, r.Reason, r.Message, string(r.GPUs))
}

// Delete forgets a record. Forgetting what is not there is fine.
func (d *DB) Delete(ctx context.Context, name string) error {
	return d.apply(ctx, "DELETE FROM containers WHERE name = ?", name)
}

// apply makes one change. Changes made at the same time share a transaction
// and so its wait for the disk: whoever comes first commits for all.
func (d *DB) apply(ctx context.Context, stmt string, args ...any) error {
	c := &change{stmt: stmt, args: args}
	d.mu.Lock()
	d.waiting = append(d.waiting, c)
	d.mu.Unlock()

	d.commit.Lock()
	defer d.commit.Unlock()
	if c.done {
		return c.err
	}
	d.mu.Lock()
	batch := d.waiting
	d.waiting = nil
	d.mu.Unlock()
	err := d.run(context.WithoutCancel(ctx), batch) // others' changes do not end with our caller
	for _, c := range batch {
		c.done, c.err = true, err
	}
	return err
}

func (d *DB) run(ctx context.Context, batch []*change) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return failed(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it says that it is done
	for _, c := range batch {
		if _, err := tx.ExecContext(ctx, c.stmt, c.args...); err != nil {
			return failed(err)
		}
	}
	if err := tx.Commit(); err != nil {
		return failed(err)
	}
	return nil
}

func failed(err error) error {
	return errs.E(errs.Unavailable, "write the node's state: %w", err)
}

// Containers are all records, in the order of their creation.
func (d *DB) Containers(ctx context.Context) (all []Record, err error) {
	rows, err := d.db.QueryContext(ctx, `SELECT name, spec, wanted, person, nics, created, started, finished,
		exit, oom, restarts, quick, reason, message, gpus FROM containers ORDER BY created, name`)
	if err != nil {
		return nil, fmt.Errorf("read the node's state: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r Record
		var created, started, finished int64
		var spec, wanted, nics, gpus string
		if err := rows.Scan(&r.Name, &spec, &wanted, &r.Person, &nics, &created, &started, &finished,
			&r.ExitCode, &r.OOM, &r.Restarts, &r.Quick, &r.Reason, &r.Message, &gpus); err != nil {
			return nil, fmt.Errorf("read the node's state: %w", err)
		}
		r.Spec, r.Wanted, r.NICs = []byte(spec), Wanted(wanted), []byte(nics)
		if gpus != "" {
			r.GPUs = []byte(gpus)
		}
		r.Created, r.Started, r.Finished = moment(created), moment(started), moment(finished)
		all = append(all, r)
	}
	return all, rows.Err()
}

// Times are nanoseconds since 1970; 0 is the zero time.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
