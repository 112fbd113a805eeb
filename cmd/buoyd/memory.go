package main

import (
	"runtime/debug"
	"time"
)

const (
	// gcPercent trades a little CPU at work for memory at rest: a node's working
	// set is a few MB.
	gcPercent = 50
	// quiet is how long nobody has asked anything when memory goes back to the
	// kernel. The collector would keep what a burst has needed for minutes.
	quiet = 3 * time.Second
)

// trimmer gives memory back a while after it was last told of work. At rest it
// costs nothing.
type trimmer struct{ lean, timer *time.Timer }

// newTrimmer leaves the start at the collector's own pace: to collect more often
// the little that there is then takes 0.4 MB of the runtime's own, for good.
func newTrimmer() trimmer {
	return trimmer{
		lean:  time.AfterFunc(quiet, func() { debug.SetGCPercent(gcPercent) }),
		timer: time.AfterFunc(quiet, debug.FreeOSMemory),
	}
}

func (t trimmer) worked() { t.timer.Reset(quiet) }

func (t trimmer) stop() { t.lean.Stop(); t.timer.Stop() }
