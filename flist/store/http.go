package store

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/version"
)

// web is a web server with a directory of chunks, or another node of ours.
type web struct {
	base   *url.URL
	client *http.Client
	// paths are where a chunk may be, the likeliest first unless flat is set, which turns them round.
	paths func(id chunk.ID) []string
	flat  atomic.Bool
}

func openHTTP(u *url.URL, opt Options) (*web, error) {
	if u.Host == "" {
		return nil, errs.E(errs.Invalid, "it names no host")
	}
	w := &web{client: newClient(opt)}
	w.paths = func(id chunk.ID) []string {
		return []string{id.String()[:2] + "/" + id.String(), id.String()}
	}
	base := *u
	if scheme, ok := strings.CutPrefix(u.Scheme, "buoy+"); ok {
		base.Scheme = scheme
		w.paths = func(id chunk.ID) []string { return []string{"chunks/" + id.String()} }
	}
	w.base = &base
	return w, nil
}

// newClient is for one store. Its connections end with closeIdle.
func newClient(opt Options) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: opt.Timeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: opt.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: opt.Timeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: opt.Parallel,
		IdleConnTimeout:     maxIdle,
		DisableCompression:  true, // chunks are compressed, and a limit counts what is sent
	}}
}

func (w *web) get(ctx context.Context, id chunk.ID, c call) ([]byte, error) {
	paths := w.paths(id)
	flat := w.flat.Load()
	if flat {
		slices.Reverse(paths)
	}
	for i, p := range paths {
		stored, err := w.getPath(ctx, p, c)
		if err == nil && i > 0 {
			w.flat.Store(!flat) // its other chunks are probably there, too
		}
		if !errors.Is(err, errs.NotFound) {
			return stored, err
		}
	}
	return nil, errs.E(errs.NotFound, "it is not there")
}

func (w *web) getPath(ctx context.Context, path string, c call) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base.JoinPath(path).String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	return fetch(w.client, req, c)
}

func (w *web) close() error {
	w.client.CloseIdleConnections()
	return nil
}

// fetch is the body of a good answer.
func fetch(client *http.Client, req *http.Request, c call) ([]byte, error) {
	req.Header.Set("User-Agent", "buoy/"+version.Version)
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which the gate names
		}
		return nil, err
	}
	defer resp.Body.Close()
	c.alive()
	if resp.StatusCode != http.StatusOK {
		return nil, status(resp)
	}
	if req.Method == http.MethodHead {
		return nil, nil
	}
	if err := c.tooLong(resp.ContentLength); err != nil {
		return nil, err
	}
	body := io.LimitReader(pulse{resp.Body, c.alive}, c.limit+1)
	var stored []byte
	if n := resp.ContentLength; n >= 0 && n <= 1<<20 {
		stored = make([]byte, n)
		_, err = io.ReadFull(body, stored)
	} else {
		stored, err = io.ReadAll(body)
	}
	if err != nil {
		return nil, unexpected(err)
	}
	return stored, c.tooLong(int64(len(stored)))
}

// status is what an answer means that is not 200. A little of the body is read, so that the connection can be kept.
func status(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	code := resp.Status
	if word := errorCode(body); word != "" {
		code += " " + word
	}
	switch n := resp.StatusCode; {
	case n == http.StatusNotFound, n == http.StatusGone:
		return notThere(body)
	case n == http.StatusTooManyRequests, n >= 500:
		return &trouble{errs.E(errs.Unavailable, "it answers %s", code), retryAfter(resp.Header.Get("Retry-After"))}
	case n == http.StatusUnauthorized, n == http.StatusForbidden && denied(body):
		return refused("it answers %s", code)
	}
	return errs.E(errs.Invalid, "it answers %s", code)
}

// retryAfter is seconds, or a date.
func retryAfter(v string) time.Duration {
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(max(min(n, 1<<20), 0)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return time.Until(t)
	}
	return 0
}
