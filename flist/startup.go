package flist

import (
	"context"

	"github.com/BurntSushi/toml"

	"github.com/buoy-edge/buoy/internal/errs"
)

// maxStartup bounds how deep a .startup.toml can be: its parser calls itself for each array within an array.
const maxStartup = 64 << 10

// LoadConfig reads what to run from the image's /.startup.toml, which images converted from Docker have, unless the flist
// itself says so. It changes Meta: call it before l is shared.
func (l *List) LoadConfig(ctx context.Context, fetch Fetch) error {
	if l.Meta.Config != nil {
		return nil
	}
	b, err := l.readFile(ctx, ".startup.toml", maxStartup, fetch)
	if err != nil {
		return err
	}
	l.Meta.Config, err = parseStartup(b)
	return err
}

// parseStartup reads a .startup.toml; nil if it does not say how to start a program. The program and its arguments are a
// Cmd: Zero-OS replaces all of them by the command that a user gives.
func parseStartup(b []byte) (*Config, error) {
	var f struct {
		Startup map[string]struct {
			Name string
			Args struct {
				Name string
				Dir  string
				Args []string
				Env  map[string]string
			}
		}
	}
	if err := toml.Unmarshal(b, &f); err != nil {
		return nil, errs.E(errs.Invalid, "the flist's .startup.toml: %s", brief(err))
	}
	entry, ok := f.Startup["entry"]
	if !ok || entry.Args.Name == "" || (entry.Name != "core.system" && entry.Name != "core.base") {
		return nil, nil
	}
	c := &Config{
		Cmd:        append([]string{entry.Args.Name}, entry.Args.Args...),
		WorkingDir: entry.Args.Dir,
		Env:        environment(entry.Args.Env),
	}
	return c, c.check()
}
