package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// table is a table of keys and values.
type table string

const (
	apps     table = "apps"
	replicas table = "replicas"
	hosts    table = "hosts"
	settings table = "settings"
)

// change is an app.Change on its way into the next transaction.
type change struct {
	steps  []step
	events []app.Event // the caller's own, for the ids
	texts  []string    // of events, in JSON
	done   bool
	err    error
}

// step is a row to write or, without a value, to delete.
type step struct {
	table table
	key   string
	value any
}

// Commit makes a change durable. Changes that come at the same time share a
// transaction and so its wait for the disk: whoever comes first commits for
// all. What of a change is in the file already is not written again. Within a
// change, deletions come first.
func (s *Store) Commit(ctx context.Context, c app.Change) error {
	w, err := encode(c)
	if err != nil {
		return err
	}
	if len(w.steps) == 0 && len(w.events) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write the controller's state: %w", err)
	}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()

	s.commit.Lock()
	defer s.commit.Unlock()
	if w.done {
		return w.err
	}
	s.mu.Lock()
	batch := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	s.commitAll(context.WithoutCancel(ctx), batch) // others' changes do not end with our caller
	return w.err
}

// commitAll commits changes together or, if that does not work, one by one, so
// that none fails for another's sake: one that deletes may fit on a full disk.
func (s *Store) commitAll(ctx context.Context, batch []*change) {
	err := s.run(ctx, batch)
	for _, w := range batch {
		w.done, w.err = true, err
		if err != nil && len(batch) > 1 {
			w.err = s.run(ctx, []*change{w})
		}
	}
}

// run is one transaction.
func (s *Store) run(ctx context.Context, batch []*change) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return failed(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it says that it is done
	last, err := s.fill(ctx, tx, batch)
	if err != nil {
		return failed(err)
	}
	if err := tx.Commit(); err != nil {
		return failed(err)
	}
	for _, w := range batch {
		for i := range w.events {
			s.last++
			w.events[i].ID = s.last
		}
	}
	if s.last != last {
		panic("BUG: ids of events were given twice")
	}
	return nil
}

// fill executes the statements of a transaction and returns the id of the last event.
func (s *Store) fill(ctx context.Context, tx *sql.Tx, batch []*change) (last int64, err error) {
	bound := map[*sql.Stmt]*sql.Stmt{}
	exec := func(stmt *sql.Stmt, args ...any) error {
		if bound[stmt] == nil {
			bound[stmt] = tx.StmtContext(ctx, stmt)
		}
		_, err := bound[stmt].ExecContext(ctx, args...)
		return err
	}
	last = s.last
	for _, w := range batch {
		for _, st := range w.steps {
			if st.value == nil {
				err = exec(s.del[st.table], st.key)
			} else {
				err = exec(s.put[st.table], st.key, st.value)
			}
			if err != nil {
				return 0, err
			}
		}
		for i, e := range w.events {
			last++
			if err := exec(s.add, last, stamp(e.Time), string(e.Type), e.App, e.Host, w.texts[i]); err != nil {
				return 0, err
			}
		}
	}
	return last, prune(ctx, tx, s.last, last)
}

// failed is an error of a transaction, which has changed nothing.
func failed(err error) error {
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_ERROR, 0:
		return fmt.Errorf("write the controller's state: %w", err)
	case sqlite3.SQLITE_FULL:
		return errs.E(errs.Unavailable, "write the controller's state: the disk is full: %w", err)
	default: // an I/O error, no memory, a file system that has become read-only: it may pass
		return errs.E(errs.Unavailable, "write the controller's state: %w", err)
	}
}

// encode makes a change ready to be written, by the caller rather than by the
// one who commits for all.
func encode(c app.Change) (*change, error) {
	w := &change{events: c.Events, texts: make([]string, len(c.Events))}
	w.steps = make([]step, 0, len(c.Apps)+len(c.Replicas)+len(c.Hosts)+len(c.Settings)+len(c.DropApps)+len(c.DropReplicas)+len(c.DropHosts))
	drop(w, replicas, c.DropReplicas)
	drop(w, apps, c.DropApps)
	drop(w, hosts, c.DropHosts)
	for key, value := range c.Settings {
		st := step{settings, key, nil}
		if value != nil {
			st.value = value
		}
		w.steps = append(w.steps, st)
	}
	if err := put(w, apps, c.Apps, func(a *app.App) string { return a.Name }); err != nil {
		return nil, err
	}
	if err := put(w, replicas, c.Replicas, func(r *app.Replica) string { return r.ID }); err != nil {
		return nil, err
	}
	if err := put(w, hosts, c.Hosts, func(h *app.Host) string { return h.ID }); err != nil {
		return nil, err
	}
	for i, e := range c.Events {
		var err error
		e.ID = 0
		if w.texts[i], err = text(e); err != nil {
			return nil, errs.E(errs.Invalid, "event %q: %w", e.Message, err)
		}
	}
	return w, nil
}

func drop(w *change, t table, keys []string) {
	for _, key := range keys {
		w.steps = append(w.steps, step{t, key, nil})
	}
}

func put[T any](w *change, t table, values []T, key func(*T) string) error {
	for i := range values {
		v := &values[i]
		value, err := text(v)
		if err != nil {
			return errs.E(errs.Invalid, "%s %q: %w", strings.TrimSuffix(string(t), "s"), key(v), err)
		}
		w.steps = append(w.steps, step{t, key(v), value})
	}
	return nil
}

// text is v in JSON, in which < and > stay what they are.
func text(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// Times are nanoseconds since 1970; 0 is the zero time.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
