package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// Volume is a directory that the node keeps for containers that name it.
type Volume struct {
	Name  string
	Users []string // containers, running or not, by name
}

// gonePrefix is that of volumes that are being removed. No volume may be called so.
const gonePrefix = ".gone-"

func (n *Node) volumesDir() string { return filepath.Join(n.cfg.Data, "volumes") }

// Volumes are those that there are, by name.
func (n *Node) Volumes() ([]Volume, error) {
	entries, err := os.ReadDir(n.volumesDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []Volume
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), gonePrefix) {
			all = append(all, Volume{Name: e.Name(), Users: n.usersOf(e.Name())})
		}
	}
	return all, nil
}

// usersOf are the containers that name a volume. The caller holds n.mu.
func (n *Node) usersOf(volume string) (users []string) {
	for name, b := range n.boxes {
		mounts := get(b, func() []container.Mount { return b.spec.Run.Mounts })
		if slices.ContainsFunc(mounts, func(m container.Mount) bool { return m.Type == container.Volume && m.Source == volume }) {
			users = append(users, name)
		}
	}
	slices.Sort(users)
	return users
}

// DeleteVolume removes a volume and all that is in it. NotFound; Conflict while
// a container names it.
func (n *Node) DeleteVolume(ctx context.Context, name string) error {
	if !container.ValidName(name) {
		return errs.E(errs.NotFound, "no volume %q on this node", name)
	}
	gone := filepath.Join(n.volumesDir(), gonePrefix+rand.Text())
	if err := n.takeVolume(name, gone); err != nil {
		return err
	}
	n.emit(ctx, events.VolumeDeleted, "volumes/"+name, events.Data{})
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove volume %q: %w", name, err)
	}
	return nil
}

// takeVolume puts a volume out of reach, unless somebody has it.
func (n *Node) takeVolume(name, gone string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if users := n.usersOf(name); len(users) > 0 {
		return errs.E(errs.Conflict, "container %q uses volume %q: delete it first", users[0], name)
	}
	err := os.Rename(filepath.Join(n.volumesDir(), name), gone)
	if errors.Is(err, os.ErrNotExist) {
		return errs.E(errs.NotFound, "no volume %q on this node", name)
	}
	return err
}

// sweepVolumes removes what a daemon before us has begun to remove.
func (n *Node) sweepVolumes() error {
	all, err := filepath.Glob(filepath.Join(n.volumesDir(), gonePrefix+"*"))
	for _, dir := range all {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
