package main

import (
	"fmt"
	"io"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/size"
)

const progressEvery = 100 * time.Millisecond

// progressLine shows a pull in one line that it writes over and over.
type progressLine struct {
	w     io.Writer
	ref   string
	on    bool
	blobs map[string]buoy.Progress
	shown time.Time
}

func newProgressLine(w io.Writer, ref string, on bool) *progressLine {
	return &progressLine{w: w, ref: ref, on: on, blobs: map[string]buoy.Progress{}}
}

func (l *progressLine) add(p buoy.Progress) {
	if p.Blob != "" {
		l.blobs[p.Blob] = p
	}
	if !l.on || time.Since(l.shown) < progressEvery {
		return
	}
	l.shown = time.Now()
	fmt.Fprintf(l.w, "\r\x1b[K%s", l.text())
}

// text is where the pull is.
func (l *progressLine) text() string {
	var done, total int64
	finished, unpacking := 0, 0
	for _, p := range l.blobs {
		total += max(p.Total, p.Done, 0)
		switch p.Phase {
		case "done":
			finished++
			done += max(p.Total, p.Done, 0)
		case "unpack": // it has all been downloaded
			unpacking++
			done += max(p.Total, p.Done, 0)
		default:
			done += p.Done
		}
	}
	switch {
	case len(l.blobs) == 0:
		return "pulling " + l.ref
	case done == total && finished+unpacking == len(l.blobs):
		return fmt.Sprintf("pulling %s: unpacking, %d of %d layers done", l.ref, finished, len(l.blobs))
	}
	return fmt.Sprintf("pulling %s: %s of %s, %d of %d layers done", l.ref, size.Text(done), size.Text(total), finished, len(l.blobs))
}

// clear takes the line away.
func (l *progressLine) clear() {
	if !l.shown.IsZero() {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}
