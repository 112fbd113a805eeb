// Package kmod knows the modules of a Linux kernel: what each says of itself,
// the index that depmod(8) makes of that, and how they are loaded.
package kmod

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Facts are what a module says of itself.
type Facts struct {
	Depends  []string // modules that it needs
	Before   []string // modules that are loaded before it, if they are there
	Aliases  []string // patterns of devices and names that it is for
	Firmware []string // files that it may ask for
}

// Read reads the facts out of a module's file.
func Read(module []byte) (f Facts, err error) {
	file, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return f, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return f, errors.New("not a module: no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return f, fmt.Errorf("read .modinfo: %w", err)
	}
	for fact := range bytes.SplitSeq(info, []byte{0}) { // each ends with one
		key, value, _ := strings.Cut(string(fact), "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					f.Depends = append(f.Depends, plain(name))
				}
			}
		case "softdep":
			f.Before = append(f.Before, before(strings.Fields(value))...)
		case "alias":
			f.Aliases = append(f.Aliases, value)
		case "firmware":
			f.Firmware = append(f.Firmware, value)
		}
	}
	return f, nil
}

// before reads "pre: a b post: c".
func before(words []string) (names []string) {
	pre := false
	for _, w := range words {
		switch {
		case strings.HasSuffix(w, ":"):
			pre = w == "pre:"
		case pre:
			names = append(names, plain(w))
		}
	}
	return names
}

// Name is the module that a file has: "kernel/fs/nls/nls_utf8.ko.xz" is nls_utf8.
func Name(file string) (name string, ok bool) {
	name, suffix, ok := strings.Cut(filepath.Base(file), ".ko")
	if !ok || suffix != "" && suffix[0] != '.' {
		return "", false
	}
	return plain(name), true
}

// plain is a name as the kernel spells it.
func plain(name string) string { return strings.ReplaceAll(name, "-", "_") }
