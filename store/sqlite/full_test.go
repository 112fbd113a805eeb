package sqlite_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
	"github.com/buoy-edge/buoy/store/sqlite"
)

// setting is a change that needs n bytes.
func setting(key string, n int) app.Change {
	return app.Change{Settings: map[string][]byte{key: bytes.Repeat([]byte(key[:1]), n)}, Events: []app.Event{{App: key, Message: "x"}}}
}

// fillUp commits until the disk is full and returns what was committed.
func fillUp(t *testing.T, s *sqlite.Store) (keys []string) {
	t.Helper()
	for i := range 10_000 {
		c := setting(strings.Repeat(string(rune('a'+i%26)), 1+i/26), 50_000)
		var key string
		for key = range c.Settings {
		}
		err := s.Commit(t.Context(), c)
		if err == nil {
			keys = append(keys, key)
			continue
		}
		if !errors.Is(err, errs.Unavailable) || c.Events[0].ID != 0 {
			t.Fatalf("Commit on a full disk = %v, with event id %d; want Unavailable and none", err, c.Events[0].ID)
		}
		return keys
	}
	t.Fatal("the disk does not fill")
	return nil
}

// holds wants keys and their events, and nothing else.
func holds(t *testing.T, s *sqlite.Store, keys []string) {
	t.Helper()
	st, err := s.Load(t.Context())
	_, total, err2 := s.Events(t.Context(), app.EventQuery{})
	if err != nil || err2 != nil || len(st.Settings) != len(keys) || total != len(keys) {
		t.Errorf("%d settings and %d events, want %d; %v, %v", len(st.Settings), total, len(keys), err, err2)
	}
	for _, key := range keys {
		if v := st.Settings[key]; len(v) == 0 || strings.Trim(string(v), key[:1]) != "" {
			t.Errorf("setting %s is %d bytes of something else", key, len(v))
		}
	}
}

// SQLite's own bound stands for the disk's.
func TestFull(t *testing.T) {
	s, _ := fresh(t)
	if err := s.Exec(t.Context(), "PRAGMA max_page_count = 200"); err != nil {
		t.Fatal(err)
	}
	keys := fillUp(t, s)
	holds(t, s, keys)

	// Beside one that does not fit, those that do are committed.
	results := together(t, s, setting("x", 500_000), app.Change{Settings: map[string][]byte{keys[0]: nil}}, setting("y", 10), setting("z", 500_000))
	if !errors.Is(results[0], errs.Unavailable) || results[1] != nil || results[2] != nil || !errors.Is(results[3], errs.Unavailable) {
		t.Errorf("changes at once on a full disk: %v", results)
	}
	if err := s.Commit(t.Context(), setting("w", 30_000)); err != nil {
		t.Errorf("Commit after room was made: %v", err)
	}
	st, err := s.Load(t.Context())
	if err != nil || st.Settings[keys[0]] != nil || st.Settings["x"] != nil || st.Settings["z"] != nil || len(st.Settings["y"]) != 10 || len(st.Settings["w"]) != 30_000 {
		t.Errorf("%d settings, %v", len(st.Settings), err)
	}
}

func TestDiskFull(t *testing.T) {
	testroot.Require(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "controller.db")
	s := open(t, path)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	keys := fillUp(t, s)
	for range 20 { // and again, and nothing gives way
		if err := s.Commit(t.Context(), setting("big", 500_000)); !errors.Is(err, errs.Unavailable) {
			t.Fatalf("Commit on a full disk = %v, want Unavailable", err)
		}
	}
	holds(t, s, keys)

	// A controller that starts on the full disk can read what is there.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	holds(t, s, keys)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), setting("last", 50_000)); err != nil {
		t.Errorf("Commit after room was made: %v", err)
	}
	keys = append(keys, "last")
	holds(t, s, keys)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	holds(t, s, keys)
}
