package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/buoy-edge/buoy/internal/version"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/state"
	"github.com/buoy-edge/buoy/node/upgrade"
)

// upgradeConfig is what the configuration says of upgrades over the air.
type upgradeConfig struct {
	keys        string
	noDowngrade bool
}

func (c *upgradeConfig) register(f *flag.FlagSet) {
	f.StringVar(&c.keys, "upgrade-keys", "/etc/buoy/upgrade-keys", "`directory` of the public keys, NAME.pem, whose bundles this node takes")
	f.BoolVar(&c.noDowngrade, "no-downgrade", false, "refuse bundles of a version older than the one that runs")
}

// errUpgrade ends a daemon whose programs others take the place of.
var errUpgrade = errors.New("another version of buoyd is to serve")

// starter is how this program was started, for the next one in its place.
type starter struct {
	args, env []string
	launched  upgrade.Launched
}

// newStarter takes out of the environment what those that we start must not inherit.
func newStarter(args []string) (s starter, err error) {
	s.args = args
	s.launched, err = upgrade.TakeLaunched()
	s.env = os.Environ()
	return s, err
}

func upgrades(data string) string { return filepath.Join(data, "upgrade") }

// hand has the programs of a bundle do what was asked for, if they are the ones
// to do it. done: they have, on trial.
func (s starter) hand(ctx context.Context, verb string, args []string, stderr io.Writer) (code int, done bool) {
	if s.launched.Program != "" || os.Geteuid() != 0 {
		return 0, false // we are those programs, or nobody's
	}
	data, run := places(args)
	m := readManager()
	l := upgrade.Launcher{
		Dir: upgrades(data), Run: run, Version: version.Version, Args: s.args, Env: s.env,
		Tell: m.tell, Alive: m.watchdog, Schema: state.Schema, Fail: failpoint(), Log: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	if verb == "" || verb == "machine" {
		return l.Serve(ctx)
	}
	l.Become()
	return 0, false
}

// relaunch is where a daemon ends that others take the place of.
func (s starter) relaunch() error {
	program := s.launched.Program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	return upgrade.Relaunch(program, s.args, s.env)
}

// key is a line of a configuration file that says where the node keeps things.
var key = regexp.MustCompile(`(?m)^(data|run):[ \t]*["']?([^"'\s#]+)`)

// places are the directories of the node, also if a configuration says more
// than this version knows: it may be meant for that of a bundle.
func places(args []string) (data, run string) {
	if cfg, err := parse(args, io.Discard); err == nil {
		return cfg.data, cfg.run
	}
	found := map[string]string{"data": defaultData, "run": defaultRun, "config": ""}
	given := false
	for i, arg := range args {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if _, known := found[name]; !known || !strings.HasPrefix(arg, "-") {
			continue
		}
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		found[name], given = value, given || name != "config"
	}
	files := []string{found["config"]}
	if found["config"] == "" || found["config"] == defaultFile {
		files, _ = withDropins(defaultFile) // what cannot be read says nothing
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if given || err != nil {
			continue
		}
		for _, m := range key.FindAllSubmatch(raw, -1) {
			found[string(m[1])] = string(m[2])
		}
	}
	return absolute(found["data"]), absolute(found["run"])
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// newUpgrades makes what takes bundles. restart ends the daemon.
func (p *parts) newUpgrades(cfg config, launched upgrade.Launched, restart func(), log *slog.Logger) (*upgrade.Manager, error) {
	return upgrade.New(upgrade.Config{
		Dir: upgrades(cfg.data), Run: cfg.run, Keys: cfg.upgrade.keys, Version: version.Version, NoDowngrade: cfg.upgrade.noDowngrade,
		Launched: launched, Before: p.running, Restart: restart, Events: p.told.log, Fail: failpoint(), Log: log,
		Reached: func() (reached, wanted bool) { return p.told.reached.Load(), cfg.fleet.controller != "" },
	})
}

// running are the containers that run.
func (p *parts) running() []upgrade.Process {
	var all []upgrade.Process
	for _, c := range p.node.Containers() {
		if c.Status == node.Running {
			all = append(all, upgrade.Process{Name: c.Spec.Name, PID: c.PID, Started: c.Started})
		}
	}
	return all
}
