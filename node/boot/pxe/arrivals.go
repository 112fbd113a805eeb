package pxe

import (
	"maps"
	"sync"
	"time"
)

const (
	// arrival is how long a machine may take from its question by DHCP to that
	// for its secret: it loads iPXE and a kernel meanwhile.
	arrival = 3 * time.Minute
	// maxArrivals bounds what somebody can have us remember who comes with ever
	// new MACs. Racks have some dozen machines.
	maxArrivals = 4096
)

// arrivals are the machines that boot at present.
type arrivals struct {
	mu   sync.Mutex // guards seen
	seen map[mac]*seen
}

type seen struct {
	at     time.Time // of the last question
	stage  stage
	owed   bool      // its secret,
	asking time.Time // since this
}

// note notes that a machine asks how to boot, and says whether that is news.
// Who asks truly is owed its secret.
func (a *arrivals) note(id mac, at stage, truly bool, now time.Time) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen[id]
	if s == nil {
		if s = a.add(id, now); s == nil {
			return false
		}
	}
	news = now.Sub(s.at) >= arrival || s.stage != at
	s.at, s.stage = now, at
	if truly {
		s.owed, s.asking = true, now
	}
	return news
}

// add makes room for one more, if it can.
func (a *arrivals) add(id mac, now time.Time) *seen {
	if len(a.seen) >= maxArrivals {
		maps.DeleteFunc(a.seen, func(_ mac, s *seen) bool { return now.Sub(s.at) >= arrival })
	}
	if len(a.seen) >= maxArrivals {
		return nil
	}
	if a.seen == nil {
		a.seen = map[mac]*seen{}
	}
	a.seen[id] = &seen{}
	return a.seen[id]
}

// admit says whether the machine boots at present and is owed its secret. It
// has had it then.
func (a *arrivals) admit(id mac, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen[id]
	if s == nil || !s.owed || now.Sub(s.asking) >= arrival {
		return false
	}
	s.owed = false
	return true
}
