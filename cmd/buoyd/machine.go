package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/node/boot"
	"github.com/buoy-edge/buoy/node/events"
)

// kernelFile is the part of the configuration that comes from the kernel's
// command line. It comes after what the initramfs has.
var kernelFile = filepath.Join(filepath.Dir(defaultFile), "conf.d", "kernel.yaml")

// initProcess is process 1 of a machine that has booted from our initramfs, where
// /init is this program. It returns only if it cannot go on.
func initProcess() error {
	return boot.Init(boot.InitConfig{
		Daemon: []string{"/usr/bin/buoyd", "machine"}, Halt: []string{"/usr/bin/buoyd", "halt"},
		ConfigFile: kernelFile, Configure: fromKernel,
	})
}

// fixed are flags that such a machine has one answer to.
var fixed = []string{"data", "run", "config", "yes", "dev", "allow-reboot"}

// fromKernel writes parameters of the kernel as a file of the configuration.
func fromKernel(settings []boot.Setting) (file []byte, complaints []string) {
	texts := map[string][]string{}
	var keys []string
	for _, s := range settings {
		c := newConfig()
		f := c.flags.Lookup(s.Key)
		if f == nil || slices.Contains(fixed, s.Key) {
			complaints = append(complaints, fmt.Sprintf("%s: there is no such parameter", s.Key))
			continue
		}
		if err := f.Value.Set(s.Value); err != nil {
			shown := s.Value
			if isSecret(f.Value) {
				shown = redacted
			}
			complaints = append(complaints, fmt.Sprintf("%s=%s: %v", s.Key, shown, err))
			continue
		}
		text := strconv.Quote(s.Value)
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			text = f.Value.String()
		}
		if _, ok := f.Value.(repeated); ok {
			texts[s.Key] = append(texts[s.Key], text)
		} else {
			texts[s.Key] = []string{text} // the last counts, as the kernel has it
		}
		if !slices.Contains(keys, s.Key) {
			keys = append(keys, s.Key)
		}
	}
	var b strings.Builder
	b.WriteString("# from the kernel's command line\n")
	for _, key := range keys {
		if _, list := newConfig().flags.Lookup(key).Value.(repeated); list {
			fmt.Fprintf(&b, "%s: [%s]\n", key, strings.Join(texts[key], ", "))
		} else {
			fmt.Fprintf(&b, "%s: %s\n", key, texts[key][0])
		}
	}
	return []byte(b.String()), complaints
}

// secretFiles are those of /proc in which everybody could read a secret.
func secretFiles() []string {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	p, _ := boot.ReadParams(string(cmdline))
	for _, s := range p.Settings {
		if f := newConfig().flags.Lookup(s.Key); f != nil && isSecret(f.Value) {
			return []string{"/proc/cmdline"}
		}
	}
	return nil
}

func isSecret(v flag.Value) bool {
	_, yes := v.(*value[secret])
	return yes
}

// serveMachine serves on such a machine, and does for it what elsewhere the
// system does.
func serveMachine(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	blind := !boot.HasState()
	m, ctx, err := boot.Start(ctx, boot.MachineConfig{Dir: filepath.Join(cfg.data, "boot"), Uplink: cfg.uplink, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	if _, err := os.Stat(upgrades(cfg.data)); blind && err == nil {
		return errUpgrade // who serves was decided before the disk was there
	}
	cfg.uplink, cfg.reboot, cfg.damage = m.Uplink(), boot.Reboot, m.TellDamage
	if cfg.nodeID == "" {
		cfg.nodeID = m.NodeID()
	}
	return serve(ctx, cfg, log)
}

// tellDamage makes events of what was found on the disk for state.
func (t *told) tellDamage(ctx context.Context, cfg config, log *slog.Logger) {
	if cfg.damage == nil {
		return
	}
	err := cfg.damage(func(d boot.Damage) {
		e := events.Event{Type: events.DiskBroken, Data: events.Data{Message: d.Text}}
		if d.Mended {
			e.Type = events.DiskMended
		}
		t.log.Emit(ctx, e)
		t.log.Flush()
	})
	if err != nil {
		log.ErrorContext(ctx, "no event tells of the damaged disk", "error", err)
	}
}
