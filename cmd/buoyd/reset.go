package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/cni"
	"github.com/buoy-edge/buoy/node"
)

// reset removes everything that an instance ever made on this machine:
// containers, images, volumes, network, cgroups, directories. It tells stdout
// what it has found.
func reset(ctx context.Context, cfg config, log *slog.Logger, stdout io.Writer) (err error) {
	if !cfg.yes {
		return fmt.Errorf("reset removes all containers, images and volumes below %s; say --yes if you mean it", cfg.data)
	}
	if os.Geteuid() != 0 {
		return errs.E(errs.Invalid, "reset needs root")
	}
	there, absent, err := present(cfg.data, cfg.run)
	if err != nil {
		return err
	}
	unlock, err := lock(cfg) // which makes both
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := clear(ctx, cfg, log); err != nil {
		return err
	}
	if err := removeData(cfg.data); err != nil {
		return err
	}
	fmt.Fprintln(stdout, outcome(there, absent, cfg.instance()))
	return nil
}

// halt ends all containers as they want to be ended and removes all that was
// made for them but what is in the data directory: what a machine that goes
// down needs, or one that buoy is removed from. The next buoyd starts them
// again, as after a boot. When ctx ends it waits for none of them any more.
func halt(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	if os.Geteuid() != 0 {
		return errs.E(errs.Invalid, "halt needs root")
	}
	if _, err := os.Stat(cfg.run); errors.Is(err, os.ErrNotExist) {
		return nil // nothing has run since the machine booted
	}
	unlock, err := lock(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	rt, err := runtime(cfg, log)
	if err != nil {
		return err
	}
	if err := node.EndAll(ctx, cfg.run, rt); err != nil && ctx.Err() == nil {
		log.Warn("containers are killed without their grace", "error", err)
	}
	return clear(context.WithoutCancel(ctx), cfg, log)
}

// clear removes what an instance has on the machine, the run directory last:
// while anything is left, what is known of it must stay.
func clear(ctx context.Context, cfg config, log *slog.Logger) error {
	rt, err := runtime(cfg, log)
	if err != nil {
		return err
	}
	if err := clearFlists(ctx, cfg, rt, log); err != nil {
		return err
	}
	if err := rt.Clear(ctx); err != nil {
		return err
	}
	if err := detachCNI(ctx, networks(cfg)); err != nil {
		return err
	}
	n, err := netcfg.New(netcfg.Config{Instance: cfg.instance(), Bridge: cfg.bridge, Prefix: cfg.prefix, StateDir: cfg.run, Log: log})
	if err != nil {
		return err
	}
	if err := errors.Join(n.Reset(ctx), n.Close()); err != nil {
		return err
	}
	return os.RemoveAll(cfg.run)
}

// clearFlists comes before the containers end: what waits for an flist cannot be
// killed.
func clearFlists(ctx context.Context, cfg config, rt *container.Runtime, log *slog.Logger) error {
	f, err := flists(cfg, rt, log)
	if err != nil {
		return err
	}
	if err := rt.Start(ctx); err != nil {
		return err
	}
	return f.Clear(ctx)
}

// detachCNI detaches all that containers had on CNI networks.
func detachCNI(ctx context.Context, c *cni.CNI) error {
	have, err := c.Attachments()
	for _, a := range have {
		a.Netns = "" // it has ended
		err = errors.Join(err, c.Del(ctx, a))
	}
	return err
}

// present says which directories are there and which are not.
func present(dirs ...string) (there, absent []string, err error) {
	for _, dir := range dirs {
		_, err := os.Stat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
			absent = append(absent, dir)
		case err != nil:
			return nil, nil, fmt.Errorf("reset: %w", err)
		default:
			there = append(there, dir)
		}
	}
	return there, absent, nil
}

// outcome is what a reset has done, in a sentence.
func outcome(there, absent []string, instance string) string {
	rest := fmt.Sprintf("cgroups, links and rules of instance %s are gone, if there were any", instance)
	switch {
	case len(there) == 0:
		return fmt.Sprintf("reset: there is no %s; %s", strings.Join(absent, " and no "), rest)
	case len(absent) > 0:
		return fmt.Sprintf("reset: removed %s, there was no %s; %s", strings.Join(there, " and "), strings.Join(absent, " and no "), rest)
	}
	return fmt.Sprintf("reset: removed %s; %s", strings.Join(there, " and "), rest)
}

// removeData removes what we keep in the data directory, and that if nothing
// else is in it: were it somebody's home by mistake, the home would stay.
func removeData(dir string) error {
	var all error
	for _, name := range []string{
		"boot", "cni", "containers", "upgrade", "events", "filesystems", "flist", "images", "volumes", "node.db", "node.db-journal", "node.db-shm", "node.db-wal",
		"audit", "pki", "tokens.json", "agent.json", "agent-ended", "join-token", "secrets", keyFile, "controller.db", "controller.db-journal", "controller.db-shm", "controller.db-wal",
	} {
		all = errors.Join(all, os.RemoveAll(filepath.Join(dir, name)), atomicfile.RemoveParts(filepath.Join(dir, name)))
	}
	if all != nil {
		return all
	}
	err := os.Remove(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTEMPTY):
		return errs.E(errs.Conflict, "%s holds files that are not buoy's and stays; all of buoy's in it is gone", dir)
	}
	return err
}
