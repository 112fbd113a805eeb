package proxy

import (
	"hash/maphash"
	"iter"
	"maps"
)

// parts is a map by name that never changes. Another one has all parts in
// common with it but those in which they differ, so that a change costs these.
type parts[V any] [256]map[string]V

var seed = maphash.MakeSeed()

func (p *parts[V]) get(name []byte) V {
	return p[uint8(maphash.Bytes(seed, name))][string(name)]
}

func (p *parts[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, part := range p {
			for _, v := range part {
				if !yield(v) {
					return
				}
			}
		}
	}
}

func (p *parts[V]) len() (n int) {
	for _, part := range p {
		n += len(part)
	}
	return n
}

// copied tells which parts of a copy are its own, so that they may be changed.
type copied [256]bool

// put and drop change a copy.
func (p *parts[V]) put(c *copied, name string, v V) { p.mine(c, name)[name] = v }

func (p *parts[V]) drop(c *copied, name string) { delete(p.mine(c, name), name) }

func (p *parts[V]) mine(c *copied, name string) map[string]V {
	i := uint8(maphash.String(seed, name))
	if !c[i] {
		if c[i], p[i] = true, maps.Clone(p[i]); p[i] == nil {
			p[i] = map[string]V{}
		}
	}
	return p[i]
}
