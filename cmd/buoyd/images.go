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
	"github.com/buoy-edge/buoy/internal/size"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/lazy"
)

// imageConfig is what the command line says about images.
type imageConfig struct {
	authFile  string
	plainHTTP list
	mirrors   map[string][]string
	hub       string
	gc        thresholds
	reserve   size.Flag
	policy    string
}

// defaultReserve is room for node.db, logs and a person who tidies up.
const defaultReserve = 256 << 20

func (c *imageConfig) register(f *flag.FlagSet) {
	c.mirrors, c.hub, c.gc, c.reserve = map[string][]string{}, images.DefaultHub, thresholds{85, 80}, defaultReserve
	f.StringVar(&c.authFile, "auth-file", "", "registry credentials, a docker config.json (default: the usual places)")
	f.Var(&c.plainHTTP, "plain-http", "registry `host` to talk to without TLS; may be repeated (loopback always is)")
	f.Func("mirror", "`REGISTRY=HOST` to pull from first; may be repeated", func(s string) error {
		registry, host, ok := strings.Cut(s, "=")
		if !ok || registry == "" || host == "" {
			return errors.New("it is not REGISTRY=HOST")
		}
		c.mirrors[registry] = append(c.mirrors[registry], host)
		return nil
	})
	f.Func("hub", "`URL` that hub:USER/NAME.flist is fetched below (default: "+images.DefaultHub+")", func(s string) error {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return errors.New("it is not a URL like " + images.DefaultHub)
		}
		c.hub = s
		return nil
	})
	f.Var(&c.gc, "image-gc", "`HIGH:LOW` percent of the disk in use: unused images are removed above and down to it; off: never")
	f.Func("reserve", "`size` of the disk that images leave free (default: 256MiB)", func(s string) error { return c.reserve.Set(s) })
	f.StringVar(&c.policy, "image-policy", "", "`file` that says which images may run, and whose signature they need (default: all may)")
}

// thresholds are percentages, or zero.
type thresholds struct{ high, low int }

func (t *thresholds) String() string {
	if t.high == 0 {
		return "off"
	}
	return fmt.Sprintf("%d:%d", t.high, t.low)
}

// Set implements flag.Value.
func (t *thresholds) Set(s string) error {
	if s == "off" {
		*t = thresholds{}
		return nil
	}
	high, low, _ := strings.Cut(s, ":")
	h, err1 := strconv.Atoi(high)
	l, err2 := strconv.Atoi(low)
	if errors.Join(err1, err2) != nil || l < 1 || l > h || h > 100 {
		return errors.New("it is not two percentages like 85:80, the greater first, or off")
	}
	*t = thresholds{h, l}
	return nil
}

// imageStore is the part that keeps images.
func imageStore(cfg config, f *lazy.Flists, log *slog.Logger) (*images.Store, error) {
	c := cfg.images
	return images.Open(images.Config{
		Dir: filepath.Join(cfg.data, "images"), AuthFile: c.authFile, Mirrors: c.mirrors, PlainHTTP: c.plainHTTP,
		Hub: c.hub, GCHigh: c.gc.high, GCLow: c.gc.low, Reserve: int64(c.reserve), Policy: c.policy,
		Inspect: node.Inspector(f), Spare: f.Trim, Log: log,
	})
}
