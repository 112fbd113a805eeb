package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

const recordVersion = 1

// record is one file of Dir/refs.
type record struct {
	Version int
	Image   Image    // without Base, Layers and Flist, which follow from Parts and Digest
	Parts   []stored // layers, top first
	// Manifest is the digest of this platform's manifest; it differs from Image.Digest behind a manifest list.
	Manifest string    `json:",omitempty"`
	FileSize int64     `json:",omitempty"` // of an flist
	Platform string    `json:",omitempty"` // the manifest was chosen for
	ETag     string    `json:",omitempty"` // of a URL
	Modified string    `json:",omitempty"` // Last-Modified of a URL
	MD5      string    `json:",omitempty"` // of an flist, as its companion at a URL says it
	Stamp    fileStamp `json:",omitzero"`  // of a local file
	Used     time.Time `json:",omitzero"`  // see Store.use
}

func newRecord(r Reference, digest, platform string, parts []stored) *record {
	img := Image{Ref: r.text, Digest: digest, Pulled: now()}
	return &record{Image: img, Parts: parts, Platform: platform}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// keys is what r needs, as pin takes it.
func (r *record) keys() (all []string) {
	for _, p := range r.Parts {
		all = append(all, p.Key)
	}
	if r.isFlist() {
		all = append(all, flistName(r.Image.Digest))
	}
	return all
}

// fileStamp tells whether a local archive was changed.
type fileStamp struct {
	Size  int64
	MTime time.Time
	Inode uint64
}

// catalog is an immutable view of all references.
type catalog struct {
	byRef    map[string]*record
	byDigest map[string]*record // repository@digest
}

func newCatalog(recs map[string]*record) *catalog {
	c := &catalog{byRef: recs, byDigest: map[string]*record{}}
	for _, r := range recs {
		ref, err := ParseRef(r.Image.Ref)
		if err != nil || ref.Kind != Registry {
			continue
		}
		repo := hubName(ref.reg.Context().Name())
		c.byDigest[repo+"@"+r.Image.Digest] = r
		c.byDigest[repo+"@"+r.Manifest] = r
	}
	return c
}

// find looks ref up by name, then by digest.
func (c *catalog) find(ref Reference) (*record, bool) {
	if r, ok := c.byRef[ref.text]; ok {
		return r, true
	}
	r, ok := c.byDigest[ref.text]
	return r, ok
}

// users counts the images that need each layer key, and each flist.
func (c *catalog) users() map[string]int {
	n := map[string]int{}
	for _, r := range c.byRef {
		if r.isFlist() {
			n[r.Image.Flist]++
		}
		for _, p := range r.Parts {
			n[p.Key]++
		}
	}
	return n
}

func (s *Store) refFile(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return filepath.Join(s.refsDir(), hex.EncodeToString(sum[:12])+".json")
}

// load reads both indexes. A file that cannot be read costs its own entry only: the image has to be pulled again.
func (s *Store) load() error {
	if err := s.loadLayers(); err != nil {
		return err
	}
	names, err := os.ReadDir(s.refsDir())
	if err != nil {
		return err
	}
	recs := map[string]*record{}
	for _, n := range names {
		path := filepath.Join(s.refsDir(), n.Name())
		switch {
		case strings.HasPrefix(n.Name(), "."): // atomicfile's, from a crash
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		case !strings.HasSuffix(n.Name(), ".json"):
			continue
		}
		r, err := readRecord(path)
		if errors.Is(err, errs.Conflict) {
			return err
		}
		if err == nil && s.refFile(r.Image.Ref) != path {
			err = errors.New("content belongs to another file name")
		}
		if err != nil {
			s.log.Warn("image index entry is damaged and set aside; pull the image again", "file", path, "error", err)
			if err := os.Rename(path, path+".damaged"); err != nil {
				return err
			}
			continue
		}
		if s.adopt(r) {
			recs[r.Image.Ref] = r
		}
	}
	s.images.Store(newCatalog(recs))
	return nil
}

func readRecord(path string) (*record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	if r.Version > recordVersion {
		return nil, errs.E(errs.Conflict, "image index is from a newer buoyd (v%d); install it or run \"buoy reset\"", r.Version)
	}
	if r.Version < 1 || r.Image.Ref == "" || len(r.Parts) == 0 && !r.isFlist() {
		return nil, errors.New("fields are missing")
	}
	ref, err := ParseRef(r.Image.Ref)
	if err != nil {
		return nil, err
	}
	if (ref.Kind == Flist) != r.isFlist() || r.isFlist() && !validDigest(r.Image.Digest) {
		return nil, errors.New("it is not clear whether it is an flist")
	}
	for _, p := range r.Parts {
		if p.Key == "" || !filepath.IsLocal(p.ID) || strings.Contains(p.ID, "/") {
			return nil, errors.New("a layer entry is not valid")
		}
	}
	return r, nil
}

// adopt completes r from disk; false if a layer is gone. An flist can do without.
func (s *Store) adopt(r *record) bool {
	if r.isFlist() {
		return s.adoptFlist(r)
	}
	if !s.adoptParts(r) {
		return false
	}
	s.place(r)
	return true
}

func (s *Store) adoptParts(r *record) bool {
	for _, p := range r.Parts {
		have, ok := s.layers[p.Key]
		if ok && have.ID == p.ID {
			continue
		}
		// The layer's own file is damaged or missing: this record knows as much.
		if st, err := os.Stat(filepath.Join(s.layersDir(), p.ID)); err != nil || !st.IsDir() {
			s.log.Warn("image lost a layer; pull it again", "image", r.Image.Ref, "layer", p.ID)
			return false
		}
		if err := s.writeSidecar(p); err != nil {
			s.log.Warn("image lost a layer; pull it again", "image", r.Image.Ref, "layer", p.ID, "error", err)
			return false
		}
		s.layers[p.Key] = p
	}
	return true
}

// place fills in what follows from where the store is.
func (s *Store) place(r *record) {
	r.Image.Base, r.Image.Layers, r.Image.Size = s.layersDir(), nil, r.FileSize
	if r.isFlist() {
		r.Image.Flist = flistName(r.Image.Digest)
	}
	hidden := false
	for _, p := range r.Parts {
		r.Image.Size += p.Bytes
		if !hidden { // overlayfs does not heed an opaque mark on a layer's root
			r.Image.Layers = append(r.Image.Layers, p.ID)
		}
		hidden = hidden || p.Opaque
	}
}

// commit makes r what its reference stands for, durably, then drops layers only the previous content used.
// The caller has pinned r's layers.
func (s *Store) commit(r *record) (Image, error) {
	r.Version = recordVersion
	s.place(r)
	was, err := s.put(r)
	if err != nil {
		return Image{}, fmt.Errorf("record image %q: %w", r.Image.Ref, err)
	}
	if was != nil {
		s.discard(was.Parts, was.Image.Flist)
	}
	return r.Image, nil
}

func (s *Store) put(r *record) (was *record, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.missing(r); err != nil {
		return nil, err
	}
	was = s.images.Load().byRef[r.Image.Ref]
	r.Image.Pinned, r.Used = false, time.Time{}
	if was != nil {
		r.Image.Pinned, r.Used = was.Image.Pinned, was.Used
	}
	return was, s.write(r)
}

// amend changes what is recorded about a reference: f gets a copy, and says whether it changed it. Nobody's layers are
// dropped by it.
func (s *Store) amend(ref string, f func(*record) bool) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	was, ok := s.images.Load().byRef[ref]
	if !ok {
		return errs.E(errs.NotFound, "image %q is not on this node", ref)
	}
	r := *was
	if !f(&r) {
		return nil
	}
	s.place(&r)
	if err := s.write(&r); err != nil {
		return fmt.Errorf("record image %q: %w", ref, err)
	}
	return nil
}

// write makes r what is known of its reference. s.disk is held.
func (s *Store) write(r *record) error {
	plain := *r
	plain.Image.Base, plain.Image.Layers, plain.Image.Flist = "", nil, ""
	data, err := json.Marshal(plain)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.refFile(r.Image.Ref), data, 0o600); err != nil {
		return err
	}
	recs := maps.Clone(s.images.Load().byRef)
	recs[r.Image.Ref] = r
	s.images.Store(newCatalog(recs))
	return nil
}

func (s *Store) missing(r *record) error {
	if r.isFlist() {
		if _, err := os.Stat(s.flistFile(flistName(r.Image.Digest))); err != nil {
			return errs.E(errs.Internal, "flist %s is gone", r.Image.Digest)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range r.Parts {
		if _, ok := s.layers[p.Key]; !ok {
			return errs.E(errs.Internal, "layer %s is gone", p.ID)
		}
	}
	return nil
}

// forget removes ref's record; false if there is none. s.disk is held.
func (s *Store) forget(ref string) (*record, bool, error) {
	old := s.images.Load()
	r, ok := old.byRef[ref]
	if !ok {
		return nil, false, nil
	}
	if err := os.Remove(s.refFile(ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, true, fmt.Errorf("remove image %q: %w", ref, err)
	}
	if err := atomicfile.SyncDir(s.refsDir()); err != nil {
		return nil, true, fmt.Errorf("remove image %q: %w", ref, err)
	}
	recs := maps.Clone(old.byRef)
	delete(recs, ref)
	s.images.Store(newCatalog(recs))
	return r, true, nil
}
