package cdi

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Prepare makes dir anew, with what LibDir is to have: links, and empty
// files that libraries are mounted on. It adds the mount of dir.
func (e *Edits) Prepare(dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return fmt.Errorf("make room for the driver's libraries: %w", err)
	}
	for _, m := range e.Mounts {
		if path.Dir(m.ContainerPath) != LibDir {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, path.Base(m.ContainerPath)), nil, 0o644); err != nil {
			return fmt.Errorf("make room for the driver's libraries: %w", err)
		}
	}
	for name, target := range e.Links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("make room for the driver's libraries: %w", err)
		}
	}
	e.Mounts = append([]*specs.Mount{{HostPath: dir, ContainerPath: LibDir, Options: []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}}}, e.Mounts...)
	return nil
}
