package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/sysmount"
)

const (
	lookAgain  = 200 * time.Millisecond
	calm       = 2 * time.Second // without a new device: all that are there have been found
	mostCalm   = 30 * time.Second
	remindEach = 30 * time.Second
)

// findHome mounts what lasts: the disk that is for it, or memory. It waits for a
// disk as long as it was told to, but not for one that is broken: a machine that
// can be reached is better than one that waits for somebody to come.
func findHome(ctx context.Context, want Data, quiet func(time.Duration) bool, log *slog.Logger) (Damage, error) {
	if mounted(State) { // by a buoyd before this one
		return Damage{}, nil
	}
	began := time.Now()
	var said error
	var next time.Time
	for {
		mended, err := tryDisk(ctx, want, log)
		if err == nil || ctx.Err() != nil {
			return Damage{true, mended}, err
		}
		if broken, ok := errors.AsType[brokenDisk](err); ok {
			log.ErrorContext(ctx, "the disk for state is broken, and state is kept in memory: nothing is there of what ran; take it out to save what is on it, or write zeros over it to use it again", "error", err)
			return Damage{false, broken.Error()}, mountMemory()
		}
		waited := time.Since(began)
		if want.Kind != DataDisk && (want.Kind == DataMemory || errors.Is(err, errs.Conflict) || waited > mostCalm || waited > calm && quiet(calm)) {
			return Damage{}, useMemory(ctx, want, err, log)
		}
		if changed := said == nil || said.Error() != err.Error(); waited > calm && (changed || time.Now().After(next)) {
			log.WarnContext(ctx, "no disk for state yet; containers do not start before it is there", "waited", waited.Round(time.Second), "error", err)
			said, next = err, time.Now().Add(remindEach)
		}
		select {
		case <-ctx.Done():
			return Damage{}, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// tryDisk mounts the disk for state if it is there, or may be made.
func tryDisk(ctx context.Context, want Data, log *slog.Logger) (mended string, err error) {
	if want.Kind == DataMemory {
		return "", errs.E(errs.NotFound, "buoy.data=memory")
	}
	v, err := findState(blockDevices())
	if errors.Is(err, errs.NotFound) && want.Create != "" {
		if err := createState(ctx, want.Create); err != nil {
			return "", err
		}
		log.InfoContext(ctx, "a file system for state was made", "disk", want.Create, "label", Label)
		v, err = readVolume(want.Create)
	}
	if err != nil {
		return "", err
	}
	if mended, err = mountState(ctx, v, log); err != nil {
		return "", err
	}
	if mended != "" {
		log.WarnContext(ctx, "the disk for state was damaged", "what", mended)
	}
	log.InfoContext(ctx, "state is kept on a disk", "disk", v.device, "label", Label)
	return mended, nil
}

func mountMemory() error { return sysmount.Mount("tmpfs", State, "tmpfs", 0, "mode=0755") }

// useMemory is for machines without a disk.
func useMemory(ctx context.Context, want Data, why error, log *slog.Logger) error {
	if err := mountMemory(); err != nil {
		return err
	}
	var room unix.Statfs_t
	if err := unix.Statfs(State, &room); err != nil {
		return fmt.Errorf("look at %s: %w", State, err)
	}
	size := int64(room.Blocks) * room.Bsize >> 20
	if want.Kind == DataMemory {
		log.InfoContext(ctx, "state is kept in memory, as buoy.data has it: it ends with the machine", "mib", size)
		return nil
	}
	log.WarnContext(ctx, "state is kept in memory: containers, images and volumes end with the machine; label a disk for it, or have one made by buoy.data=create:/dev/…", "mib", size, "why", why)
	return nil
}
