package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/size"
)

const (
	progressEvery = 100 * time.Millisecond
	plainEvery    = 5 * time.Second // a pull that is shorter is not told where nobody looks
	barWidth      = 20
)

// progressLine shows a pull: on a terminal in one line that it writes over and
// over, elsewhere in a line now and then.
type progressLine struct {
	w        io.Writer // nil: nobody is shown anything
	ref      string
	terminal bool
	blobs    map[string]buoy.Progress
	shown    time.Time
	pace     pace
}

func (c *cli) newProgressLine(ref string, quiet bool) *progressLine {
	l := &progressLine{w: c.stderr, ref: ref, blobs: map[string]buoy.Progress{}}
	if quiet {
		l.w = nil
	}
	if l.terminal = isTerminal(c.stderr) && c.getenv("TERM") != "dumb"; !l.terminal {
		l.shown = time.Now()
	}
	return l
}

func (l *progressLine) add(p buoy.Progress) {
	now := time.Now()
	if p.Blob != "" {
		l.blobs[p.Blob] = p
	}
	done, _, _, _ := l.sum()
	l.pace.add(done, now)
	every := plainEvery
	if l.terminal {
		every = progressEvery
	}
	if l.w == nil || now.Sub(l.shown) < every {
		return
	}
	l.shown = now
	if !l.terminal {
		fmt.Fprintln(l.w, l.text(false))
		return
	}
	text := l.text(true)
	if f, ok := l.w.(*os.File); ok { // a line that wraps could not be written over
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			text = text[:min(len(text), width-1)]
		}
	}
	fmt.Fprintf(l.w, "\r\x1b[K%s", text)
}

// sum is how many bytes have come, of how many, and how many layers are whole.
func (l *progressLine) sum() (done, total int64, finished, unpacking int) {
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
	return done, total, finished, unpacking
}

// text is where the pull is, in ASCII.
func (l *progressLine) text(bar bool) string {
	done, total, finished, unpacking := l.sum()
	layers := fmt.Sprintf("%d of %d layers done", finished, len(l.blobs))
	switch {
	case len(l.blobs) == 0:
		return "pulling " + l.ref
	case done == total && finished+unpacking == len(l.blobs):
		return fmt.Sprintf("pulling %s: unpacking, %s", l.ref, layers)
	}
	drawn := ""
	if bar && total > 0 {
		n := int(done * barWidth / total)
		drawn = "[" + strings.Repeat("=", n) + strings.Repeat(" ", barWidth-n) + "] "
	}
	rate := ""
	if l.pace.rate > 0 {
		rate = size.Text(int64(l.pace.rate)) + "/s, "
	}
	return fmt.Sprintf("pulling %s: %s%s of %s, %s%s", l.ref, drawn, size.Text(done), size.Text(total), rate, layers)
}

// clear takes the line away.
func (l *progressLine) clear() {
	if l.terminal && !l.shown.IsZero() {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

// pace is how fast bytes come: of late, more than before.
type pace struct {
	at   time.Time // of the last look
	done int64
	rate float64 // bytes in a second
}

const paceEvery = 500 * time.Millisecond

func (p *pace) add(done int64, now time.Time) {
	passed := now.Sub(p.at)
	if p.at.IsZero() || done < p.done { // what was there already has not come
		p.at, p.done = now, done
		return
	}
	if passed < paceEvery {
		return
	}
	rate := float64(done-p.done) / passed.Seconds()
	if p.rate > 0 {
		rate = 0.7*p.rate + 0.3*rate
	}
	p.at, p.done, p.rate = now, done, rate
}
