// Package programs finds the programs of buoy on this machine.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
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

// Detach starts a program that outlives us, in a session of its own. What it
// says is added to the file log. ended gets how it ended, if we live to see it.
func Detach(log, program string, args ...string) (pid int, ended <-chan error, err error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	defer f.Close()
	cmd := exec.Command(program, args...) //nolint:noctx // it outlives whoever starts it
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }() // lasts as long as the program, so until we end
	return cmd.Process.Pid, end, nil
}
