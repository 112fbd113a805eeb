package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/programs"
	"github.com/buoy-edge/buoy/internal/size"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/lazy"
)

// flistConfig is what the command line says about flists.
type flistConfig struct {
	lazy            node.Lazy
	stores, mirrors list
	dropSuid        bool
	budget          size.Flag
	timeout         time.Duration
}

// defaultBudget holds what some images of a gigabyte are started with, and is
// less than the reserve leaves on most disks.
const defaultBudget = 10 << 30

func (c *flistConfig) register(f *flag.FlagSet) {
	f.Func("lazy", "`when` the content of flists comes if the container does not say: auto, always or never (default: auto)", func(s string) error {
		switch c.lazy = node.Lazy(s); c.lazy {
		case node.LazyAuto, node.LazyAlways, node.LazyNever:
			return nil
		}
		return errors.New("it is not auto, always or never")
	})
	f.Var(&c.stores, "flist-store", "`URL` of a chunk store to ask before those that flists name; may be repeated")
	f.Var(&c.mirrors, "flist-mirror", "`URL` of another node, buoy+http://HOST:PORT/nodes/ID, to ask before all stores; may be repeated")
	f.Func("flist-suid", "`what` happens to set-id bits of flists: keep or drop (default: keep)", func(s string) error {
		if s != "keep" && s != "drop" {
			return errors.New("it is not keep or drop")
		}
		c.dropSuid = s == "drop"
		return nil
	})
	c.budget = defaultBudget
	f.Var(&c.budget, "flist-cache", "`size` of the chunk cache, like 2GiB")
	f.DurationVar(&c.timeout, "flist-timeout", 30*time.Second, "how `long` a read waits for chunk stores before it fails")
}

func (c *flistConfig) check() error {
	if c.budget <= 0 {
		return errors.New("--flist-cache 0: chunks that are read must be kept somewhere; say a size like 2GiB")
	}
	for _, u := range c.stores {
		if err := checkStore("--flist-store", u, false); err != nil {
			return err
		}
	}
	for _, u := range c.mirrors {
		if err := checkStore("--flist-mirror", u, true); err != nil {
			return err
		}
	}
	if c.timeout <= 0 {
		return fmt.Errorf("--flist-timeout %s is not a time like 30s", c.timeout)
	}
	return nil
}

var mirrorPath = regexp.MustCompile(`^/nodes/[^/]+/?$`)

// checkStore judges the URL of a chunk store, or of a mirror.
func checkStore(flag, text string, mirror bool) error {
	u, err := url.Parse(text)
	isMirror := err == nil && strings.HasPrefix(u.Scheme, "buoy+http")
	if mirror && (!isMirror || u.Host == "" || !mirrorPath.MatchString(u.Path)) {
		return fmt.Errorf("%s %q is not a node like buoy+http://HOST:PORT/nodes/ID", flag, text)
	}
	s, err := store.Open(text, store.Options{})
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return s.Close()
}

// flists is the part that mounts them.
func flists(cfg config, rt *container.Runtime, log *slog.Logger) (*lazy.Flists, error) {
	program, err := programs.Find("buoy-flist")
	if err != nil {
		return nil, err
	}
	return lazy.New(lazy.Config{
		Run: cfg.run, Data: filepath.Join(cfg.data, "flist"), Program: program, Shim: rt.Shim(), Beside: rt.Beside,
		Stores: cfg.flist.stores, Mirrors: cfg.flist.mirrors, DropSuid: cfg.flist.dropSuid,
		Budget: int64(cfg.flist.budget), Reserve: int64(cfg.images.reserve), Timeout: cfg.flist.timeout, Log: log,
	})
}
