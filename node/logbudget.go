package node

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	logPace       = 10 * time.Second // between looks at the logs' sizes
	maxLogBudget  = 2 << 30          // without one being given, a tenth of the disk, but no more
	logBudgetPart = 10
)

// logUse is what the log of a container takes. Rotated files are in the order
// in which they go, oldest first; the newest file never does.
type logUse struct {
	ended   bool
	size    int64
	rotated []logPiece
}

type logPiece struct {
	path string
	size int64
}

// boundLogs keeps the logs of all containers below the budget.
func (n *Node) boundLogs(ctx context.Context) {
	tick := time.NewTicker(logPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.trimLogs()
		}
	}
}

func (n *Node) trimLogs() {
	var uses []*logUse
	for _, b := range n.all() {
		b.mu.Lock()
		ended := b.status == Halted
		b.mu.Unlock()
		uses = append(uses, logUseOf(n.logFile(b.name), ended))
	}
	var bytes int64
	gone := overBudget(uses, n.logBudget())
	for _, p := range gone {
		if err := os.Remove(p.path); err == nil { // else rotation was there first
			bytes += p.size
		}
	}
	if bytes > 0 {
		n.cfg.Log.Info("logs removed to keep to the budget", "files", len(gone), "bytes", bytes)
	}
}

func (n *Node) logBudget() int64 {
	if n.cfg.LogBudget > 0 {
		return n.cfg.LogBudget
	}
	_, total, err := n.Room()
	if err != nil {
		return maxLogBudget
	}
	return min(total/logBudgetPart, maxLogBudget)
}

// logUseOf looks at the files of a log.
func logUseOf(path string, ended bool) *logUse {
	u := &logUse{ended: ended}
	entries, _ := os.ReadDir(filepath.Dir(path)) // one that is not there takes nothing
	age := map[string]int{}
	for _, e := range entries {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(path))
		info, err := e.Info()
		if !ok || err != nil {
			continue
		}
		u.size += info.Size()
		if i, err := strconv.Atoi(strings.TrimPrefix(suffix, ".")); err == nil {
			p := logPiece{filepath.Join(filepath.Dir(path), e.Name()), info.Size()}
			u.rotated, age[p.path] = append(u.rotated, p), i
		}
	}
	slices.SortFunc(u.rotated, func(a, b logPiece) int { return cmp.Compare(age[b.path], age[a.path]) })
	return u
}

// overBudget are the files to remove: the oldest of the greatest user each time,
// those of containers that have ended first. It changes uses.
func overBudget(uses []*logUse, budget int64) (gone []logPiece) {
	total := int64(0)
	for _, u := range uses {
		total += u.size
	}
	for total > budget {
		var next *logUse
		for _, u := range uses {
			switch {
			case len(u.rotated) == 0:
			case next == nil, u.ended && !next.ended, u.ended == next.ended && u.size > next.size:
				next = u
			}
		}
		if next == nil {
			return gone
		}
		p := next.rotated[0]
		next.rotated = next.rotated[1:]
		next.size -= p.size
		total -= p.size
		gone = append(gone, p)
	}
	return gone
}
