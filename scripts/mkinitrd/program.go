package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/buoy-edge/buoy/internal/cpio"
)

// libDirs is where this machine's shared libraries are.
var libDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// addProgram adds a program of this machine that is in one of dirs, with the
// loader and the libraries that it needs.
func addProgram(w *cpio.Writer, to string, dirs ...string) error {
	from, err := locate(filepath.Base(to), dirs)
	if err != nil {
		return err
	}
	if err := copyFile(w, to, from, 0o755); err != nil {
		return err
	}
	f, err := elf.Open(from)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		loader := make([]byte, p.Filesz)
		if _, err := p.ReadAt(loader, 0); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		path := strings.TrimRight(string(loader), "\x00")
		if err := copyFile(w, path, path, 0o755); err != nil {
			return err
		}
	}
	return addLibraries(w, f, map[string]bool{})
}

func addLibraries(w *cpio.Writer, f *elf.File, done map[string]bool) error {
	names, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range names {
		if done[name] {
			continue
		}
		done[name] = true
		from, err := locate(name, libDirs)
		if err != nil {
			return err
		}
		if err := copyFile(w, filepath.Join("/usr/lib", name), from, 0o755); err != nil {
			return err
		}
		lib, err := elf.Open(from)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		err = errors.Join(addLibraries(w, lib, done), lib.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

func locate(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is in none of %q: %w", name, dirs, fs.ErrNotExist)
}
