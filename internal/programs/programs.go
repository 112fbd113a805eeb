// Package programs finds the programs of buoy on this machine.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Libexec is where packages put the programs that nobody types.
const Libexec = "/usr/libexec/buoy"

// Find is the absolute path of a program of ours: beside this program's own
// executable, then in Libexec, then in PATH.
func Find(name string) (string, error) {
	var dirs []string
	if own, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(own); err == nil {
			own = real
		}
		dirs = append(dirs, filepath.Dir(own))
	}
	return find(name, append(dirs, Libexec))
}

func find(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("program %s is neither in %q nor in PATH: %w", name, dirs, err)
	}
	return filepath.Abs(path)
}
