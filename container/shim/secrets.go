//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// secretsDir is where a container's secrets are files while it is made: on a
// tmpfs of its own in the shim's namespace, which ours leaves when the container
// has its binds. So they are nowhere but in memory, and gone with its namespace.
func (c *container) secretsDir() string { return filepath.Join(c.dir, "secrets") }

func (c *container) secretFile(i int) string {
	return filepath.Join(c.secretsDir(), strconv.Itoa(i))
}

// mountSecrets has the spec mount them, above all else.
func (m *making) mountSecrets() {
	for i, f := range m.r.Secrets {
		m.r.Spec.Mounts = append(m.r.Spec.Mounts, specs.Mount{
			Destination: f.Path, Source: m.c.secretFile(i), Type: "bind", Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
		})
	}
}

// writeSecrets makes the files, which nobody may read until they are given to
// the container's user.
func (m *making) writeSecrets() error {
	if len(m.r.Secrets) == 0 {
		return nil
	}
	dir := m.c.secretsDir()
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=711,noswap")
	if errors.Is(err, unix.EINVAL) { // Linux before 6.4
		err = unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=711")
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs for secrets: %w", err)
	}
	for i, f := range m.r.Secrets {
		if err := os.WriteFile(m.c.secretFile(i), f.Data, 0o400); err != nil {
			return fmt.Errorf("write the secret for %s: %w", f.Path, err)
		}
	}
	return nil
}

// giveSecrets makes the container's user, who has been looked up, the owner.
func (m *making) giveSecrets() error {
	u, linux := m.r.Spec.Process.User, m.r.Spec.Linux
	for i, f := range m.r.Secrets {
		if err := os.Chown(m.c.secretFile(i), outside(linux.UIDMappings, u.UID), outside(linux.GIDMappings, u.GID)); err != nil {
			return fmt.Errorf("give the secret for %s to its user: %w", f.Path, err)
		}
	}
	return nil
}

// outside is what an id in the container is outside.
func outside(l []specs.LinuxIDMapping, id uint32) int {
	for _, m := range l {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID)
		}
	}
	return int(id)
}

// hideSecrets takes them out of the shim's namespace.
func (c *container) hideSecrets() error { return unmountRoot(c.secretsDir()) }
