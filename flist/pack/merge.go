package pack

import (
	"cmp"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Merge lays lists over one another, the last one on top, as overlayfs would: directories of the same path become one, with
// the upper one's owner, mode and times; of anything else the upper one stays. An flist cannot say that something below it
// is gone, so nothing is ever taken away. All must be of one era, since the chunks of the other are not the same bytes:
// errs.Invalid; see Convert.
//
// Chunks are looked for where the upper lists have theirs first. What to run is what the uppermost list says that says it.
func Merge(lists ...*flist.List) (*flist.List, error) {
	if len(lists) == 0 {
		return nil, errs.E(errs.Invalid, "merge: there is no flist")
	}
	root := tree(lists[0], 0)
	meta := lists[0].Meta
	for _, l := range lists[1:] {
		if l.Era != lists[0].Era {
			return nil, errs.E(errs.Invalid, "merge: flists of era %s and of era %s have different chunks; convert one of them first", lists[0].Era, l.Era)
		}
		overlay(root, tree(l, 0))
		meta = mergeMeta(meta, l.Meta)
	}
	return &flist.List{Era: lists[0].Era, Nodes: flatten(root), Meta: meta}, nil
}

// tree is node i of a list and all below it. Lists are not deeper than their reader allows.
func tree(l *flist.List, i int) *entry {
	n := l.Nodes[i]
	e := &entry{node: n}
	for k := n.First; k < n.First+n.Count; k++ {
		e.kids = append(e.kids, tree(l, int(k)))
	}
	e.node.First, e.node.Count = 0, 0
	return e
}

func isDir(e *entry) bool { return e.node.Mode&unix.S_IFMT == unix.S_IFDIR }

// overlay lays what is in directory up over what is in low.
func overlay(low, up *entry) {
	low.node = up.node
	at := map[string]int{}
	for i, kid := range low.kids {
		at[kid.node.Name] = i
	}
	for _, kid := range up.kids {
		i, ok := at[kid.node.Name]
		switch {
		case !ok:
			low.kids = append(low.kids, kid)
		case isDir(kid) && isDir(low.kids[i]):
			overlay(low.kids[i], kid)
		default:
			low.kids[i] = kid
		}
	}
	slices.SortFunc(low.kids, func(a, b *entry) int { return cmp.Compare(a.node.Name, b.node.Name) })
}

func mergeMeta(low, up flist.Meta) flist.Meta {
	m := flist.Meta{Backend: cmp.Or(up.Backend, low.Backend), Config: up.Config, Texts: maps.Clone(low.Texts)}
	if m.Config == nil {
		m.Config = low.Config
	}
	if m.Texts == nil {
		m.Texts = map[string]string{}
	}
	maps.Copy(m.Texts, up.Texts)
	upper, lower := routesOf(up), routesOf(low)
	if slices.Equal(upper, lower) { // one store has all of it
		m.Routes = up.Routes
		return m
	}
	m.Routes = upper
	pools := 0
	for _, r := range upper {
		pools = max(pools, r.Pool+1)
	}
	for _, r := range lower {
		r.Pool += pools
		m.Routes = append(m.Routes, r)
	}
	return m
}
