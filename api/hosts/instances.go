package hosts

import (
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Of engine instances, as aiWARE has it.
const (
	beatEvery  = 5 * time.Second
	missed     = 3           // beats, and an instance has failed
	keepEnded  = time.Hour   // so that a late one is told
	sweepEvery = time.Minute // at registrations
	maxEnded   = 1 << 16     // that are kept
)

// instance is a program in a container that has registered itself. It is known
// for as long as the controller runs; afterwards its token is not, and it
// registers again.
type instance struct {
	id         string
	token      [sha256.Size]byte
	replica    app.Replica // as it was at the registration
	runtime    int64       // seconds it may run
	toolkit    string
	registered time.Time
	beat       time.Time // last heard of
	ended      time.Time // it said so, or a person did; zero: it has not
	status     instanceStatus
}

// alive says that it has not ended and its beats have come.
func (i *instance) alive(now time.Time) bool {
	return i.ended.IsZero() && now.Sub(i.beat) <= missed*beatEvery
}

// over is when it ended, or failed; zero: it lives.
func (i *instance) over(now time.Time) time.Time {
	switch {
	case !i.ended.IsZero():
		return i.ended
	case !i.alive(now):
		return i.beat.Add(missed * beatEvery)
	}
	return time.Time{}
}

// instances are all that have registered.
type instances struct {
	mu     sync.Mutex // guards all below
	byID   map[string]*instance
	launch map[string]*instance // the last one of each launch
	tokens map[[sha256.Size]byte]*instance
	swept  time.Time
}

func newInstances() instances {
	return instances{byID: map[string]*instance{}, launch: map[string]*instance{}, tokens: map[[sha256.Size]byte]*instance{}}
}

// byToken finds one, as it is now.
func (s *instances) byToken(token string) (instance, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) == 0 {
		return instance{}, false
	}
	i, ok := s.tokens[sha256.Sum256([]byte(token))]
	if !ok {
		return instance{}, false
	}
	return *i, true
}

func (s *instances) get(id string) (instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.byID[id]
	if !ok {
		return instance{}, errs.E(errs.NotFound, "engine instance %.60q is not known; the controller may have started since it registered", id)
	}
	return *i, nil
}

// add registers the instance of a replica. Exists: it has one that lives, in
// the same run of its container.
func (s *instances) add(r app.Replica, runtime int64, toolkit string, now time.Time) (i instance, token string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	if before := s.launch[r.ID]; before != nil && before.alive(now) {
		if r.Restarts <= before.replica.Restarts {
			return instance{}, "", errs.E(errs.Exists, "launch %s has registered already, as engine instance %s", r.ID, before.id)
		}
		before.ended = now // with its container's run
	}
	if before := s.launch[r.ID]; before != nil {
		before.status = instanceStatus{} // large; of a launch, one is kept
	}
	token = rand.Text()
	one := &instance{
		id: strings.ToLower(rand.Text()), token: sha256.Sum256([]byte(token)), replica: r, runtime: runtime, toolkit: toolkit,
		registered: now, beat: now,
	}
	s.byID[one.id], s.launch[r.ID], s.tokens[one.token] = one, one, one
	return *one, token, nil
}

// sweep forgets those that are over for long, and sooner if there are many.
func (s *instances) sweep(now time.Time) {
	if now.Sub(s.swept) < sweepEvery && len(s.byID) <= len(s.launch)+maxEnded {
		return
	}
	s.swept = now
	var over []*instance
	for _, i := range s.byID {
		if !i.over(now).IsZero() {
			over = append(over, i)
		}
	}
	slices.SortFunc(over, func(a, b *instance) int { return a.over(now).Compare(b.over(now)) })
	for n, i := range over {
		if now.Sub(i.over(now)) > keepEnded || n < len(over)-maxEnded {
			delete(s.byID, i.id)
			delete(s.tokens, i.token)
			if s.launch[i.replica.ID] == i {
				delete(s.launch, i.replica.ID)
			}
		}
	}
}

// heard notes a beat, with a status if there is one. A late one counts no more.
func (s *instances) heard(id string, status *instanceStatus, now time.Time) (instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.byID[id]
	if !ok {
		return instance{}, errs.E(errs.NotFound, "engine instance %.60q is not known", id)
	}
	if i.alive(now) {
		i.beat = now
		if status != nil {
			i.status = *status
		}
	}
	return *i, nil
}

// end marks an instance as over, if it is not yet.
func (s *instances) end(id string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.byID[id]; ok && i.over(now).IsZero() {
		i.ended = now
	}
}

// all are those that keep says, oldest first.
func (s *instances) all(keep func(i *instance) bool) []instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []instance
	for _, i := range s.byID {
		if keep(i) {
			out = append(out, *i)
		}
	}
	slices.SortFunc(out, func(a, b instance) int {
		if c := a.registered.Compare(b.registered); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	return out
}

// order is what an engine instance is told to do.
type order string

const (
	orderLaunch    order = "launch" // to one that registers: go on
	orderWait      order = "wait"
	orderTerminate order = "terminate"
)

// going says that a replica is to go, or has gone.
func going(r *app.Replica) bool {
	return !r.Stopped.IsZero() || !r.Away.IsZero() || r.Phase == app.Ended || r.Phase == app.Failed || r.Phase == app.Gone
}

// registration is what a program of a replica is told that registers on a host in mode m.
func registration(r *app.Replica, m app.HostMode) order {
	switch {
	case going(r) || m == app.Drain || m == app.Terminate:
		return orderTerminate
	case m == app.Pause:
		return orderWait
	default:
		return orderLaunch
	}
}

// next is what an instance is told, given its replica as it is now, if it is known.
func next(i *instance, r *app.Replica, known bool, m app.HostMode, now time.Time) order {
	if !i.alive(now) || !known || registration(r, m) == orderTerminate {
		return orderTerminate
	}
	return orderWait // there is no other work than the program's own
}
