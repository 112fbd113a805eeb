package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"slices"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/node/doctor"
)

// diagnose looks at the machine on which no buoyd need run, and tells stdout in
// JSON what it has found.
func diagnose(ctx context.Context, cfg config, _ *slog.Logger, stdout io.Writer) error {
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	gpus := gpu.Look(ctx, gpuConfig(cfg, nil))
	return enc.Encode(look(ctx, cfg, nil, gpus, slog.New(slog.DiscardHandler)))
}

// look examines the machine, and whether registries that images came from, if
// there are any, and the controller can be reached.
func look(ctx context.Context, cfg config, store *images.Store, gpus gpu.Machine, log *slog.Logger) []doctor.Finding {
	c := doctor.Config{Data: cfg.data, Run: cfg.run}
	if store != nil {
		var err error
		if c.Reach, err = store.Registries(ctx); err != nil {
			log.WarnContext(ctx, "where images came from is not known", "error", err)
		}
	}
	if cfg.fleet.controller != "" && cfg.fleet.controller != self {
		c.Reach = append(c.Reach, cfg.fleet.controller)
	}
	return slices.Concat(doctor.Check(ctx, c), gpuFindings(gpus), cdiFindings(cfg.cdiDirs))
}
