// Package images keeps root filesystems at rest: it pulls OCI images from
// registries, layouts and archives, unpacks their layers once, shares them
// between images, and throws away what nobody uses. Of flists it keeps the
// metadata, and the complete layer once somebody has made it; it does not read
// them.
//
// Below Config.Dir:
//
//	layers/<id>       one unpacked layer, whole or not there; id is short so that 120 lower dirs fit into mount options
//	layers/<id>.json  which content it is (full digest), written before the folder gets its name
//	flists/<sha256>   one flist: names and the like, its contents are elsewhere
//	refs/<hash>.json  one reference: image, config, layers, what the source said
//	logins.json       registries that somebody has logged in to, with sealed passwords
//	tmp/              downloads that can be resumed, unpacking in progress, deletions in progress
//
// Compressed blobs are not kept after unpacking: disks are small, and a layer
// is never pushed from here. A Store has no goroutine, timer or write of its own;
// all work happens inside the calls.
package images

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
)

// Config says where a Store lives and how it reaches registries.
type Config struct {
	Dir      string // required: DATA/images
	Platform string // "linux/amd64", "linux/arm/v7"; empty: this machine's
	// AuthFile has the format of docker's config.json. Empty: $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json,
	// ~/.docker/config.json, $XDG_RUNTIME_DIR/containers/auth.json, whichever exists first. It is read at every pull.
	AuthFile  string
	Mirrors   map[string][]string // registry host → mirrors tried first, in order; "host[:port][/prefix]"
	PlainHTTP []string            // registry hosts ("host" or "host:port") allowed without TLS; loopback always is
	Parallel  int                 // layer downloads at once; 0: 3
	Hub       string              // base of hub:USER/NAME; empty: DefaultHub
	// Inspect says what an flist is, or refuses it. It is asked once for each flist that comes. Nil: flists are refused.
	Inspect func(ctx context.Context, file string) (RunConfig, FlistInfo, error)
	// Spare frees up to that many bytes of the file system that are no images, and says how many: what is only kept for speed.
	// It is asked when removing images is not enough. Nil: there is no such thing.
	Spare func(ctx context.Context, bytes int64) (int64, error)
	// Once the file system is fuller than GCHigh percent, images that nothing needs are removed until it is at GCLow. 0: never.
	GCHigh, GCLow int
	Reserve       int64        // bytes of the file system that pulls leave free
	Keys          *seal.Keys   // seal what Login keeps; nil: it keeps nothing
	Policy        string       // file that says which images may be used, see package signature; empty: all
	Log           *slog.Logger // nil: no log
}

// Store is the images of one node. All methods may be called at once.
type Store struct {
	cfg      Config
	platform v1.Platform
	log      *slog.Logger
	tune     tuning
	policy   policyFile

	images atomic.Pointer[catalog] // what Resolve and List read; replaced whole under disk

	disk sync.Mutex // serialises changes of names in Dir/layers and Dir/refs; held during small writes

	inUse      atomic.Pointer[func(ref, digest string) bool] // see Protect
	told       atomic.Pointer[func(context.Context, Change)] // see Tell
	collecting sync.Mutex                                    // held by the one collection that runs

	mu     sync.Mutex           // guards the maps below; nothing slow under it
	used   map[string]time.Time // last uses by reference that are not recorded yet
	layers map[string]stored    // complete layers by key
	held   map[string]int       // holds by layer id, and by Image.Flist
	pinned map[string]int       // running pulls by layer key, and by Image.Flist

	pulls   flights[Image]  // by reference
	unpacks flights[stored] // by layer key
	configs flights[[]byte] // by config digest
	blobs   keyLocks        // by blob digest: one download of a file at a time

	downloading chan struct{} // semaphore of Parallel
	unpacking   chan struct{} // the same
}

// Image is one root filesystem and what its maker says about running it. Do not change its slices and maps.
type Image struct {
	Ref string // as normalised, e.g. docker.io/library/nginx:1.27
	// Digest is what Ref stood for at the source: the digest of the manifest, or of the manifest list if there is one
	// (so that it can be pinned on any platform); for archives the sha256 of the file; for directories "".
	Digest string
	// Base and Layers are the overlay's lower dirs, top first, relative to Base. A directory: Base "", Layers its path.
	Base   string
	Layers []string
	// Flist is the metadata of an flist, relative to Base. Its Layers are empty until it has been materialised.
	Flist  string     `json:",omitempty"`
	About  *FlistInfo `json:",omitempty"` // of flists only
	Config RunConfig
	Size   int64 // bytes of all layers unpacked, those shared with other images too; 0 for directories
	Pinned bool  `json:",omitempty"` // never removed but by Remove
	// SignedBy is the key whose signature was checked for the policy, as "sha256:" and the digest of the key.
	SignedBy string `json:",omitempty"`
	// Created is the maker's claim, Pulled when this content came to this node.
	Created, Pulled time.Time
}

// RunConfig is the part of an image's config that matters for running it.
type RunConfig struct {
	Env, Entrypoint, Cmd         []string
	WorkingDir, User, StopSignal string
	Volumes, ExposedPorts        []string
	Labels                       map[string]string
	Architecture, OS, Variant    string
}

// Phase values of a Progress.
const (
	PhaseResolve  = "resolve"  // asking the source what the reference is
	PhaseDownload = "download" // of one blob
	PhaseUnpack   = "unpack"   // of one blob; Done counts compressed bytes
	PhaseDone     = "done"     // Blob set: this blob; else the image
)

// Progress is one step of a pull. Total is -1 where the source does not say.
type Progress struct {
	Ref, Blob   string
	Done, Total int64
	Phase       string
}

// tuning is what tests shorten.
type tuning struct {
	attempts  int           // failures in a row without progress before a transfer is given up
	backoff   time.Duration // after the first failure; doubles up to maxWait
	maxWait   time.Duration // longest single wait, also the longest Retry-After that is obeyed
	stall     time.Duration // a transfer without a byte for so long is dropped and resumed
	dial      time.Duration
	minAge    time.Duration // since the last use, before which nothing is removed to make room
	keepParts time.Duration // age at which a partial download is no longer resumed
	maxURL    int64         // largest archive fetched from a URL
	maxFlist  int64         // largest flist
}

// Numbers: 6 attempts with 0.5 s doubling are 15.5 s of waiting, enough for a link that flaps, short enough for a person
// who waits for an answer; a stall of 60 s is what curl and dockerd's proxies use; week as asked for by small disks;
// 2 minutes is kubelet's age, long enough from a pull to the start it was for; the largest flist known, of 30,370 files, has 2 MB.
func defaultTuning() tuning {
	return tuning{
		attempts: 6, backoff: 500 * time.Millisecond, maxWait: 2 * time.Minute, stall: time.Minute,
		dial: 15 * time.Second, minAge: 2 * time.Minute, keepParts: 7 * 24 * time.Hour, maxURL: 64 << 30, maxFlist: 1 << 30,
	}
}

// Open reads the index below cfg.Dir, makes the folders and sweeps what a crash left in tmp. Complete layers that no
// reference uses stay until Prune, because a running container may use them: call Hold for every container first.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errs.E(errs.Invalid, "images: Config.Dir is required")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	cfg.Dir = dir
	if cfg.GCHigh < 0 || cfg.GCHigh > 100 || cfg.GCLow < 0 || cfg.GCLow > cfg.GCHigh || cfg.Reserve < 0 {
		return nil, errs.E(errs.Invalid, "images: GCHigh %d and GCLow %d are not percentages, the greater first, or Reserve %d is negative", cfg.GCHigh, cfg.GCLow, cfg.Reserve)
	}
	platform, err := parsePlatform(cfg.Platform)
	if err != nil {
		return nil, err
	}
	cfg.Hub = cmp.Or(cfg.Hub, DefaultHub)
	parallel := cmp.Or(max(cfg.Parallel, 0), 3)
	s := &Store{
		cfg: cfg, platform: platform, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), tune: defaultTuning(),
		policy: policyFile{path: cfg.Policy},
		used:   map[string]time.Time{}, layers: map[string]stored{}, held: map[string]int{}, pinned: map[string]int{},
		downloading: make(chan struct{}, parallel), unpacking: make(chan struct{}, parallel),
	}
	if _, err := s.policy.load(); err != nil {
		return nil, err
	}
	for _, d := range []string{s.layersDir(), s.flistsDir(), s.refsDir(), s.tmpDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	if err := atomicfile.RemoveParts(s.loginsFile()); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := s.sealLogins(); err != nil {
		s.log.Error("registry logins stay as they are on the disk", "error", err)
	}
	if err := s.sweepTmp(time.Now()); err != nil {
		return nil, fmt.Errorf("open image store: sweep: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

func (s *Store) layersDir() string { return filepath.Join(s.cfg.Dir, "layers") }
func (s *Store) refsDir() string   { return filepath.Join(s.cfg.Dir, "refs") }
func (s *Store) tmpDir() string    { return filepath.Join(s.cfg.Dir, "tmp") }

// Resolve is the image ref stands for on this node, without asking the source; errs.NotFound if it is not here. A
// directory needs no pull. A digest reference is also found when another reference of the same repository has it.
func (s *Store) Resolve(ctx context.Context, ref string) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	c := s.images.Load()
	if r, ok := c.byRef[ref]; ok { // already normalised: the usual case
		return r.Image, nil
	}
	r, err := ParseRef(ref)
	if err != nil {
		return Image{}, err
	}
	if rec, ok := c.find(r); ok {
		return rec.Image, nil
	}
	if r.Kind == Path {
		if st, err := os.Stat(r.Path); err == nil && st.IsDir() {
			return directory(r), nil
		}
	}
	return Image{}, errs.E(errs.NotFound, "image %q is not on this node", r)
}

// List is every image that was pulled, by reference.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []Image
	for _, r := range s.images.Load().byRef {
		all = append(all, r.Image)
	}
	slices.SortFunc(all, func(a, b Image) int { return cmp.Compare(a.Ref, b.Ref) })
	return all, nil
}

// directory is a root filesystem used where it is; nothing is recorded about it.
func directory(r Reference) Image {
	return Image{Ref: r.String(), Layers: []string{r.Path}}
}
