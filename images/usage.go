package images

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"
)

// Usage is what the images of a node take. Bytes are those of files as programs see them.
type Usage struct {
	Total, Free   int64 // of the file system
	Reserve       int64 // of Free, what pulls leave
	GCHigh, GCLow int   // percent, see Config

	Images      []ImageUsage // by reference
	Layers      int          // unpacked ones
	LayerBytes  int64
	Flists      int // files
	FlistBytes  int64
	Parts       int // downloads that can be resumed
	PartBytes   int64
	Reclaimable int64 // of all this, what no container, pin or pull needs
}

// ImageUsage is the part of one image.
type ImageUsage struct {
	Ref         string
	Size        int64 // of all that it needs
	Shared      int64 // of Size, what other images need too
	Reclaimable int64 // of Size, what Remove would free now
	InUse       bool  // by a container, also one that is halted
	Pinned      bool
	Used        time.Time // last
}

// Usage adds up what the store has on disk.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	d, err := s.statfs()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Total: d.size, Free: d.free, Reserve: s.cfg.Reserve, GCHigh: s.cfg.GCHigh, GCLow: s.cfg.GCLow}
	if u.Flists, u.FlistBytes, err = countFiles(s.flistsDir(), func(string) bool { return true }); err != nil {
		return Usage{}, err
	}
	if u.Parts, u.PartBytes, err = countFiles(s.tmpDir(), isPart); err != nil {
		return Usage{}, err
	}
	s.count(&u)
	slices.SortFunc(u.Images, func(a, b ImageUsage) int { return cmp.Compare(a.Ref, b.Ref) })
	return u, nil
}

// count adds what is known without asking the disk.
func (s *Store) count(u *Usage) {
	c := s.images.Load()
	inUse := s.inUse.Load()
	needed := map[string]bool{}
	for ref, r := range c.byRef { // without s.mu, as in candidates
		needed[ref] = inUse != nil && (*inUse)(ref, r.Image.Digest)
	}
	users := c.users()
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := map[string]bool{} // what more needs than an image that could go
	for k := range s.pinned {
		kept[k] = true
	}
	for _, l := range s.layers {
		kept[l.Key] = kept[l.Key] || s.held[l.ID] > 0
	}
	removable := map[string]int64{}
	for ref, r := range c.byRef {
		i := ImageUsage{Ref: ref, Size: r.Image.Size, Pinned: r.Image.Pinned, Used: r.lastUse(s.used[ref]), InUse: needed[ref] || s.holds(r)}
		for k, n := range r.needs() {
			kept[k] = kept[k] || s.held[k] > 0 // an flist is held by its key
			if users[k] > 1 {
				i.Shared += n
			} else if !kept[k] {
				i.Reclaimable += n
			}
			removable[k] = n
		}
		u.Images = append(u.Images, i)
	}
	for _, i := range u.Images {
		if i.InUse || i.Pinned {
			for k := range c.byRef[i.Ref].needs() {
				kept[k] = true
			}
		}
	}
	for _, l := range s.layers {
		u.Layers++
		u.LayerBytes += l.Bytes
		removable[l.Key] = l.Bytes
	}
	for k, n := range removable {
		if !kept[k] {
			u.Reclaimable += n
		}
	}
	u.Reclaimable += u.PartBytes
}

// needs is the bytes of each layer and flist of r, by what pin calls them.
func (r *record) needs() map[string]int64 {
	n := map[string]int64{}
	for _, p := range r.Parts {
		n[p.Key] = p.Bytes
	}
	if r.isFlist() {
		n[r.Image.Flist] = r.FileSize
	}
	return n
}

// holds says whether a container runs from r: all of it is held then, and not only what others share with it. s.mu is held.
func (s *Store) holds(r *record) bool {
	if r.isFlist() {
		return s.held[r.Image.Flist] > 0
	}
	return !slices.ContainsFunc(r.Image.Layers, func(id string) bool { return s.held[id] == 0 })
}

// countFiles counts the plain files of a directory whose name is wanted.
func countFiles(dir string, wanted func(name string) bool) (n int, bytes int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() || !wanted(e.Name()) {
			continue // gone meanwhile
		}
		n++
		bytes += st.Size()
	}
	return n, bytes, nil
}
