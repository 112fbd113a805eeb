package state_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/state"
)

func open(t testing.TB, path string) *state.DB {
	t.Helper()
	db, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func record(name string, at time.Time) state.Record {
	return state.Record{
		Name: name, Spec: []byte(`{"a":1}`), Wanted: state.Run, Person: true, NICs: []byte(`[{"key":"default"}]`), GPUs: []byte(`[{"uuid":"GPU-1"}]`),
		Created: at, Started: at.Add(time.Second), ExitCode: 137, OOM: true, Restarts: 3, Quick: 2, Reason: "OOMKilled", Message: "sentence",
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with space?and#", "node.db")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 123456789).UTC()
	want := []state.Record{record("b", now), record("a", now.Add(time.Hour))}
	db := open(t, path)
	for _, r := range append(want, record("gone", now)) {
		if err := db.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want[1].Wanted, want[1].Finished = state.Halt, now.Add(2*time.Hour)
	if err := errors.Join(db.Put(t.Context(), want[1]), db.Delete(t.Context(), "gone"), db.Delete(t.Context(), "never"), db.Close()); err != nil {
		t.Fatal(err)
	}

	db = open(t, path)
	defer db.Close()
	got, err := db.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Containers after reopening (-want +got):\n%s", diff)
	}
}

func TestPutsAtOnceAllLand(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "node.db"))
	defer db.Close()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if err := db.Put(t.Context(), record(fmt.Sprint(i), time.Now())); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := db.Containers(t.Context()); err != nil || len(got) != 100 {
		t.Errorf("%d records, %v; want 100", len(got), err)
	}
}

func TestOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	db := open(t, path)
	defer db.Close()
	if _, err := state.Open(t.Context(), path); !errors.Is(err, errs.Conflict) {
		t.Errorf("second Open = %v, want Conflict", err)
	}
}

func TestGarbageIsNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	garbage := strings.Repeat("not a database. ", 100)
	if err := os.WriteFile(path, []byte(garbage), 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err := state.Open(t.Context(), path); err == nil {
		db.Close()
		t.Fatal("opened garbage")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != garbage {
		t.Error("the file was changed")
	}
}

func BenchmarkPut(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "node.db"))
	defer db.Close()
	r := record("x", time.Now())
	for b.Loop() {
		if err := db.Put(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
