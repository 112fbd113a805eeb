package nodes

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
)

// diskUsage is what images take on the node's disk. All sizes are in bytes.
type diskUsage struct {
	Total       int64        `json:"total"` // of the file system
	Free        int64        `json:"free"`
	Reserve     int64        `json:"reserve"`          // of free, what pulls leave
	GCHigh      int          `json:"gcHigh,omitempty"` // percent at which unused images are removed
	GCLow       int          `json:"gcLow,omitempty"`  // and until when
	Images      []imageUsage `json:"images"`
	Layers      usagePart    `json:"layers"`
	Flists      usagePart    `json:"flists"`
	Chunks      usagePart    `json:"chunks"`  // of flists
	Partial     usagePart    `json:"partial"` // downloads to be resumed
	Reclaimable int64        `json:"reclaimable"`
}

type usagePart struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

type imageUsage struct {
	Ref         string    `json:"ref"`
	Size        int64     `json:"size"`
	Shared      int64     `json:"shared"`      // of size, what other images need too
	Reclaimable int64     `json:"reclaimable"` // of size, what its removal frees now
	InUse       bool      `json:"inUse"`
	Pinned      bool      `json:"pinned"`
	Used        time.Time `json:"used,omitzero"`
}

func imageUsageOut(i images.ImageUsage) imageUsage {
	i.Used = i.Used.UTC().Truncate(time.Second)
	return imageUsage(i)
}

func (d *Dialect) imageUsage(w http.ResponseWriter, r *http.Request) error {
	u, err := d.node.ImageUsage(r.Context())
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, diskUsage{
		Total: u.Total, Free: u.Free, Reserve: u.Reserve, GCHigh: u.GCHigh, GCLow: u.GCLow,
		Images: each(u.Images, imageUsageOut),
		Layers: usagePart{u.Layers, u.LayerBytes}, Flists: usagePart{u.Flists, u.FlistBytes},
		Chunks: usagePart{u.Chunks, u.ChunkBytes}, Partial: usagePart{u.Parts, u.PartBytes},
		Reclaimable: u.Reclaimable,
	})
	return nil
}

func (d *Dialect) pinImage(w http.ResponseWriter, r *http.Request) error {
	ref, err := imageRef(r)
	if err != nil {
		return err
	}
	if err := d.node.PinImage(r.Context(), ref, true); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// unpinImage has nothing to do where there is no image.
func (d *Dialect) unpinImage(w http.ResponseWriter, r *http.Request) error {
	ref, err := imageRef(r)
	if err != nil {
		return err
	}
	if err := absentIsFine(d.node.PinImage(r.Context(), ref, false)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// exportImage answers with the archive as it is made.
func (d *Dialect) exportImage(w http.ResponseWriter, r *http.Request) error {
	ref, err := imageRef(r)
	if err != nil {
		return err
	}
	begun := false
	err = d.node.ExportImage(r.Context(), ref, func(mediaType string) io.Writer {
		begun = true
		w.Header().Set("Content-Type", mediaType)
		return w
	})
	if err != nil && begun {
		d.cut(r, err)
	}
	return err
}

// importImage takes the body as it arrives.
func (d *Dialect) importImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	image, err := d.node.ImportImage(r.Context(), r.Body, images.ImportOptions{Ref: q.Get("ref"), Signature: q.Get("signature")})
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) && errs.KindOf(err) == errs.Internal {
			return errs.E(errs.Invalid, "the import ends before the image does: %w", err)
		}
		return err
	}
	api.JSON(w, http.StatusCreated, imageOut(image))
	return nil
}
