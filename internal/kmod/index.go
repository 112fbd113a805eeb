package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Index is what depmod(8) writes down of all modules of a kernel.
type Index struct {
	dir     string
	modules map[string]module
	builtin map[string]bool
	aliases map[string][]alias // by their bus, which is what comes before the first colon; "": those for several, "acpi*:…"
	params  map[string]string  // of modules, by module
}

type module struct {
	file    string // in dir
	depends []string
	before  []string
}

type alias struct{ prefix, pattern, module string }

// Open reads the index in a directory like /lib/modules/VERSION. cmdline is the
// kernel's: of "MODULE.NAME=VALUE" in it only modules within the kernel learn by themselves.
func Open(dir, cmdline string) (*Index, error) {
	x := &Index{dir: dir, modules: map[string]module{}, builtin: map[string]bool{}, aliases: map[string][]alias{}, params: map[string]string{}}
	for _, list := range []struct {
		name string
		line func(words []string)
	}{
		{"modules.dep", x.addFile}, {"modules.builtin", x.addBuiltin}, {"modules.alias", x.addAlias}, {"modules.softdep", x.addSoftdep},
	} {
		if err := x.read(list.name, list.line); err != nil {
			return nil, err
		}
	}
	for word := range strings.FieldsSeq(cmdline) {
		name, value, ok := strings.Cut(word, "=")
		if mod, param, dotted := strings.Cut(name, "."); dotted && ok {
			x.params[plain(mod)] += param + "=" + value + " "
		}
	}
	return x, nil
}

func (x *Index) read(name string, line func(words []string)) error {
	text, err := os.ReadFile(filepath.Join(x.dir, name))
	if err != nil {
		return fmt.Errorf("read what modules there are: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		if words := strings.Fields(l); len(words) > 0 && words[0][0] != '#' {
			line(words)
		}
	}
	return nil
}

func (x *Index) addFile(words []string) {
	file := strings.TrimSuffix(words[0], ":")
	name, ok := Name(file)
	if !ok {
		return
	}
	m := module{file: file}
	for _, w := range words[1:] {
		if name, ok := Name(w); ok {
			m.depends = append(m.depends, name)
		}
	}
	x.modules[name] = m
}

func (x *Index) addBuiltin(words []string) {
	if name, ok := Name(words[0]); ok {
		x.builtin[name] = true
	}
}

func (x *Index) addAlias(words []string) {
	if len(words) != 3 {
		return
	}
	literal := words[1]
	if i := strings.IndexAny(literal, "*?["); i >= 0 {
		literal = literal[:i]
	}
	b := bus(words[1])
	if strings.ContainsAny(b, "*?[") {
		b = ""
	}
	x.aliases[b] = append(x.aliases[b], alias{literal, words[1], words[2]})
}

func (x *Index) addSoftdep(words []string) {
	name := plain(words[1])
	if m, ok := x.modules[name]; ok {
		m.before = before(words[2:])
		x.modules[name] = m
	}
}

func bus(name string) string {
	b, _, _ := strings.Cut(name, ":")
	return b
}

// Find gives the modules that a name stands for: the one that is called so, or
// those that say they are for it. What is part of the kernel is none.
func (x *Index) Find(name string) (modules []string) {
	if _, ok := x.modules[plain(name)]; ok {
		return []string{plain(name)}
	}
	for _, a := range slices.Concat(x.aliases[bus(name)], x.aliases[""]) {
		if !strings.HasPrefix(name, a.prefix) {
			continue
		}
		if ok, err := path.Match(a.pattern, name); ok && err == nil && !slices.Contains(modules, a.module) {
			modules = append(modules, a.module)
		}
	}
	return modules
}

// Load loads a module, after those that it needs. One that is loaded is fine.
func (x *Index) Load(name string) error { return x.load(plain(name), nil) }

func (x *Index) load(name string, above []string) error {
	if x.builtin[name] || slices.Contains(above, name) {
		return nil
	}
	m, ok := x.modules[name]
	if !ok {
		return fmt.Errorf("load module %s: %w", name, fs.ErrNotExist)
	}
	if _, err := os.Stat("/sys/module/" + name + "/initstate"); err == nil {
		return nil
	}
	above = append(above, name)
	for _, other := range m.before {
		_ = x.load(other, above) // of use, and no more
	}
	for _, other := range m.depends {
		if err := x.load(other, above); err != nil {
			return err
		}
	}
	data, err := readFile(filepath.Join(x.dir, m.file))
	if err == nil {
		err = unix.InitModule(data, strings.TrimSpace(x.params[name]))
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return nil
}

// readFile reads a module's file, and unpacks it. Of the ways to pack one this
// is the one that images of ours use.
func readFile(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil || filepath.Ext(file) != Packed {
		return data, err
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.DecodeAll(data, nil)
}

// Packed is how the file of a module ends that is packed, by zstd.
const Packed = ".zst"
