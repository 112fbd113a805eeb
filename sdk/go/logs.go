package buoy

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// LogOptions selects log lines; the zero value is all there are now.
type LogOptions struct {
	Tail         int       // only the last ones; 0: all
	After        string    // only what is behind the line of this id, whatever Tail says
	Since, Until time.Time // zero: no bound
	Follow       bool      // go on with new lines until the container ends
	Stream       string    // "stdout" or "stderr"; empty: both
	Timestamps   bool      // each line begins with its time, RFC 3339, and a space
	CRI          bool      // each line is as Kubernetes' CRI has it: time, stream, and F, or P if it goes on in the next
}

func (o LogOptions) query() url.Values {
	q := url.Values{}
	if o.Tail > 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if o.After != "" {
		q.Set("after", o.After)
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if !o.Until.IsZero() {
		q.Set("until", o.Until.UTC().Format(time.RFC3339Nano))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Stream != "" {
		q.Set("stream", o.Stream)
	}
	if o.Timestamps {
		q.Set("timestamps", "true")
	}
	if o.CRI {
		q.Set("format", "cri")
	}
	return q
}

// Logs streams what a container wrote, in lines. The caller closes it; the
// end of ctx ends it too.
func (c *Client) Logs(ctx context.Context, container string, o LogOptions) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: containerPath(container, "logs"), query: o.query()})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
