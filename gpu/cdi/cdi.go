// Package cdi says what a container needs to use a device: what specs of the
// Container Device Interface say on this machine, or, for GPUs without one, what
// their drivers are known to need.
//
// Of the interface's own module only the types are used: its cache watches
// directories and keeps all specs in memory, and here they are read when a
// container starts that names one.
package cdi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Dirs are where specs are, as the interface has it, for Read.
func Dirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// Bounds of what is read.
const (
	maxFile  = 4 << 20
	maxFiles = 256
)

// Specs are those of the machine, as they were when they were read.
type Specs struct {
	files []file
	bad   []error // of files that could not be used
}

// file is a spec.
type file struct {
	path string
	rank int // of its directory
	spec specs.Spec
}

// Read reads the specs in directories, the last of which counts most. A file
// that cannot be used is left out; see Trouble.
func Read(dirs []string) *Specs {
	s := &Specs{}
	for rank, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.bad = append(s.bad, errs.E(errs.Invalid, "CDI specs: %w", err))
		}
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if ext != ".json" && ext != ".yaml" || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if len(s.files)+len(s.bad) >= maxFiles {
				s.bad = append(s.bad, errs.E(errs.Invalid, "CDI specs: there are more than %d; the rest is not read", maxFiles))
				return s
			}
			s.read(filepath.Join(dir, e.Name()), rank)
		}
	}
	return s
}

func (s *Specs) read(path string, rank int) {
	raw, err := readFile(path)
	if err == nil {
		var spec specs.Spec
		if spec, err = Parse(raw); err == nil {
			s.files = append(s.files, file{path, rank, spec})
			return
		}
	}
	s.bad = append(s.bad, errs.E(errs.Invalid, "CDI spec %s: %w", path, err))
}

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a file")
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("it has %d bytes; %d is the most", st.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// Trouble is what is wrong with files that were left out.
func (s *Specs) Trouble() []error { return s.bad }

// Has says whether there is a device of that name.
func (s *Specs) Has(name string) bool {
	_, _, err := s.device(name)
	return err == nil
}

// Edits is what a container needs for the devices, named as
// vendor.com/class=name. What a spec says for all of its devices comes once.
func (s *Specs) Edits(names []string) (specs.ContainerEdits, error) {
	var all specs.ContainerEdits
	seen := map[string]bool{}
	for _, name := range names {
		f, d, err := s.device(name)
		if err != nil {
			return all, err
		}
		if !seen[f.path] {
			seen[f.path] = true
			add(&all, f.spec.ContainerEdits)
		}
		if key := f.path + "=" + d.Name; !seen[key] {
			seen[key] = true
			add(&all, d.ContainerEdits)
		}
	}
	return all, nil
}

// device is the one that counts among those of a name. Invalid: there is none.
// Conflict: there are two that count the same.
func (s *Specs) device(name string) (f file, d specs.Device, err error) {
	kind, short, _ := strings.Cut(name, "=")
	var found []file
	for _, one := range s.files {
		if one.spec.Kind != kind || !slices.ContainsFunc(one.spec.Devices, func(d specs.Device) bool { return d.Name == short }) {
			continue
		}
		if len(found) > 0 && found[0].rank < one.rank {
			found = nil
		}
		found = append(found, one)
	}
	switch len(found) {
	case 0:
		return f, d, s.missing(name, kind)
	case 1:
	default:
		return f, d, errs.E(errs.Conflict, "CDI device %s is in %s and in %s: keep one of them", name, found[0].path, found[1].path)
	}
	i := slices.IndexFunc(found[0].spec.Devices, func(d specs.Device) bool { return d.Name == short })
	return found[0], found[0].spec.Devices[i], nil
}

// missing says what there is instead, and which files might have had it.
func (s *Specs) missing(name, kind string) error {
	var there []string
	for _, f := range s.files {
		for _, d := range f.spec.Devices {
			if f.spec.Kind == kind && len(there) < 16 {
				there = append(there, d.Name)
			}
		}
	}
	about := "no spec describes any of that kind"
	if len(there) > 0 {
		about = "of that kind there are " + strings.Join(there, ", ")
	}
	for _, bad := range s.bad {
		about += "; " + bad.Error()
	}
	return errs.E(errs.Invalid, "there is no CDI device %s on this machine: %s", name, about)
}

// add appends edits.
func add(to *specs.ContainerEdits, e specs.ContainerEdits) {
	to.Env = append(to.Env, e.Env...)
	to.DeviceNodes = append(to.DeviceNodes, e.DeviceNodes...)
	to.Mounts = append(to.Mounts, e.Mounts...)
	to.Hooks = append(to.Hooks, e.Hooks...)
	to.AdditionalGIDs = append(to.AdditionalGIDs, e.AdditionalGIDs...)
}
