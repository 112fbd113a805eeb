package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Protect says which images are needed although nothing runs from them. Without it none is removed to make room. inUse is
// called while images are pulled and must not ask the store for more than Resolve.
func (s *Store) Protect(inUse func(ref, digest string) bool) { s.inUse.Store(&inUse) }

// Pin keeps the image of a reference, also when its content changes, from being removed to make room; or no longer.
func (s *Store) Pin(ctx context.Context, ref string, pinned bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := ParseRef(ref)
	if err != nil {
		return err
	}
	rec, ok := s.images.Load().find(r)
	if !ok {
		return errs.E(errs.NotFound, "image %q is not on this node", r)
	}
	same := false
	err = s.amend(rec.Image.Ref, func(r *record) bool {
		same = r.Image.Pinned == pinned
		r.Image.Pinned = pinned
		return !same
	})
	if err == nil && !same {
		s.tell(ctx, Change{Kind: map[bool]ChangeKind{true: ChangePinned, false: ChangeUnpinned}[pinned], Ref: rec.Image.Ref, Digest: rec.Image.Digest})
	}
	return err
}

// Collected is what was removed to make room.
type Collected struct {
	Images []string // references
	Freed  int64    // bytes
}

// Collect removes images that nothing needs, the longest unused first, if the disk is fuller than Config.GCHigh or than the
// reserve allows. Images that are held, pinned, protected, being pulled, or that were used a moment ago stay.
func (s *Store) Collect(ctx context.Context, now time.Time) (Collected, error) {
	s.noteUses()
	need, err := s.Short()
	if err != nil || need <= 0 {
		return Collected{}, err
	}
	return s.makeRoom(ctx, now, need, false)
}

// Short is how many bytes have to go so that the disk is not too full.
func (s *Store) Short() (int64, error) {
	d, err := s.statfs()
	if err != nil {
		return 0, err
	}
	return d.excess(s.cfg.GCHigh, s.cfg.GCLow, s.cfg.Reserve), nil
}

func (d disk) excess(high, low int, reserve int64) int64 {
	need := reserve - d.free
	if used := d.total - d.free; high > 0 && used > d.total/100*int64(high) {
		need = max(need, used-d.total/100*int64(low))
	}
	return max(need, 0)
}

// tidy is Collect after a pull, which has succeeded whatever comes of it.
func (s *Store) tidy(ctx context.Context) {
	if _, err := s.Collect(ctx, time.Now()); err != nil && ctx.Err() == nil {
		s.log.Warn("no room made after a pull", "error", err)
	}
}

// usePace is how exactly last uses are recorded: they are compared over days, and disks wear out.
const usePace = time.Hour

// use notes that somebody wants an image.
func (s *Store) use(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[ref] = time.Now()
}

// noteUses records last uses.
func (s *Store) noteUses() {
	s.mu.Lock()
	used := s.used
	s.used = map[string]time.Time{}
	s.mu.Unlock()
	for ref, at := range used {
		err := s.amend(ref, func(r *record) bool {
			if at.Sub(r.lastUse(time.Time{})) < usePace {
				return false
			}
			r.Used = at.UTC().Truncate(time.Second)
			return true
		})
		if err != nil && errs.KindOf(err) != errs.NotFound {
			s.log.Warn("last use of an image not recorded", "image", ref, "error", err)
		}
	}
}

// makeRoom frees need bytes; if that cannot be, then what can be, or with allOrNothing nothing.
func (s *Store) makeRoom(ctx context.Context, now time.Time, need int64, allOrNothing bool) (c Collected, err error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	inUse := s.inUse.Load()
	if inUse == nil {
		return c, nil
	}
	g, err := s.pruneLayers() // what a crash or a release left
	c.Freed += g.bytes
	if err = errors.Join(err, g.empty()); err != nil {
		return c, fmt.Errorf("make room: %w", err)
	}
	all, recs := s.candidates(now, *inUse)
	gone, missing := sacrifices(all, need-c.Freed)
	if missing > 0 && s.cfg.Spare != nil {
		n, err := s.cfg.Spare(ctx, missing)
		if err != nil {
			s.log.Warn("no room made among the chunks of flists", "error", err)
		}
		c.Freed += n
		missing -= n
	}
	if missing > 0 && allOrNothing {
		return c, nil
	}
	for _, v := range gone {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		n, err := s.sacrifice(v, recs[v.ref])
		if c.Freed += n; err != nil {
			return c, fmt.Errorf("make room: %w", err)
		}
		if v.ref != "" {
			c.Images = append(c.Images, v.ref)
			s.tell(ctx, Change{Kind: ChangeCollected, Ref: v.ref, Digest: recs[v.ref].Image.Digest})
			s.log.Info("image removed to make room", "image", v.ref, "last_used", v.used)
		}
	}
	return c, nil
}

func (s *Store) sacrifice(v candidate, rec *record) (freed int64, err error) {
	if v.file != "" {
		err := errors.Join(os.Remove(v.file), os.RemoveAll(v.file+".json"))
		return v.own, err
	}
	g, _, err := s.drop(v.ref, rec)
	return g.bytes, errors.Join(err, g.empty())
}

// candidate is something that may be removed: an image, or a download that is not under way.
type candidate struct {
	ref, file string // one of the two
	used      time.Time
	own       int64            // bytes that are its alone
	shared    map[string]int64 // bytes of layers by key, which others may need
	stays     bool             // it may not be removed, but it needs what is shared
}

// candidates is everything that has to do with room.
func (s *Store) candidates(now time.Time, inUse func(ref, digest string) bool) (all []candidate, recs map[string]*record) {
	recs = s.images.Load().byRef
	pulling := s.pulls.active()
	needed := map[string]bool{}
	for ref, r := range recs { // before s.mu is taken: who is asked may wait for somebody who wants it
		needed[ref] = r.Image.Pinned || pulling[ref] || inUse(ref, r.Image.Digest)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, r := range recs {
		c := candidate{ref: ref, used: r.lastUse(s.used[ref]), shared: r.needs()}
		c.stays = s.holds(r) || needed[ref] || now.Sub(c.used) < s.tune.minAge
		all = append(all, c)
	}
	if len(pulling) > 0 {
		return all, recs
	}
	parts, _ := filepath.Glob(filepath.Join(s.tmpDir(), "*"+partSuffix)) // the pattern is valid
	for _, file := range parts {
		if st, err := os.Stat(file); err == nil {
			all = append(all, candidate{file: file, used: st.ModTime(), own: st.Size(), stays: now.Sub(st.ModTime()) < s.tune.minAge})
		}
	}
	return all, recs
}

// lastUse is the last of pull, recorded use and noted use.
func (r *record) lastUse(noted time.Time) time.Time {
	return slices.MaxFunc([]time.Time{r.Image.Pulled, r.Used, noted}, time.Time.Compare)
}

// sacrifices is what has to go so that need bytes are freed, the longest unused first, and how many are missing then. What
// would free nothing stays.
func sacrifices(all []candidate, need int64) (gone []candidate, missing int64) {
	users := map[string]int{}
	for _, c := range all {
		for k := range c.shared {
			users[k]++
		}
	}
	order := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.stays })
	slices.SortFunc(order, func(a, b candidate) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.ref, b.ref), cmp.Compare(a.file, b.file))
	})
	for _, c := range order {
		if need <= 0 {
			break
		}
		need -= c.own
		for k, n := range c.shared {
			if users[k]--; users[k] == 0 {
				need -= n
			}
		}
		gone = append(gone, c)
	}
	gone = slices.DeleteFunc(gone, func(c candidate) bool {
		for k := range c.shared {
			if users[k] == 0 {
				return false
			}
		}
		return c.own == 0
	})
	return gone, max(need, 0)
}
