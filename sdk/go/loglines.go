package buoy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"
)

// LogLine is a line of a container's log.
type LogLine struct {
	ID      string    `json:"id"` // LogOptions.After goes on behind it
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"`            // "stdout" or "stderr"
	Text    string    `json:"text"`              // without line end
	Bytes   []byte    `json:"bytes,omitempty"`   // Text as it was written, if that is no UTF-8
	Partial bool      `json:"partial,omitempty"` // it has no line end: the rest is in the stream's next
	Gap     bool      `json:"gap,omitempty"`     // it is buoyd's word that lines are missing here
}

// LogPatience is how long LogLines waits for a buoyd that is gone; an upgrade
// takes a few seconds.
const LogPatience = 30 * time.Second

// LogLines yields what a container wrote, until all is told, ctx ends, or with
// an error. With Follow it survives that buoyd goes away and comes back, and
// neither loses nor repeats a line. Timestamps and CRI are without meaning.
func (c *Client) LogLines(ctx context.Context, container string, o LogOptions) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) {
		o.CRI, o.Timestamps = false, false
		var seen time.Time // when buoyd was there last
		for {
			enough, err := c.logLines(ctx, container, o, &seen, func(l LogLine) bool {
				o.After = l.ID
				return yield(l, nil)
			})
			if enough || err == nil {
				return
			}
			if !o.Follow || ctx.Err() != nil || !passing(err) || time.Since(seen) > LogPatience {
				yield(LogLine{}, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// passing says whether an error may pass: there was no answer, or one that says so.
func passing(err error) bool {
	answer, ok := errors.AsType[*Error](err)
	return !ok || errors.Is(answer, ErrUnavailable)
}

// logLines is one request. It says whether the reader has had enough.
func (c *Client) logLines(ctx context.Context, container string, o LogOptions, seen *time.Time, emit func(LogLine) bool) (enough bool, err error) {
	query := o.query()
	query.Set("format", "ndjson")
	resp, err := c.send(ctx, request{method: http.MethodGet, path: containerPath(container, "logs"), query: query})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	defer func() { *seen = time.Now() }()
	for in := bufio.NewReader(resp.Body); ; {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return false, nil
		}
		if err != nil {
			return false, c.transportError(err)
		}
		var l LogLine
		if err := json.Unmarshal(text, &l); err != nil {
			return false, &Error{Message: fmt.Sprintf("a line of the log is not as it should be: %v", err)}
		}
		if !emit(l) {
			return true, nil
		}
	}
}
