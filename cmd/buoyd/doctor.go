package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"

	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/node/doctor"
)

// diagnose looks at the machine on which no buoyd need run, and tells stdout in
// JSON what it has found.
func diagnose(ctx context.Context, cfg config, _ *slog.Logger, stdout io.Writer) error {
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(look(ctx, cfg, nil, slog.New(slog.DiscardHandler)))
}

// look examines the machine, and whether registries that images came from, if
// there are any, and the controller can be reached.
func look(ctx context.Context, cfg config, store *images.Store, log *slog.Logger) []doctor.Finding {
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
	return doctor.Check(ctx, c)
}
