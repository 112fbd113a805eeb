package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

func TestWriteReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, want := range []string{"a longer first text", "second"} {
		if err := atomicfile.Write(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("ReadFile = %q, %v; want %q", got, err, want)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode = %v, %v; want 0640", st.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("directory holds %v, %v; want the file alone", left, err)
	}
}

func TestWriteFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("x"), 0o600); err == nil {
		t.Fatal("writing over a directory worked")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("directory holds %v, %v; want the old directory alone", left, err)
	}
}

// TestRemoveParts removes what a writer that was killed has left, and nothing else.
func TestRemoveParts(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"state", ".state.123", ".state.4", ".state.x1", ".state.", ".other.5", "state.6"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := atomicfile.RemoveParts(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := ""
	for _, e := range entries {
		left += e.Name() + " "
	}
	if want := ".other.5 .state. .state.x1 state state.6 "; left != want {
		t.Errorf("left are %s, want %s", left, want)
	}
	if err := atomicfile.RemoveParts(filepath.Join(dir, "none", "state")); err != nil {
		t.Error(err)
	}
}
