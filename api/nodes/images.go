package nodes

import (
	"net/http"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
)

type imageObject struct {
	Ref          string    `json:"ref"`
	Digest       string    `json:"digest"`
	Size         int64     `json:"size"` // bytes unpacked, those shared with other images too
	Created      time.Time `json:"created,omitzero"`
	Pulled       time.Time `json:"pulled,omitzero"`
	Layers       int       `json:"layers"`
	Architecture string    `json:"architecture,omitempty"`
	OS           string    `json:"os,omitempty"`

	Pinned   bool       `json:"pinned,omitempty"`
	SignedBy string     `json:"signedBy,omitempty"` // key whose signature was checked
	Flist    *flistInfo `json:"flist,omitempty"`    // of flists only
}

// flistInfo is what an flist says about itself.
type flistInfo struct {
	Era      string `json:"era"`
	Files    int    `json:"files"`
	Bytes    int64  `json:"bytes"`
	Complete bool   `json:"complete"` // all of it is on the node
	Warning  string `json:"warning,omitempty"`
}

type pullImage struct {
	Ref string `json:"ref"`
}

// pullProgress is a line of the answer to a pull.
type pullProgress struct {
	Ref   string `json:"ref"`
	Blob  string `json:"blob"` // "" is the image as a whole
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // -1: not known
	Phase string `json:"phase"` // resolve, download, unpack, done
}

// pullEnd is its last line: one of the two.
type pullEnd struct {
	Image *imageObject `json:"image,omitempty"`
	Error string       `json:"error,omitempty"`
}

func imageOut(i images.Image) imageObject {
	o := imageObject{
		Ref: i.Ref, Digest: i.Digest, Size: i.Size, Created: i.Created.UTC(), Pulled: i.Pulled.UTC(),
		Layers: len(i.Layers), Architecture: i.Config.Architecture, OS: i.Config.OS,
		Pinned: i.Pinned, SignedBy: i.SignedBy,
	}
	if a := i.About; a != nil {
		o.Flist = &flistInfo{Era: a.Era, Files: a.Files, Bytes: a.Bytes, Complete: len(i.Layers) > 0, Warning: a.Warning}
	}
	return o
}

func (d *Dialect) listImages(w http.ResponseWriter, r *http.Request) error {
	list, err := d.node.Images(r.Context())
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(list, imageOut))
	return nil
}

// pullImage answers with lines of progress while it pulls.
func (d *Dialect) pullImage(w http.ResponseWriter, r *http.Request) error {
	req, err := api.Decode[pullImage](w, r)
	if err != nil {
		return err
	}
	if req.Ref == "" {
		return errs.E(errs.Invalid, "field \"ref\" is missing; it says which image")
	}
	stream := api.NewStream(w, "application/x-ndjson")
	image, err := d.pull(r, req.Ref, stream)
	var end pullEnd
	switch {
	case err == nil:
		o := imageOut(image)
		end.Image = &o
	case !stream.Started() || api.Gone(r):
		return err
	default:
		_, end.Error = api.Explain(r, err, d.log)
	}
	// Failures mean that the client has gone; there is nobody to tell.
	if stream.WriteJSON(end) == nil {
		_ = stream.Flush()
	}
	return nil
}

// pull pulls an image and writes its progress, from a goroutine of its own: a
// client that reads slowly must not hold up the pull.
func (d *Dialect) pull(r *http.Request, ref string, stream *api.Stream) (images.Image, error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	news := &progressNews{lines: make(chan pullProgress, 64), last: map[string]told{}}
	defer news.end()
	wg.Go(func() {
		for line := range news.lines {
			if stream.WriteJSON(line) == nil {
				_ = stream.Flush() // the client's going ends the pull by its context
			}
		}
	})
	return d.node.PullImage(r.Context(), ref, news.tell)
}

// progressPace is how often one blob's progress is told.
const progressPace = 100 * time.Millisecond

// progressNews picks what is worth telling of a pull's progress.
type progressNews struct {
	lines chan pullProgress

	mu   sync.Mutex // guards all below, and lines against use after its close
	over bool
	last map[string]told // by blob
}

type told struct {
	at    time.Time
	phase string
}

func (n *progressNews) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	close(n.lines)
}

func (n *progressNews) tell(p images.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over || !n.due(p, time.Now()) {
		return
	}
	select {
	case n.lines <- pullProgress(p):
	default: // the client is behind; there will be newer news
	}
}

// due says whether p is news: a new phase, or time has passed.
func (n *progressNews) due(p images.Progress, now time.Time) bool {
	last, known := n.last[p.Blob]
	if known && last.phase == p.Phase && now.Sub(last.at) < progressPace {
		return false
	}
	n.last[p.Blob] = told{at: now, phase: p.Phase}
	return true
}

// removeImage takes ?ref= and, for an image that containers start from, ?force=;
// one that is not there is gone already.
func (d *Dialect) removeImage(w http.ResponseWriter, r *http.Request) error {
	ref, err := imageRef(r)
	if err != nil {
		return err
	}
	force, err := api.Flag(r.URL.Query(), "force")
	if err != nil {
		return err
	}
	if err := absentIsFine(d.node.RemoveImage(r.Context(), ref, force)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// imageRef is the parameter ref.
func imageRef(r *http.Request) (string, error) {
	ref := r.URL.Query().Get("ref")
	if ref == "" {
		return "", errs.E(errs.Invalid, "parameter ref is missing; it says which image")
	}
	return ref, nil
}
