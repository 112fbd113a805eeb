package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/size"
)

// progress tells a person at a terminal how many bytes are done; it is silent elsewhere.
type progress struct {
	done atomic.Int64
	end  chan struct{}
	wg   sync.WaitGroup
}

func startProgress(w io.Writer, verb string) *progress {
	p := &progress{end: make(chan struct{})}
	f, ok := w.(*os.File)
	if !ok {
		return p
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return p
	}
	p.wg.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.end:
				fmt.Fprint(w, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprintf(w, "\r%s %s\x1b[K", size.Text(p.done.Load()), verb)
			}
		}
	})
	return p
}

func (p *progress) add(n int64) { p.done.Add(n) }

func (p *progress) stop() {
	close(p.end)
	p.wg.Wait()
}
