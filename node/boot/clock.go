package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// builtAt is when the image was made: it is not earlier now.
func builtAt() time.Time {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, osRelease(string(text), "BUILD_ID"))
	if err != nil {
		return time.Time{}
	}
	return at
}

// setClockFloor sets a clock that is before what it must be at least. The kernel
// has read it from the hardware, if there is any.
func setClockFloor() error { return raiseClock(builtAt(), "this image was built") }

func raiseClock(floor time.Time, when string) error {
	now := time.Now()
	if !now.Before(floor) {
		return nil
	}
	if err := setClock(floor); err != nil {
		return err
	}
	return fmt.Errorf("the clock showed %s, before %s: is its battery empty? It is set to that time until a time server answers", now.UTC().Format(time.RFC3339), when)
}

func setClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// clock keeps the time of the machine near that of servers.
type clock struct {
	given []string // servers that somebody wants; none: those that DHCP names
	file  string   // its time is the last that there was: a clock does not go back over a restart
	log   *slog.Logger

	mu     sync.Mutex // guards leased
	leased []string
	wake   chan struct{} // there may be servers
}

func newClock(given []string, file string, log *slog.Logger) *clock {
	return &clock{given: given, file: file, log: log, wake: make(chan struct{}, 1)}
}

// servers takes in those that DHCP names.
func (c *clock) servers(addrs []netip.Addr) {
	c.mu.Lock()
	c.leased = nil
	for _, a := range addrs {
		c.leased = append(c.leased, a.String())
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Times between questions, and how wrong a clock must be to be set at once and
// not little by little, which no program notices.
const (
	askSoon  = 10 * time.Second
	askLater = 17 * time.Minute // an hour has 3.5 of them
	stepFrom = 500 * time.Millisecond
)

// raise sets a clock that is before the last time that is known of.
func (c *clock) raise(ctx context.Context) {
	if at, err := os.Stat(c.file); err == nil {
		if err := raiseClock(at.ModTime(), "this machine last ran"); err != nil {
			c.log.WarnContext(ctx, "clock", "error", err)
		}
	}
}

// run asks now and then until ctx ends.
func (c *clock) run(ctx context.Context) error {
	told := false
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return c.note()
		case <-c.wake:
		case <-time.After(wait):
		}
		c.mu.Lock()
		servers := c.given
		if len(servers) == 0 {
			servers = slices.Clone(c.leased)
		}
		c.mu.Unlock()
		wait = askLater
		if err := c.note(); err != nil {
			return err
		}
		if len(servers) == 0 {
			continue
		}
		err := c.ask(ctx, servers)
		if err != nil {
			wait = askSoon
			if !told && ctx.Err() == nil {
				c.log.WarnContext(ctx, "no time server answers; the clock goes on by itself, and they are asked again", "servers", servers, "error", err)
			}
		}
		told = err != nil
	}
}

// ask asks all servers and follows the one in the middle, so that one that is
// wrong does no harm among three.
func (c *clock) ask(ctx context.Context, servers []string) error {
	floor := builtAt()
	var all []offset
	var failed error
	for _, host := range servers {
		o, err := askTime(ctx, host, floor)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", host, err))
			continue
		}
		all = append(all, o)
	}
	if len(all) == 0 {
		return failed
	}
	slices.SortFunc(all, func(a, b offset) int { return int(a.by - b.by) })
	by := all[len(all)/2].by
	if err := adjust(by); err != nil {
		return err
	}
	if by.Abs() >= stepFrom {
		c.log.InfoContext(ctx, "the clock was set", "by", by.Round(time.Millisecond), "now", time.Now().UTC().Format(time.RFC3339))
	}
	return nil
}

// adjust moves the clock, and has the kernel write it to the hardware from now
// on (every 11 minutes).
func adjust(by time.Duration) error {
	if by.Abs() >= stepFrom {
		if err := setClock(time.Now().Add(by)); err != nil {
			return err
		}
	} else if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: by.Microseconds()}); err != nil {
		return fmt.Errorf("slew the clock: %w", err)
	}
	const good = 100_000 // µs: better than the 16 s beyond which the kernel believes in nothing
	if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR, Maxerror: good, Esterror: good}); err != nil {
		return fmt.Errorf("tell the kernel that the clock is right: %w", err)
	}
	return nil
}

// note remembers what time it is.
func (c *clock) note() error {
	now := time.Now()
	if err := os.Chtimes(c.file, now, now); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(c.file, nil, 0o600)
}
