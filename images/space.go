package images

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// disk is how full the file system of the store is.
type disk struct {
	size  int64 // of the file system
	total int64 // of size, what may be used: without root's share, and what else df leaves out
	free  int64
}

func (s *Store) statfs() (disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
		return disk{}, fmt.Errorf("free space of %s: %w", s.cfg.Dir, err)
	}
	block := int64(st.Bsize) //nolint:unconvert // 32 bits on some machines
	free := int64(st.Bavail) * block
	return disk{size: int64(st.Blocks) * block, total: int64(st.Blocks-st.Bfree)*block + free, free: free}, nil
}

func (s *Store) free() (int64, error) {
	d, err := s.statfs()
	return d.free, err
}

// room is what a pull may fill.
func (s *Store) room() (int64, error) {
	free, err := s.free()
	return max(free-s.cfg.Reserve, 0), err
}

// fits refuses what needs more bytes than there may be, after removing what nothing needs.
func (s *Store) fits(ctx context.Context, need int64) error {
	room, err := s.room()
	if err != nil || need <= room {
		return err
	}
	if _, err := s.makeRoom(ctx, time.Now(), need-room, true); err != nil {
		return err
	}
	if room, err = s.room(); err != nil || need <= room {
		return err
	}
	reserve := ""
	if s.cfg.Reserve > 0 {
		reserve = fmt.Sprintf(", besides the %s in reserve", size(s.cfg.Reserve))
	}
	return errs.E(errs.Unavailable, "it needs at least %s below %s and %s are free%s; remove images or containers first", size(need), s.cfg.Dir, size(room), reserve)
}

// errReserve ends what would fill the reserve.
var errReserve = errors.New("the reserve would be used up")

// guardPace: what is written within it, 60 MB on a fast disk, comes out of the reserve.
const guardPace = 20 * time.Millisecond

// guard ends ctx when the reserve is touched: how large a layer is unpacked, nobody says before.
func (s *Store) guard(ctx context.Context) (_ context.Context, done func()) {
	if s.cfg.Reserve == 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() { // its end is waited for in done
		defer close(ended)
		tick := time.NewTicker(guardPace)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if free, err := s.free(); err == nil && free < s.cfg.Reserve {
				cancel(errReserve)
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

func (s *Store) explainSpace(err error) error {
	if !isFull(err) {
		return err
	}
	if errors.Is(err, errReserve) {
		return errs.E(errs.Unavailable, "the disk below %s has no more room than the %s in reserve; what this pull had fetched was removed; remove images or containers first", s.cfg.Dir, size(s.cfg.Reserve))
	}
	return errs.E(errs.Unavailable, "the disk below %s is full; what this pull had fetched was removed; remove images or containers first: %w", s.cfg.Dir, err)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, errReserve)
}
