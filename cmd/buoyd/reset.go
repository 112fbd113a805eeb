package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

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
	defer func() { err = errors.Join(err, unlock(), os.RemoveAll(cfg.run), os.RemoveAll(cfg.data)) }()
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
	return errors.Join(n.Reset(ctx), n.Close())
}
