package programs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestFind(t *testing.T) {
	beside, libexec, path := t.TempDir(), t.TempDir(), t.TempDir()
	t.Setenv("PATH", path)
	put := func(dir, name string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	put(beside, "one", 0o755)
	put(libexec, "one", 0o755)
	put(beside, "two", 0o644) // not a program
	put(libexec, "two", 0o755)
	put(path, "three", 0o755)
	if err := os.Mkdir(filepath.Join(beside, "three"), 0o755); err != nil {
		t.Fatal(err)
	}

	for name, dir := range map[string]string{"one": beside, "two": libexec, "three": path} {
		got, err := find(name, []string{beside, libexec})
		if want := filepath.Join(dir, name); got != want || err != nil {
			t.Errorf("find(%s) = %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := find("four", []string{beside, libexec}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("find(four) = %q, %v; want not found", got, err)
	}
}
