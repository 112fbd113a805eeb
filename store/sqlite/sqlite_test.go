package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/store/sqlite"
	"github.com/buoy-edge/buoy/store/storetest"
)

func TestContract(t *testing.T) {
	testleak.Check(t)
	storetest.Run(t, func(t *testing.T, dir string) app.Store {
		return open(t, filepath.Join(dir, "controller.db"))
	})
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fresh is a new store and where it is. It is closed with the test.
func fresh(t testing.TB) (*sqlite.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "controller.db")
	s := open(t, path)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, path
}

func TestOnlyItsOwnerReadsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with space?and#")
	path := filepath.Join(dir, "controller.db")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	defer s.Close()
	if err := s.Commit(t.Context(), app.Change{Settings: map[string][]byte{"a": []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestOneOwner(t *testing.T) {
	_, path := fresh(t)
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, errs.Conflict) {
		t.Errorf("second Open = %v, want Conflict", err)
	}
}

func TestNewerFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "controller.db")
	s := open(t, path)
	if err := errors.Join(s.Exec(t.Context(), "PRAGMA user_version = 99"), s.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := sqlite.Open(t.Context(), path)
		if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "version 99") {
			t.Errorf("Open of a newer file = %v, want Conflict that names its version", err)
		}
	}
}

func TestGarbageIsNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "controller.db")
	garbage := strings.Repeat("not a database. ", 100)
	if err := os.WriteFile(path, []byte(garbage), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := sqlite.Open(t.Context(), path); err == nil {
		s.Close()
		t.Fatal("opened garbage")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != garbage {
		t.Error("the file was changed")
	}
}

// A value that this buoyd cannot read is named, not skipped.
func TestStrangeValue(t *testing.T) {
	s, _ := fresh(t)
	if err := s.Exec(t.Context(), `INSERT INTO apps VALUES ('web', '{"name":7}')`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), `apps: "web"`) {
		t.Errorf("Load = %v, want an error that names the app", err)
	}
}

// wal is the size of the file that commits are written to, and when that was last done.
func wal(t *testing.T, path string) (size int64, at time.Time) {
	t.Helper()
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size(), info.ModTime()
}

// What is there already costs no write: a controller's disk may be flash.
func TestNothingNewIsNotWritten(t *testing.T) {
	s, path := fresh(t)
	c := app.Change{
		Apps: []app.App{{Name: "web"}}, Replicas: fleet(100), Hosts: []app.Host{{ID: "h"}},
		Settings: map[string][]byte{"a": []byte("1"), "b": nil}, DropApps: []string{"x"}, DropReplicas: []string{"x"}, DropHosts: []string{"x"},
	}
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	size, at := wal(t, path)
	for range 3 {
		if err := errors.Join(s.Commit(t.Context(), app.Change{}), s.Commit(t.Context(), c)); err != nil {
			t.Fatal(err)
		}
	}
	if again, when := wal(t, path); again != size || !when.Equal(at) {
		t.Errorf("%d bytes were written", again-size)
	}
	c.Replicas[50].Restarts++
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if again, _ := wal(t, path); again-size > 2*5000 {
		t.Errorf("one replica of a hundred has changed, and %d bytes were written", again-size)
	}
}

// together calls Commit for each change at once, such that they share a transaction.
func together(t *testing.T, s *sqlite.Store, changes ...app.Change) []error {
	t.Helper()
	results := make([]error, len(changes))
	var wg sync.WaitGroup
	release := s.Hold()
	for i, c := range changes {
		wg.Go(func() { results[i] = s.Commit(t.Context(), c) })
	}
	for s.Waiting() < len(changes) {
		time.Sleep(time.Millisecond)
	}
	release()
	wg.Wait()
	return results
}

func TestChangesShareATransaction(t *testing.T) {
	s, path := fresh(t)
	var changes []app.Change
	for _, r := range fleet(200) {
		changes = append(changes, app.Change{Replicas: []app.Replica{r}, Events: make([]app.Event, 2)})
	}
	before, _ := wal(t, path)
	if err := errors.Join(together(t, s, changes...)...); err != nil {
		t.Fatal(err)
	}
	// A transaction has a frame for each page it changes, 8 here.
	if after, _ := wal(t, path); after-before > 200*4096 {
		t.Errorf("%d bytes were written for 200 small changes at once", after-before)
	}
	st, err := s.Load(t.Context())
	if _, total, err2 := s.Events(t.Context(), app.EventQuery{}); err != nil || err2 != nil || total != 400 || len(st.Replicas) != 200 {
		t.Errorf("%d replicas, %d events; %v, %v", len(st.Replicas), total, err, err2)
	}
}

func TestEventBounds(t *testing.T) {
	s, _ := fresh(t)
	count := func(q app.EventQuery) int {
		_, total, err := s.Events(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return total
	}
	for i := range 240 { // 100 apps have few each, two have many
		c := app.Change{Events: make([]app.Event, 100)}
		for j := range c.Events {
			switch j % 4 {
			case 0, 1:
				c.Events[j] = app.Event{App: fmt.Sprint("busy", j%2), Message: "x"}
			case 2:
				c.Events[j] = app.Event{App: fmt.Sprint("app", (i*25+j/4)%100), Message: "x"}
			case 3:
				c.Events[j] = app.Event{Host: "h", Message: "x"}
			}
		}
		if err := s.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if i%7 != 0 {
			continue
		}
		if n := count(app.EventQuery{}); n > sqlite.MaxEvents || n < min(100*(i+1), sqlite.MaxAppEvents) {
			t.Fatalf("%d events after %d", n, 100*(i+1))
		}
		for _, app1 := range []string{"busy0", "busy1"} {
			if n := count(app.EventQuery{App: app1}); n > sqlite.MaxAppEvents || n < min(25*(i+1), sqlite.MaxAppEvents-sqlite.PruneEvery) {
				t.Fatalf("%d events of %s after %d", n, app1, 25*(i+1))
			}
		}
	}
	if n := count(app.EventQuery{App: "app42"}); n < 48 {
		t.Errorf("%d events of an app are left that had 60, beside others with 6,000", n)
	}
	// One change that is larger than a bound.
	c := app.Change{Events: make([]app.Event, 2*sqlite.MaxAppEvents)}
	for i := range c.Events {
		c.Events[i] = app.Event{App: "busy0", Message: "x"}
	}
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if n := count(app.EventQuery{App: "busy0"}); n > sqlite.MaxAppEvents {
		t.Errorf("%d events of an app", n)
	}
}

// No query that names something reads all events.
func TestQueriesUseIndexes(t *testing.T) {
	s, _ := fresh(t)
	for want, q := range map[string]app.EventQuery{
		"events_app":          {App: "web"},
		"events_host":         {Host: "h"},
		"events_type":         {Type: app.Life},
		"events_time":         {Since: time.Now()},
		"INTEGER PRIMARY KEY": {After: 7},
		"events_app (app=?)":  {App: "web", Since: time.Now()},
	} {
		plan, err := s.Plan(t.Context(), q)
		if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, want) {
			t.Errorf("%+v: %v, %v; want %s", q, plan, err, want)
		}
	}
}

// A file of this version opens with tables as they are: whoever changes one adds a migration.
func TestSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "controller.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version, tables int
	err = errors.Join(db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version),
		db.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema WHERE type='table'").Scan(&tables))
	if err != nil || version != 1 || tables != 5 {
		t.Errorf("version %d with %d tables, %v", version, tables, err)
	}
}
