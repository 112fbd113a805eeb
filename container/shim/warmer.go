//go:build linux && cgo

package shim

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// warmer keeps cgroup attach cheap. The first write of a pid to any
// cgroup.procs after some 10 ms waits for an RCU grace period, 10 ms and more;
// those that follow closely take microseconds, in whatever hierarchy
// (reference/baseline.md, trick 1). So while a start is likely or under way
// one goroutine keeps writing our own pid where it is already.
type warmer struct{ likely chan struct{} }

const (
	warmFor   = 200 * time.Millisecond
	warmEvery = 4 * time.Millisecond
)

func newWarmer() *warmer { return &warmer{make(chan struct{}, 1)} }

// warm returns at once.
func (w *warmer) warm() {
	select {
	case w.likely <- struct{}{}:
	default:
	}
}

func (w *warmer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.likely:
			w.keep(ctx)
		}
	}
}

// keep writes until no start is likely any more. Which cgroup is ours is looked
// up each time: buoyd moves us out of its own when we have started.
func (w *warmer) keep(ctx context.Context) {
	file, err := os.OpenFile(ownProcs(), os.O_WRONLY, 0)
	if err != nil {
		return // starts are slower then, no more
	}
	defer file.Close()
	pid := []byte(strconv.Itoa(os.Getpid()))
	for until := time.Now().Add(warmFor); time.Now().Before(until); {
		_, _ = file.Write(pid)
		select {
		case <-ctx.Done():
			return
		case <-w.likely:
			until = time.Now().Add(warmFor)
		case <-time.After(warmEvery):
		}
	}
}

// ownProcs is a cgroup.procs that has our pid: writing it there again moves
// nothing, but goes the slow way.
func ownProcs() string {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		parts := strings.SplitN(sc.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, mount := range []string{strings.TrimPrefix(parts[1], "name="), "", "unified"} {
			p := filepath.Join("/sys/fs/cgroup", mount, parts[2], "cgroup.procs")
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return ""
}
