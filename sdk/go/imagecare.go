package buoy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// DiskUsage is what images take on the node's disk, in bytes.
type DiskUsage struct {
	Total       int64        `json:"total"` // of the file system
	Free        int64        `json:"free"`
	Reserve     int64        `json:"reserve"` // of Free, what pulls leave
	GCHigh      int          `json:"gcHigh"`  // percent at which unused images are removed
	GCLow       int          `json:"gcLow"`   // and until when
	Images      []ImageUsage `json:"images"`
	Layers      UsagePart    `json:"layers"`
	Flists      UsagePart    `json:"flists"`
	Chunks      UsagePart    `json:"chunks"`  // of flists
	Partial     UsagePart    `json:"partial"` // downloads to be resumed
	Reclaimable int64        `json:"reclaimable"`
}

// UsagePart is one kind of thing on the disk.
type UsagePart struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// ImageUsage is what one image takes.
type ImageUsage struct {
	Ref         string    `json:"ref"`
	Size        int64     `json:"size"`
	Shared      int64     `json:"shared"`      // of Size, what other images need too
	Reclaimable int64     `json:"reclaimable"` // of Size, what its removal frees now
	InUse       bool      `json:"inUse"`       // a container has it, which may be halted
	Pinned      bool      `json:"pinned"`
	Used        time.Time `json:"used,omitzero"`
}

// ImageUsage says what images take on the node's disk.
func (c *Client) ImageUsage(ctx context.Context) (DiskUsage, error) {
	var u DiskUsage
	return u, c.Do(ctx, http.MethodGet, "/nodes/{node}/images/df", nil, &u)
}

// PinImage keeps an image from being removed to make room.
func (c *Client) PinImage(ctx context.Context, ref string) error {
	return c.Do(ctx, http.MethodPut, "/nodes/{node}/images/pin?ref="+url.QueryEscape(ref), nil, nil)
}

// UnpinImage lets an image be removed to make room.
func (c *Client) UnpinImage(ctx context.Context, ref string) error {
	return c.Do(ctx, http.MethodDelete, "/nodes/{node}/images/pin?ref="+url.QueryEscape(ref), nil, nil)
}

// ExportImage reads an image as an OCI archive, or an flist as it is. The
// caller closes it. It is whole if it ends with io.EOF.
func (c *Client) ExportImage(ctx context.Context, ref string) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/nodes/{node}/images/export", query: url.Values{"ref": {ref}}})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ImportImage brings an image that r has onto the node: of ExportImage, or
// another image archive, root file system or flist. ref is what it is called,
// and may be empty if the archive says it; signature is what is in FILE.sig
// beside it, where the node's policy wants one.
func (c *Client) ImportImage(ctx context.Context, r io.Reader, ref, signature string) (Image, error) {
	q := url.Values{}
	for key, value := range map[string]string{"ref": ref, "signature": signature} {
		if value != "" {
			q.Set(key, value)
		}
	}
	// io.NopCloser: the client must not close what is the caller's.
	resp, err := c.send(ctx, request{
		method: http.MethodPost, path: "/nodes/{node}/images/import", query: q, body: io.NopCloser(r), contentType: "application/octet-stream",
	})
	if err != nil {
		return Image{}, err
	}
	defer resp.Body.Close()
	var image Image
	if err := json.NewDecoder(resp.Body).Decode(&image); err != nil {
		return Image{}, fmt.Errorf("decode the answer to an import: %w", c.transportError(err))
	}
	return image, nil
}
