// Package ldcache adds libraries to the cache in which glibc's loader looks them
// up, /etc/ld.so.cache, without running a program of its owner.
package ldcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
)

// What a cache is made of: sysdeps/generic/dl-cache.h of glibc.
const (
	oldMagic   = "ld.so-1.7.0\x00"
	newMagic   = "glibc-ld.so.cache1.1"
	oldHeader  = 16
	oldEntry   = 12
	newHeader  = 48
	newEntry   = 24
	extensions = 0xeaa42174
	hwcaps     = 1 // the extension whose content is offsets
)

// order is that of the machine: caches of the other one are not for it.
var order = binary.LittleEndian

// flags are those of a library of this machine, for glibc.
var flags = map[string]uint32{"amd64": 0x0303, "arm64": 0x0a03}[runtime.GOARCH]

// Add is a cache in which libraries are found by their names, before others of
// the same names. libraries has their paths. To add them again changes nothing.
func Add(cache []byte, libraries map[string]string) ([]byte, error) {
	cache, err := newPart(cache)
	if err != nil {
		return nil, err
	}
	n := int(order.Uint32(cache[20:]))
	if n > (len(cache)-newHeader)/newEntry {
		return nil, errors.New("it ends before its entries do")
	}
	old := make([]entry, n)
	for i := range old {
		if old[i], err = read(cache, i); err != nil {
			return nil, err
		}
	}
	ours := func(e entry) bool { return libraries[e.key] == e.path && e.path != "" }
	if first(old, libraries) {
		return cache, nil
	}
	all := merge(slices.DeleteFunc(old, ours), libraries)
	if len(cache)+newEntry*len(all) > math.MaxInt32 {
		return nil, errors.New("it is too large")
	}
	return write(cache, n, all), nil
}

// first says whether the libraries are found already.
func first(all []entry, libraries map[string]string) bool {
	found := map[string]string{}
	for _, e := range slices.Backward(all) {
		found[e.key] = e.path
	}
	for name, path := range libraries {
		if found[name] != path {
			return false
		}
	}
	return true
}

// newPart is the cache without what loaders before glibc 2.2 looked at.
func newPart(cache []byte) ([]byte, error) {
	if bytes.HasPrefix(cache, []byte(oldMagic)) && len(cache) >= oldHeader {
		n := int(order.Uint32(cache[12:]))
		if n > (len(cache)-oldHeader)/oldEntry {
			return nil, errors.New("it ends before its entries do")
		}
		at := (oldHeader + n*oldEntry + 7) &^ 7
		cache = cache[min(at, len(cache)):]
	}
	if !bytes.HasPrefix(cache, []byte(newMagic)) || len(cache) < newHeader {
		return nil, errors.New("it is not in a form that is known")
	}
	return cache, nil
}

// entry is a library. What raw has of offsets is relative to the whole cache.
type entry struct {
	key, path string
	raw       []byte // nil: it is new
}

func read(cache []byte, i int) (e entry, err error) {
	e.raw = cache[newHeader+i*newEntry:][:newEntry]
	if e.key, err = text(cache, e.raw[4:]); err == nil {
		e.path, err = text(cache, e.raw[8:])
	}
	return e, err
}

// text is the string at the offset that raw begins with.
func text(cache, raw []byte) (string, error) {
	at := int(order.Uint32(raw))
	if at >= len(cache) {
		return "", errors.New("an entry leads out of it")
	}
	s, _, ok := bytes.Cut(cache[at:], []byte{0})
	if !ok || len(s) > 4096 {
		return "", errors.New("a name in it has no end")
	}
	return string(s), nil
}

// merge puts new entries before the first that does not come before them. The
// loader searches by halves.
func merge(old []entry, libraries map[string]string) []entry {
	all := slices.Clone(old)
	for _, name := range slices.Sorted(maps.Keys(libraries)) {
		at := slices.IndexFunc(all, func(e entry) bool { return compare(e.key, name) <= 0 })
		if at < 0 {
			at = len(all)
		}
		all = slices.Insert(all, at, entry{key: name, path: libraries[name]})
	}
	return all
}

// write is the cache with all entries in place of its n, whatever else is in it
// behind them, and the new strings in the end.
func write(cache []byte, n int, all []entry) []byte {
	shift := uint32((len(all) - n) * newEntry) // wraps around if it gets smaller
	out := bytes.Clone(cache[:newHeader])
	order.PutUint32(out[20:], uint32(len(all)))
	strings := slices.Clone(cache[newHeader+n*newEntry:])
	rest := uint32(newHeader + len(all)*newEntry)
	for _, e := range all {
		raw := make([]byte, newEntry)
		if e.raw != nil {
			copy(raw, e.raw)
			move(raw[4:], shift)
			move(raw[8:], shift)
		} else {
			order.PutUint32(raw, flags)
			order.PutUint32(raw[4:], rest+uint32(len(strings)))
			strings = append(append(strings, e.key...), 0)
			order.PutUint32(raw[8:], rest+uint32(len(strings)))
			strings = append(append(strings, e.path...), 0)
		}
		out = append(out, raw...)
	}
	out = append(out, strings...)
	moveExtensions(out, len(cache)+(len(all)-n)*newEntry, order.Uint32(cache[32:]), shift)
	order.PutUint32(out[24:], uint32(len(strings)))
	return out
}

// move adds to the offset that raw begins with.
func move(raw []byte, shift uint32) { order.PutUint32(raw, order.Uint32(raw)+shift) }

// moveExtensions moves what is behind the strings, up to end: a list of sections.
// What is not as it should be is dropped, and with it only what it was good for.
func moveExtensions(out []byte, end int, at, shift uint32) {
	order.PutUint32(out[32:], 0)
	least := newHeader + int64(order.Uint32(out[20:]))*newEntry + int64(order.Uint32(out[24:]))
	if at += shift; int64(at) < least || int64(at)+8 > int64(end) || order.Uint32(out[at:]) != extensions {
		return
	}
	n := order.Uint32(out[at+4:])
	content := int64(at) + 8 + 16*int64(n)
	if content > int64(end) {
		return
	}
	for i := range n {
		section := out[at+8+16*i:]
		move(section[8:], shift)
		from, size := int64(order.Uint32(section[8:])), int64(order.Uint32(section[12:]))
		if from < content || from+size > int64(end) {
			return
		}
		for ; order.Uint32(section) == hwcaps && size >= 4; from, size = from+4, size-4 {
			move(out[from:], shift)
		}
	}
	order.PutUint32(out[32:], at)
}

// compare is glibc's order of names, _dl_cache_libcmp: numbers in them count as
// numbers.
func compare(a, b string) int {
	for a != "" {
		switch {
		case digit(a) && digit(b):
			var x, y uint64
			x, a = number(a)
			y, b = number(b)
			if x != y {
				return sign(x < y)
			}
		case digit(a):
			return 1
		case digit(b):
			return -1
		case b == "" || a[0] != b[0]:
			return sign(b != "" && a[0] < b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	if b != "" {
		return -1
	}
	return 0
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

func digit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

func number(s string) (n uint64, rest string) {
	for digit(s) {
		n, s = n*10+uint64(s[0]-'0'), s[1:]
	}
	return n, s
}

// List is what is in a cache, name and path, in its order.
func List(cache []byte) (all []string, err error) {
	if cache, err = newPart(cache); err != nil {
		return nil, err
	}
	for i := range min(int(order.Uint32(cache[20:])), (len(cache)-newHeader)/newEntry) {
		e, err := read(cache, i)
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("%s => %s", e.key, e.path))
	}
	return all, nil
}
