package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// calls are the requests that wait for chunks.
type calls struct {
	mu    sync.Mutex // guards wait, ended
	wait  map[uint64]*call
	ended bool
}

type call struct {
	cancel context.CancelCauseFunc
	signal chan struct{} // closed when the kernel says that a signal has come
	once   sync.Once
}

// Why a call ends before it is done. The first is for the next server to answer.
var (
	errStopping = errors.New("the server ends")
	errKilled   = errors.New("the reader was killed")
)

func newCalls() *calls { return &calls{wait: map[uint64]*call{}} }

// await runs f, which fetches for the request with that number of thread tid. It ends f early when the thread is being
// killed, when limit is over, or when the server ends.
func (c *calls) await(ctx context.Context, unique uint64, tid uint32, limit time.Duration, f func(context.Context) error) error {
	ctx, stop := context.WithTimeoutCause(ctx, limit, errs.E(errs.Unavailable, "no store has given it within %s", limit))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	one := &call{cancel: cancel, signal: make(chan struct{})}
	c.mu.Lock()
	c.wait[unique] = one
	ended := c.ended
	c.mu.Unlock()
	if ended {
		cancel(errStopping)
	}
	var wg sync.WaitGroup
	wg.Go(func() { one.watch(ctx, tid) })
	err := f(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = because(cause, err)
	}
	cancel(nil)
	wg.Wait()
	c.mu.Lock()
	delete(c.wait, unique)
	c.mu.Unlock()
	return err
}

// because is cause, with what err has to tell besides.
func because(cause, err error) error {
	switch {
	case errors.Is(cause, context.Canceled):
		return errStopping
	case errors.Is(cause, errStopping), errors.Is(cause, errKilled):
		return cause
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cause) {
		return cause
	}
	return fmt.Errorf("%w: %s", cause, err.Error())
}

// watch waits for a signal. The kernel says that one has come, not which: most are none of our business, and an answer EINTR
// to a page fault would be a SIGBUS. So only a thread that is being killed is let go. The kernel says it once, hence the
// looking again.
func (c *call) watch(ctx context.Context, tid uint32) {
	select {
	case <-ctx.Done():
		return
	case <-c.signal:
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !killed(tid) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	c.cancel(errKilled)
}

// killed says whether SIGKILL is on its way to a thread: every signal that ends a process becomes one.
func killed(tid uint32) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	for line := range bytes.Lines(raw) {
		for _, name := range []string{"SigPnd:", "ShdPnd:"} {
			if v, ok := bytes.CutPrefix(line, []byte(name)); ok {
				set, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 16, 64)
				if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
					return true
				}
			}
		}
	}
	return false
}

// interrupt passes a signal on; false: no such request waits.
func (c *calls) interrupt(unique uint64) bool {
	c.mu.Lock()
	one := c.wait[unique]
	c.mu.Unlock()
	if one == nil {
		return false
	}
	one.once.Do(func() { close(one.signal) })
	return true
}

// endAll ends all calls, and those to come.
func (c *calls) endAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, one := range c.wait {
		one.cancel(errStopping)
	}
}

// lostRequests finds out whether the kernel waits for answers that nobody will give.
type lostRequests struct {
	taken int64
	since int
}

// lostAfter looks, a second apart, without anything new: then what the kernel waits for and we do not work on is lost.
const lostAfter = 3

func (l *lostRequests) look(conn uint32, busy int, taken int64) bool {
	waiting := 0
	if conn != 0 {
		if raw, err := os.ReadFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/waiting", conn)); err == nil {
			waiting, _ = strconv.Atoi(string(bytes.TrimSpace(raw)))
		}
	}
	if waiting <= busy || taken != l.taken {
		l.taken, l.since = taken, 0
		return false
	}
	l.since++
	return l.since >= lostAfter
}
