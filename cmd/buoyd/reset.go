package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
)

// reset removes everything that an instance ever made on this machine:
// containers, images, volumes, network, cgroups, directories.
func reset(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	if !cfg.yes {
		return fmt.Errorf("reset removes all containers, images and volumes below %s; say --yes if you mean it", cfg.data)
	}
	if os.Geteuid() != 0 {
		return errs.E(errs.Invalid, "reset needs root")
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
	if err := rt.Clear(ctx); err != nil {
		return err
	}
	n, err := netcfg.New(netcfg.Config{Instance: cfg.instance(), Bridge: cfg.bridge, Prefix: cfg.prefix, StateDir: cfg.run, Log: log})
	if err != nil {
		return err
	}
	if err := errors.Join(n.Reset(ctx), n.Close()); err != nil {
		return err
	}
	// Last: while anything is left, what is known of it must stay.
	return errors.Join(os.RemoveAll(cfg.run), removeData(cfg.data))
}

// removeData removes what we keep in the data directory, and that if nothing
// else is in it: were it somebody's home by mistake, the home would stay.
func removeData(dir string) error {
	var all error
	for _, name := range []string{"containers", "filesystems", "images", "volumes", "node.db", "node.db-journal", "node.db-shm", "node.db-wal"} {
		all = errors.Join(all, os.RemoveAll(filepath.Join(dir, name)))
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
