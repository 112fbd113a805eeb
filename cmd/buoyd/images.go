package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/size"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/lazy"
)

// imageConfig is what the configuration says about images.
type imageConfig struct {
	authFile  string
	plainHTTP []string
	mirrors   []mirror
	hub       string
	gc        thresholds
	reserve   size.Bytes
	policy    string
}

// defaultReserve is room for node.db, logs and a person who tidies up.
const defaultReserve = 256 << 20

func (c *imageConfig) register(f *flag.FlagSet) {
	c.hub, c.gc, c.reserve = images.DefaultHub, thresholds{85, 80}, defaultReserve
	f.StringVar(&c.authFile, "auth-file", "", "`file` of registry credentials, a docker config.json (default: the usual places)")
	f.Var(several(&c.plainHTTP, text), "plain-http", "registry `host` to talk to without TLS; may be repeated (loopback always is)")
	f.Var(several(&c.mirrors, readMirrorOf), "mirror", "`REGISTRY=HOST` to pull from first; may be repeated")
	f.Var(one(&c.hub, readHub), "hub", "`URL` that hub:USER/NAME.flist is fetched below")
	f.Var(one(&c.gc, readThresholds), "image-gc", "`HIGH:LOW` percent of the disk in use: unused images are removed above and down to it; off: never")
	f.Var(one(&c.reserve, readSize), "reserve", "`size` of the disk that images leave free")
	f.StringVar(&c.policy, "image-policy", "", "`file` that says which images may run, and whose signature they need (default: all may)")
}

// mirror is a host that is asked before a registry.
type mirror struct{ registry, host string }

func readMirrorOf(s string) (m mirror, err error) {
	registry, host, ok := strings.Cut(s, "=")
	if !ok || registry == "" || host == "" {
		return m, errors.New("it is not REGISTRY=HOST")
	}
	return mirror{registry, host}, nil
}

func readHub(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return "", errors.New("it is not a URL like " + images.DefaultHub)
	}
	return s, nil
}

func readSize(s string) (size.Bytes, error) {
	n, err := size.Parse(s)
	return size.Bytes(n), err
}

// thresholds are percentages, or zero.
type thresholds struct{ high, low int }

func (t thresholds) String() string {
	if t.high == 0 {
		return "off"
	}
	return fmt.Sprintf("%d:%d", t.high, t.low)
}

func readThresholds(s string) (t thresholds, err error) {
	if s == "off" {
		return t, nil
	}
	high, low, _ := strings.Cut(s, ":")
	h, err1 := strconv.Atoi(high)
	l, err2 := strconv.Atoi(low)
	if errors.Join(err1, err2) != nil || l < 1 || l > h || h > 100 {
		return t, errors.New("it is not two percentages like 85:80, the greater first, or off")
	}
	return thresholds{h, l}, nil
}

// imageStore is the part that keeps images.
func imageStore(cfg config, f *lazy.Flists, keys *seal.Keys, log *slog.Logger) (*images.Store, error) {
	c := cfg.images
	mirrors := map[string][]string{}
	for _, m := range c.mirrors {
		mirrors[m.registry] = append(mirrors[m.registry], m.host)
	}
	return images.Open(images.Config{
		Dir: filepath.Join(cfg.data, "images"), AuthFile: c.authFile, Mirrors: mirrors, PlainHTTP: c.plainHTTP,
		Hub: c.hub, GCHigh: c.gc.high, GCLow: c.gc.low, Reserve: int64(c.reserve), Policy: c.policy, Keys: keys,
		Inspect: node.Inspector(f), Spare: f.Trim, Log: log,
	})
}
