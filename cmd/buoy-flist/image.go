package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/thread"
)

// imageFlags say how an image is fetched.
type imageFlags struct {
	cache, auth, platform string
	plainHTTP             []string
}

func (f *imageFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.cache, "cache", "", "`directory` that keeps unpacked layers for next time (default: none is kept)")
	flags.StringVar(&f.platform, "platform", "", "which one of an image for several: `linux/arm64` (default: this machine's)")
	flags.StringVar(&f.auth, "auth-file", "", "logins of registries, as docker keeps them in config.json")
	flags.StringArrayVar(&f.plainHTTP, "plain-http", nil, "registry `host` that has no TLS; may be repeated")
}

// unpacked calls f with a directory that shows the files of an image, all layers together, and its configuration.
func (f *imageFlags) unpacked(ctx context.Context, ref string, do func(dir string, config *flist.Config) error) (err error) {
	if os.Geteuid() != 0 {
		return errs.E(errs.Invalid, "an image is unpacked with its owners and mounted, which takes root; use sudo, or pack a directory")
	}
	if strings.HasSuffix(ref, ".flist") || strings.HasSuffix(ref, ".fl") {
		return errs.E(errs.Invalid, "%s is an flist already; to bring its chunks to another store, unpack it and pack the directory", ref)
	}
	work, err := os.MkdirTemp("", "buoy-flist-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	cfg := images.Config{Dir: work + "/images", Platform: f.platform, AuthFile: f.auth, PlainHTTP: f.plainHTTP}
	if f.cache != "" {
		cfg.Dir = f.cache
	}
	s, err := images.Open(cfg)
	if err != nil {
		return err
	}
	img, err := s.Pull(ctx, ref, nil)
	if err != nil {
		if _, here := os.Lstat(ref); here == nil && !strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, ".") {
			return fmt.Errorf("%w; for the file of this directory write ./%s", err, ref)
		}
		return err
	}
	mnt, none := work+"/mnt", work+"/none"
	if err := errors.Join(os.Mkdir(mnt, 0o700), os.Mkdir(none, 0o755)); err != nil {
		return err
	}
	root, err := overlay(img.Base, append(img.Layers, none), mnt)
	if err != nil {
		return fmt.Errorf("mount layers of %s: %w", ref, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }() // the last one to hold the mount
	return do(fmt.Sprintf("/proc/self/fd/%d", root.Fd()), runConfig(img.Config))
}

// overlay is the root of layers, top first and relative to base, laid over one another. The mount is in a namespace that is
// gone already: it lasts as long as the root is open.
func overlay(base string, layers []string, mnt string) (root *os.File, err error) {
	if base == "" {
		base = "/"
	}
	err = thread.Own(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Chdir(base); err != nil { // as the names of many layers have to fit into a page
			return err
		}
		if err := unix.Mount("overlay", mnt, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(layers, ":")); err != nil {
			return err
		}
		root, err = os.Open(mnt)
		return err
	})
	return root, err
}

func runConfig(c images.RunConfig) *flist.Config {
	return &flist.Config{
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, User: c.User,
		StopSignal: c.StopSignal, Volumes: c.Volumes, Ports: c.ExposedPorts, Labels: c.Labels,
	}
}
