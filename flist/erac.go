package flist

import (
	"context"
	"database/sql/driver"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// rootKeyC is the name of the root's record: the hash of "".
var rootKeyC = dirKey{0xca, 0xe6, 0x69, 0x41, 0xd9, 0xef, 0xbd, 0x40, 0x4e, 0x4d, 0x88, 0x75, 0x8e, 0xa6, 0x76, 0x70}

// listC is what is read of era C before it is a tree.
type listC struct {
	mu    sync.Mutex // guards dirs
	dirs  map[dirKey]*directory
	nodes atomic.Int64

	acls  *names
	owner map[string]acl
}

// row is a directory's record as the database has it.
type row struct {
	key  dirKey
	blob []byte
}

func readC(ctx context.Context, d *database) (*List, error) {
	c := &listC{dirs: map[dirKey]*directory{}, acls: &names{ids: map[string]uint32{}}, owner: map[string]acl{}}
	if err := c.read(ctx, d); err != nil {
		return nil, err
	}
	l := &List{Era: EraC}
	if err := c.assemble(ctx, l); err != nil {
		return nil, err
	}
	if !d.tables["metadata"] { // it came in 2019
		return l, nil
	}
	texts := map[string]string{}
	err := d.scan(ctx, "metadata", "key, value", func(row []driver.Value) error {
		texts[text(row[0])] = text(row[1])
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := l.Meta.setC(texts); err != nil {
		return nil, err
	}
	return l, nil
}

// read reads all records: one goroutine turns pages, the others read what is on them.
func (c *listC) read(ctx context.Context, d *database) error {
	g, ctx := errgroup.WithContext(ctx)
	rows := make(chan row, 64)
	for range min(4, runtime.GOMAXPROCS(0)) {
		g.Go(func() error {
			r := recordReader{acls: c.acls, nodes: &c.nodes}
			for row := range rows {
				if err := c.add(r.read(row.key, row.blob)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(rows)
		return d.scan(ctx, "entries", "key, value", func(v []driver.Value) error {
			name, blob := text(v[0]), []byte(nil)
			if blob, _ = v[1].([]byte); blob == nil {
				blob = []byte(text(v[1]))
			}
			key, ok := parseDirKey([]byte(name))
			if !ok {
				return c.addOwner(name, blob)
			}
			select {
			case rows <- row{key, blob}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return g.Wait()
}

func (c *listC) add(d *directory) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirs[d.key] != nil {
		return errs.E(errs.Invalid, "it has two records %x", d.key)
	}
	c.dirs[d.key] = d
	return nil
}

// addOwner adds a permission record. Records that are none, under names that nobody uses, do no harm.
func (c *listC) addOwner(name string, blob []byte) error {
	if _, ok := c.owner[name]; ok {
		return errs.E(errs.Invalid, "it has two records %.40q", name)
	}
	a, err := readACL(blob)
	a.err = err
	c.owner[name] = a
	return nil
}

// assemble makes the tree, level by level. A record that is used twice would be a directory in two places, or in itself.
func (c *listC) assemble(ctx context.Context, l *List) error {
	owners := newOwners(c.acls.list, c.owner)
	total := 1
	for _, d := range c.dirs {
		total += len(d.nodes)
	}
	l.Nodes = make([]Node, 0, total)
	// dirs are the directories whose children are still to come, in the order of their nodes.
	type todo struct {
		node uint32
		dir  *directory
	}
	root, err := c.take(rootKeyC)
	if err != nil {
		return err
	}
	l.Nodes = append(l.Nodes, Node{Mode: unix.S_IFDIR})
	if err := owners.set(l, 0, root.acl); err != nil {
		return err
	}
	l.Nodes[0].MTime, l.Nodes[0].CTime = root.mtime, root.ctime
	level := []todo{{0, root}}
	for depth := 0; len(level) > 0; depth++ {
		if depth > maxDepth {
			return errs.E(errs.Invalid, "its directories are more than %d deep", maxDepth)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var next []todo
		for _, t := range level {
			l.Nodes[t.node].First, l.Nodes[t.node].Count = uint32(len(l.Nodes)), uint32(len(t.dir.nodes))
			for _, n := range t.dir.nodes {
				at, aclID := uint32(len(l.Nodes)), n.UID
				n.Parent = t.node
				if n.Mode == unix.S_IFDIR {
					sub, err := c.take(t.dir.subs[n.First])
					if err != nil {
						return errs.E(errs.Invalid, "directory %q: %w", n.Name, err)
					}
					aclID, n.MTime, n.CTime = sub.acl, sub.mtime, sub.ctime
					next = append(next, todo{at, sub})
				}
				l.Nodes = append(l.Nodes, n)
				if err := owners.set(l, at, aclID); err != nil {
					return fmt.Errorf("%q: %w", n.Name, err)
				}
			}
			t.dir.nodes, t.dir.subs = nil, nil
		}
		level = next
	}
	return nil
}

// take is the record of that name, for the first one who asks.
func (c *listC) take(key dirKey) (*directory, error) {
	d := c.dirs[key]
	switch {
	case d == nil:
		return nil, errs.E(errs.Invalid, "its record %x is missing", key)
	case d.err != nil:
		return nil, errs.E(errs.Invalid, "%w", d.err)
	case d.used:
		return nil, errs.E(errs.Invalid, "its record %x is that of another directory too", key)
	}
	d.used = true
	return d, nil
}
