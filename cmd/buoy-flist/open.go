package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// maxDownload bounds an flist from a URL. The largest known, of 37,000 files, has 2.5 MB.
const maxDownload = 1 << 30

// openList reads an flist from a file or URL.
func openList(ctx context.Context, name string) (_ *flist.List, err error) {
	if !strings.HasPrefix(name, "http://") && !strings.HasPrefix(name, "https://") {
		return flist.Open(ctx, name)
	}
	f, err := os.CreateTemp("", "buoy-flist-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := download(ctx, name, f); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	l, err := flist.Open(ctx, f.Name())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func download(ctx context.Context, from string, to io.Writer) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Minute) // 1 GiB at 15 Mbit/s
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return errs.E(errs.Invalid, "%w", err)
	}
	client := http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: time.Minute,
		DisableCompression: true, // an flist is compressed, and some servers would take that for the transfer's
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return errs.E(errs.Unavailable, "%w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errs.E(errs.NotFound, "the server says %s", resp.Status)
	}
	n, err := io.Copy(to, io.LimitReader(resp.Body, maxDownload+1))
	if err == nil && n > maxDownload {
		err = errs.E(errs.Invalid, "it is longer than %d bytes", int64(maxDownload))
	}
	return err
}

// fetching are the flags of verbs that need chunks.
type fetching struct {
	stores   []string
	parallel int
}

func (f *fetching) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.stores, "store", nil, "`URL` of a store to ask before those that the flist names; may be repeated")
	flags.IntVar(&f.parallel, "parallel", 0, "chunks under way at once (default 32)")
}

// patience is how long a chunk is tried for when stores do not answer: somebody waits.
const patience = 15 * time.Second

// router asks the stores of a list.
func (f *fetching) router(l *flist.List) (*store.Router, error) { return f.route(l.Meta) }

func (f *fetching) route(meta flist.Meta) (*store.Router, error) {
	r, err := store.Route(meta, f.stores, nil, store.Options{Parallel: f.parallel, Patience: patience})
	if err != nil {
		return nil, err
	}
	if len(r.Stores()) == 0 {
		return nil, errors.Join(errs.E(errs.Invalid, "the flist does not say where its chunks are; name a store with --store"), r.Close())
	}
	return r, nil
}
