package main

import (
	"errors"
	"flag"
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

// flistConfig is what the configuration says about flists.
type flistConfig struct {
	lazy            node.Lazy
	stores, mirrors []string
	suid            string
	budget          size.Bytes
	timeout         time.Duration
}

// defaultBudget holds what some images of a gigabyte are started with, and is
// less than the reserve leaves on most disks.
const defaultBudget = 10 << 30

func (c *flistConfig) register(f *flag.FlagSet) {
	c.lazy, c.suid, c.budget, c.timeout = node.LazyAuto, "keep", defaultBudget, 30*time.Second
	f.Var(one(&c.lazy, choice(node.LazyAuto, node.LazyAlways, node.LazyNever)), "lazy", "`when` the content of flists comes if the container does not say: auto, always or never")
	f.Var(several(&c.stores, readStore), "flist-store", "`URL` of a chunk store to ask before those that flists name; may be repeated")
	f.Var(several(&c.mirrors, readMirror), "flist-mirror", "`URL` of another node, buoy+http://HOST:PORT/nodes/ID, to ask before all stores; may be repeated")
	f.Var(one(&c.suid, choice("keep", "drop")), "flist-suid", "`what` happens to set-id bits of flists: keep or drop")
	f.Var(one(&c.budget, readBudget), "flist-cache", "`size` of the chunk cache, like 2GiB")
	f.Var(one(&c.timeout, atLeast(time.Millisecond)), "flist-timeout", "how `long` a read waits for chunk stores before it fails")
}

func readBudget(s string) (size.Bytes, error) {
	n, err := size.Parse(s)
	if err == nil && n == 0 {
		err = errors.New("chunks that are read must be kept somewhere; say a size like 2GiB")
	}
	return size.Bytes(n), err
}

var mirrorPath = regexp.MustCompile(`^/nodes/[^/]+/?$`)

func readMirror(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || !strings.HasPrefix(u.Scheme, "buoy+http") || u.Host == "" || !mirrorPath.MatchString(u.Path) {
		return "", errors.New("it is not a node like buoy+http://HOST:PORT/nodes/ID")
	}
	return readStore(s)
}

func readStore(s string) (string, error) {
	st, err := store.Open(s, store.Options{})
	if err != nil {
		return "", err
	}
	return s, st.Close()
}

// flists is the part that mounts them.
func flists(cfg config, rt *container.Runtime, log *slog.Logger) (*lazy.Flists, error) {
	program, err := programs.Find("buoy-flist")
	if err != nil {
		return nil, err
	}
	return lazy.New(lazy.Config{
		Run: cfg.run, Data: filepath.Join(cfg.data, "flist"), Program: program, Shim: rt.Shim(), Beside: rt.Beside,
		Stores: cfg.flist.stores, Mirrors: cfg.flist.mirrors, DropSuid: cfg.flist.suid == "drop",
		Budget: int64(cfg.flist.budget), Reserve: int64(cfg.images.reserve), Timeout: cfg.flist.timeout, Log: log,
	})
}
