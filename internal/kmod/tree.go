package kmod

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
)

// Tree is a kernel with all its modules, as a distribution's package has them.
type Tree struct {
	Image   string // the file that is booted
	Release string // "6.1.0-57-amd64"
	Modules string // the directory that becomes /lib/modules/Release

	files   map[string]string // of modules, below Modules, by name
	builtin map[string]bool
}

// Module is one of a Tree.
type Module struct {
	Name, File string // File is below Modules, and does not say how it is packed
	Data       []byte
	Facts
}

// OpenTree looks through an unpacked package.
func OpenTree(dir string) (*Tree, error) {
	t := &Tree{files: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		base := filepath.Base(path)
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(base, "vmlinuz-"):
			t.Image = path
		case base == "modules.builtin":
			t.Modules = filepath.Dir(path)
		}
		if name, ok := Name(path); ok {
			t.files[name] = path
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if t.Image == "" || t.Modules == "" {
		return nil, fmt.Errorf("no kernel with modules is in %s", dir)
	}
	t.Release = filepath.Base(t.Modules)
	for name, path := range t.files {
		t.files[name], _ = filepath.Rel(t.Modules, path) // it is below
	}
	raw, err := os.ReadFile(filepath.Join(t.Modules, "modules.builtin"))
	for file := range strings.FieldsSeq(string(raw)) {
		name, _ := Name(file)
		t.builtin[name] = true
	}
	return t, err
}

// Below are the modules in a directory of Modules.
func (t *Tree) Below(dir string) (names []string) {
	for name, file := range t.files {
		if strings.HasPrefix(file, dir+"/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Closure gives modules with all that they need, in an order in which they can
// be loaded. Packages have no modules.dep, so each is asked itself.
func (t *Tree) Closure(names []string) (order []Module, err error) {
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = plain(name)
		if done[name] || t.builtin[name] {
			return nil
		}
		done[name] = true
		m, err := t.module(name)
		if err != nil {
			return err
		}
		for _, other := range m.Before {
			if t.files[other] == "" {
				continue
			}
			if err := add(other); err != nil {
				return err
			}
		}
		for _, other := range m.Depends {
			if err := add(other); err != nil {
				return err
			}
		}
		order = append(order, m)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func (t *Tree) module(name string) (m Module, err error) {
	file := t.files[name]
	if file == "" {
		return m, fmt.Errorf("the kernel %s has no module %s", t.Release, name)
	}
	m.Name = name
	packed := ""
	if m.File, packed, _ = strings.Cut(file, ".ko"); packed != "" && packed != ".xz" {
		return m, fmt.Errorf("%s is packed in a way that is not known", file)
	}
	m.File += ".ko"
	if m.Data, err = os.ReadFile(filepath.Join(t.Modules, file)); err != nil {
		return m, err
	}
	if packed != "" {
		r, err := xz.NewReader(bytes.NewReader(m.Data))
		if err != nil {
			return m, fmt.Errorf("unpack %s: %w", file, err)
		}
		if m.Data, err = io.ReadAll(r); err != nil {
			return m, fmt.Errorf("unpack %s: %w", file, err)
		}
	}
	if m.Facts, err = Read(m.Data); err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}
