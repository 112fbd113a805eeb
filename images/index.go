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
	Image   Image    // without Base and Layers, which follow from Parts
	Parts   []stored // layers, top first
	// Manifest is the digest of this platform's manifest; it differs from Image.Digest behind a manifest list.
	Manifest string    `json:",omitempty"`
	Platform string    `json:",omitempty"` // the manifest was chosen for
	ETag     string    `json:",omitempty"` // of a URL
	Modified string    `json:",omitempty"` // Last-Modified of a URL
	Stamp    fileStamp `json:",omitzero"`  // of a local file
}

func newRecord(r Reference, digest, platform string, parts []stored) *record {
	img := Image{Ref: r.text, Digest: digest, Pulled: time.Now().UTC().Truncate(time.Second)}
	return &record{Image: img, Parts: parts, Platform: platform}
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

// users counts the images that need each layer key.
func (c *catalog) users() map[string]int {
	n := map[string]int{}
	for _, r := range c.byRef {
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
	if r.Version < 1 || r.Image.Ref == "" || len(r.Parts) == 0 {
		return nil, errors.New("fields are missing")
	}
	for _, p := range r.Parts {
		if p.Key == "" || !filepath.IsLocal(p.ID) || strings.Contains(p.ID, "/") {
			return nil, errors.New("a layer entry is not valid")
		}
	}
	return r, nil
}

// adopt completes r from disk; false if a layer is gone.
func (s *Store) adopt(r *record) bool {
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
	s.place(r)
	return true
}

// place fills in what follows from where the store is.
func (s *Store) place(r *record) {
	r.Image.Base, r.Image.Layers, r.Image.Size = s.layersDir(), nil, 0
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
	plain := *r
	plain.Image.Base, plain.Image.Layers = "", nil
	data, err := json.Marshal(plain)
	if err != nil {
		return Image{}, err
	}
	was, err := s.put(r, data)
	if err != nil {
		return Image{}, fmt.Errorf("record image %q: %w", r.Image.Ref, err)
	}
	if was != nil {
		s.discard(was.Parts)
	}
	return r.Image, nil
}

func (s *Store) put(r *record, data []byte) (was *record, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.missing(r); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(s.refFile(r.Image.Ref), data, 0o600); err != nil {
		return nil, err
	}
	old := s.images.Load()
	recs := maps.Clone(old.byRef)
	recs[r.Image.Ref] = r
	s.images.Store(newCatalog(recs))
	return old.byRef[r.Image.Ref], nil
}

func (s *Store) missing(r *record) error {
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
