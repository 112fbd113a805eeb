package buoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Image is a root file system that the node has at rest.
type Image struct {
	Ref          string    `json:"ref"`
	Digest       string    `json:"digest"`
	Size         int64     `json:"size"` // bytes unpacked
	Created      time.Time `json:"created,omitzero"`
	Pulled       time.Time `json:"pulled,omitzero"`
	Layers       int       `json:"layers"`
	Architecture string    `json:"architecture,omitempty"`
	OS           string    `json:"os,omitempty"`

	Pinned   bool       `json:"pinned,omitempty"`
	SignedBy string     `json:"signedBy,omitempty"` // key whose signature the node has checked
	Flist    *FlistInfo `json:"flist,omitempty"`    // of flists only
}

// FlistInfo is what an flist says about itself.
type FlistInfo struct {
	Era      string `json:"era"` // "C" or "D"
	Files    int    `json:"files"`
	Bytes    int64  `json:"bytes"`
	Complete bool   `json:"complete"` // all of it is on the node
	Warning  string `json:"warning,omitempty"`
}

// Progress is a step of a pull.
type Progress struct {
	Ref   string `json:"ref"`
	Blob  string `json:"blob"`            // empty: of the whole image
	Phase string `json:"phase"`           // "resolve", "download", "unpack", "done"
	Done  int64  `json:"done"`            // bytes
	Total int64  `json:"total"`           // -1: not known
	Image *Image `json:"image,omitempty"` // only in the last one: what has been pulled
}

// Images lists the images that the node has.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var images []Image
	return images, c.Do(ctx, http.MethodGet, "/nodes/{node}/images", nil, &images)
}

// RemoveImage removes an image from the node. ErrConflict: containers start from
// it, which force overrides.
func (c *Client) RemoveImage(ctx context.Context, ref string, force bool) error {
	path := "/nodes/{node}/images?ref=" + url.QueryEscape(ref)
	if force {
		path += "&force=true"
	}
	return c.Do(ctx, http.MethodDelete, path, nil, nil)
}

// Pull brings an image onto the node. The sequence ends with a Progress that
// has the Image, or with an error. Leaving it early abandons the pull.
func (c *Client) Pull(ctx context.Context, ref string) iter.Seq2[Progress, error] {
	return func(yield func(Progress, error) bool) {
		body, err := json.Marshal(map[string]string{"ref": ref})
		if err != nil {
			yield(Progress{}, err)
			return
		}
		resp, err := c.send(ctx, request{
			method:      http.MethodPost,
			path:        "/nodes/{node}/images",
			body:        strings.NewReader(string(body)),
			contentType: "application/json",
		})
		if err != nil {
			yield(Progress{}, err)
			return
		}
		defer resp.Body.Close()
		c.pulled(ref, json.NewDecoder(resp.Body), yield)
	}
}

// pulled hands on the lines of a pull.
func (c *Client) pulled(ref string, lines *json.Decoder, yield func(Progress, error) bool) {
	for {
		var line struct {
			Progress
			Error string `json:"error"`
		}
		err := lines.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			yield(Progress{}, fmt.Errorf("pull %s: buoyd hung up before the end: %w", ref, io.ErrUnexpectedEOF))
			return
		case err != nil:
			yield(Progress{}, c.transportError(err))
			return
		case line.Error != "":
			yield(line.Progress, &Error{Message: line.Error})
			return
		}
		if !yield(line.Progress, nil) || line.Image != nil {
			return
		}
	}
}
