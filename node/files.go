package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// layout is what of the host's file system a start of a container needs.
type layout struct {
	mounts  []container.Mount
	volumes []shimapi.Volume
	upper   string
	work    string
}

// layOut makes the directories and files of a container's start. The writable
// layer is new at each start unless the spec keeps it.
func (n *Node) layOut(ctx context.Context, b *box, run container.Spec, imageVolumes []string) (layout, error) {
	s := b.spec
	data, runDir := n.dataDir(s.Name), n.runDir(s.Name)
	l := layout{upper: filepath.Join(data, "upper"), work: filepath.Join(data, "work")}
	if !s.Keep {
		if err := errors.Join(os.RemoveAll(l.upper), os.RemoveAll(l.work)); err != nil {
			return l, fmt.Errorf("drop the old writable layer: %w", err)
		}
	}
	for _, dir := range []string{runDir, n.namesDir(s.Name), l.upper, l.work, filepath.Dir(n.logFile(s.Name)), filepath.Dir(n.jobLog(s.Name, "x"))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return l, noSpace(err)
		}
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		l.mounts = append(l.mounts, container.Mount{Type: container.Bind, Source: filepath.Join(n.namesDir(s.Name), name), Target: "/etc/" + name})
	}
	for _, f := range s.Filesystems {
		pool, fs, _ := strings.Cut(f, ":")
		if _, err := l.volume(filepath.Join(n.cfg.Data, "filesystems", pool, fs), path.Join("/fs", pool, fs), run.RootID(), false); err != nil {
			return l, err
		}
	}
	for _, m := range run.Mounts {
		if m.Type != container.Volume {
			continue
		}
		made, err := l.volume(filepath.Join(n.volumesDir(), m.Source), m.Target, run.RootID(), m.ReadOnly)
		if err != nil {
			return l, err
		}
		if made {
			n.emit(ctx, events.VolumeCreated, "volumes/"+m.Source, events.Data{Container: s.Name})
		}
	}
	for _, target := range imageVolumes {
		target = path.Clean("/" + target)
		if target == "/" || slices.ContainsFunc(run.Mounts, func(m container.Mount) bool { return path.Clean(m.Target) == target }) {
			continue
		}
		if _, err := l.volume(filepath.Join(data, "volumes", volumeName(target)), target, run.RootID(), false); err != nil {
			return l, err
		}
	}
	return l, nil
}

// passable says whether everyone may go through dir, as root of a user namespace
// must on the way to its root file system.
func passable(dir string) error {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at the run directory: %w", err)
		}
		if st.Mode().Perm()&0o001 == 0 {
			return errs.E(errs.Conflict, "a user namespace needs a run directory that everyone may pass through, and %s is closed: chmod o+x it, or choose another --run", dir)
		}
	}
	return nil
}

// volumeName is the directory of an image's volume: an image that is pulled
// anew may list them in another order.
func volumeName(target string) string {
	sum := sha256.Sum256([]byte(target))
	return hex.EncodeToString(sum[:8])
}

// volume adds a directory of ours, made for the container's root when it is not
// there, which takes over what the image has at its place.
func (l *layout) volume(source, target string, owner int, readOnly bool) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(source), 0o755); err != nil {
		return false, noSpace(err)
	}
	if err = os.Mkdir(source, 0o755); err == nil {
		made = true
		err = os.Chown(source, owner, owner)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return made, noSpace(err)
	}
	l.volumes = append(l.volumes, shimapi.Volume{Source: source, Path: target})
	l.mounts = append(l.mounts, container.Mount{Type: container.Bind, Source: source, Target: target, ReadOnly: readOnly})
	return made, nil
}

// own are the mounts of the spec that the container package can make itself.
func own(all []container.Mount) ([]container.Mount, error) {
	var out []container.Mount
	for _, m := range all {
		if m.Type == container.Bind {
			if _, err := os.Stat(m.Source); err != nil {
				return nil, errs.E(errs.Invalid, "mount %q: %w", m.Target, err)
			}
		}
		if m.Type != container.Volume {
			out = append(out, m)
		}
	}
	return out, nil
}

// noSpace gives a full disk its kind.
func noSpace(err error) error { return errs.E(errs.Unavailable, "prepare the container: %w", err) }
