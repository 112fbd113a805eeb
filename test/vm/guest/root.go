package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/sysmount"
	"github.com/buoy-edge/buoy/test/vm/agent"
)

const agentUnit = `[Unit]
Description=the test's agent
[Service]
ExecStart=/sbin/guest agent
KillMode=process
`

// bootDisk hands the machine over to the system on a disk: its init becomes
// process 1 and starts the agent as one of its services. It returns if it fails.
func bootDisk(console io.Writer, setup agent.Setup) error {
	const root = "/sysroot"
	above := map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"}
	for target, kind := range above {
		if err := sysmount.Mount(kind, target, kind, 0, ""); err != nil {
			return err
		}
	}
	loadAll(console, setup.Modules)
	have, err := labels()
	if err != nil {
		return err
	}
	if err := sysmount.Mount(have[setup.Root], root, "ext4", 0, ""); err != nil {
		return err
	}
	// A disk that has been booted before has them already.
	for name, from := range map[string]string{"/sbin/guest": "/proc/self/exe", "/bin/busybox": "/bin/busybox"} {
		program, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, name), program, 0o755)
		}
		if err != nil {
			return err
		}
	}
	units := filepath.Join(root, "/etc/systemd/system")
	wants := filepath.Join(units, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{filepath.Join(units, "agent.service"): agentUnit, filepath.Join(root, "/etc/hostname"): setup.Name + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("../agent.service", filepath.Join(wants, "agent.service")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for target := range above {
		if err := unix.Mount(target, filepath.Join(root, target), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", target, err)
		}
	}
	if err := sysmount.Enter(root); err != nil {
		return err
	}
	const system = "/sbin/init"
	return fmt.Errorf("start %s: %w", system, unix.Exec(system, []string{system}, []string{"TERM=dumb"}))
}
