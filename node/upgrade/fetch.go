package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// Fetch is a bundle that the node gets by itself.
type Fetch struct {
	URL    string       `json:"url"`
	Window int64        `json:"window"` // seconds, as of a Trial
	Asked  time.Time    `json:"asked"`
	Actor  events.Actor `json:"actor"`
	Tag    string       `json:"tag,omitempty"` // by which the server knows the file that has been begun

	Got   int64 `json:"got,omitempty"`   // bytes
	Total int64 `json:"total,omitempty"` // of them; 0: not known
}

const (
	// MaxBundle is how large a bundle may be.
	MaxBundle = 512 << 20
	// fetchStall ends a connection that brings nothing.
	fetchStall = 30 * time.Second
	// fetchPatience is how long a fetch goes on from the last byte that came: a
	// day of a link that is down.
	fetchPatience = 24 * time.Hour
	// Waits between tries.
	firstWait, longestWait = time.Second, 2 * time.Minute
)

func readFetch(dir string) (*Fetch, error) {
	raw, err := os.ReadFile(filepath.Join(dir, fetchFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	f := new(Fetch)
	if err == nil {
		err = json.Unmarshal(raw, f)
	}
	return f, err
}

func (f Fetch) write(dir string) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, fetchFile), raw, 0o600)
}

// Begin has the node get a bundle from a URL, over power cuts and bad links; it
// then goes on as Receive does, and what is wrong is in Status.
func (m *Manager) Begin(ctx context.Context, from string, window time.Duration) error {
	window, err := Window(window)
	if err != nil {
		return err
	}
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errs.E(errs.Invalid, "%q is no http:// or https:// URL", from)
	}
	if _, err := readKeys(m.cfg.Keys); err != nil {
		return err
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.busy.Unlock()
	if f, err := readFetch(m.cfg.Dir); err == nil && f != nil {
		return errs.E(errs.Conflict, "a bundle is being fetched from %s", f.URL)
	}
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err := (Fetch{URL: from, Window: int64(window / time.Second), Asked: time.Now().UTC(), Actor: events.ActorOf(ctx)}).write(m.cfg.Dir); err != nil {
		return noRoom(err)
	}
	m.poke()
	return nil
}

func (m *Manager) poke() {
	select {
	case m.work <- struct{}{}:
	default:
	}
}

// Cancel ends a fetch. NotFound: there is none.
func (m *Manager) Cancel() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel == nil {
		return errs.E(errs.NotFound, "nothing is being fetched")
	}
	m.cancel()
	return nil
}

// errCanceled is why a fetch has ended that somebody did not want any more.
var errCanceled = errs.E(errs.Conflict, "it was cancelled")

// fetch gets a bundle and puts it on trial. When ctx ends, the next daemon goes on.
func (m *Manager) fetch(ctx context.Context, f Fetch) {
	fctx, cancel := context.WithCancelCause(events.By(ctx, f.Actor))
	defer cancel(nil)
	m.mu.Lock()
	m.phase, m.got, m.total, m.cancel = fetching, 0, 0, func() { cancel(errCanceled) }
	m.mu.Unlock()
	err := m.download(fctx, &f)
	m.mu.Lock()
	m.phase, m.cancel = "", nil
	m.mu.Unlock()
	if err == nil {
		err = m.receiveFile(fctx, f)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	m.cfg.Log.Warn("an upgrade was not taken", "url", f.URL, "error", err)
	m.busy.Lock()
	defer m.busy.Unlock()
	err = errors.Join(m.refuse(ctx, f, err), remove(filepath.Join(m.cfg.Dir, incoming)), remove(filepath.Join(m.cfg.Dir, fetchFile)))
	if err != nil {
		m.cfg.Log.Warn("what became of an upgrade is not remembered", "error", err)
	}
}

// refuse remembers why a bundle was not tried.
func (m *Manager) refuse(ctx context.Context, f Fetch, why error) error {
	st, err := readState(m.cfg.Dir)
	if err != nil {
		return err
	}
	st.Last = &Outcome{From: m.cfg.Version, Result: refused, Reason: "Refused", Message: f.URL + ": " + why.Error(), Time: time.Now().UTC(), Actor: f.Actor}
	if err := st.write(m.cfg.Dir); err != nil {
		return err
	}
	return m.tell(ctx)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (m *Manager) receiveFile(ctx context.Context, f Fetch) error {
	in, err := os.Open(filepath.Join(m.cfg.Dir, incoming))
	if err != nil {
		return err
	}
	defer in.Close()
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.busy.Unlock()
	if err := m.unpack(ctx, in, time.Duration(f.Window)*time.Second); err != nil {
		return err
	}
	defer m.Restart()
	return remove(filepath.Join(m.cfg.Dir, incoming))
}

// permanent is what another try does not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// download gets all of the file, trying again for as long as it takes.
func (m *Manager) download(ctx context.Context, f *Fetch) error {
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: fetchStall}).DialContext,
		TLSHandshakeTimeout: fetchStall, ResponseHeaderTimeout: fetchStall, DisableCompression: true,
	}}
	defer client.CloseIdleConnections()
	wait, since := firstWait, time.Now()
	for {
		had := m.progress()
		err := m.piece(ctx, client, f)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, ok := errors.AsType[permanent](err); ok {
			return err
		}
		if m.progress() > had {
			wait, since = firstWait, time.Now()
		}
		if time.Since(since) > fetchPatience {
			return fmt.Errorf("nothing has come for %v: %w", fetchPatience, err)
		}
		m.cfg.Log.Info("a bundle is fetched on", "wait", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, longestWait)
	}
}

func (m *Manager) progress() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got
}

// piece gets as much as one connection brings, behind what is there.
func (m *Manager) piece(ctx context.Context, client *http.Client, f *Fetch) (err error) {
	out, err := os.OpenFile(filepath.Join(m.cfg.Dir, incoming), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return permanent{noRoom(err)}
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	have, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if f.Tag == "" { // without one nobody knows what these bytes are of
		have = 0
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return permanent{err}
	}
	req.Header.Set("User-Agent", "buoyd/"+m.cfg.Version)
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		req.Header.Set("If-Range", f.Tag)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	at, length, err := placed(resp, have)
	if err != nil {
		return err
	}
	if err := m.mark(f, resp, at); err != nil {
		return permanent{noRoom(err)}
	}
	if _, err := out.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if err := out.Truncate(at); err != nil {
		return err
	}
	return m.copy(resp, out, at, length, cancel)
}

// copy writes the body of an answer, which begins at at; cancel ends a connection that brings nothing.
func (m *Manager) copy(resp *http.Response, out *os.File, at, length int64, cancel func()) error {
	m.mu.Lock()
	m.got, m.total = at, max(at+length, 0)
	m.mu.Unlock()
	stall := time.AfterFunc(fetchStall, cancel)
	defer stall.Stop()
	w := &writer{to: out}
	n, err := io.Copy(w, io.LimitReader(&counted{resp.Body, func(n int) {
		stall.Reset(fetchStall)
		m.mu.Lock()
		m.got += int64(n)
		m.mu.Unlock()
	}}, MaxBundle-at+1))
	switch {
	case w.err != nil:
		return permanent{noRoom(w.err)}
	case err != nil:
		return err
	case at+n > MaxBundle:
		return permanent{errs.E(errs.Invalid, "it is larger than %d MiB", MaxBundle>>20)}
	case length >= 0 && n != length:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// placed says where in the file the body of an answer belongs, and how long it is; -1: it does not say.
func placed(resp *http.Response, have int64) (at, length int64, err error) {
	err = fmt.Errorf("the server answers %s", resp.Status)
	switch resp.StatusCode {
	case http.StatusOK:
		return 0, resp.ContentLength, nil
	case http.StatusPartialContent:
		var first, last, total int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); n != 3 || first != have || last != total-1 {
			return 0, 0, permanent{fmt.Errorf("the server answers with range %q to %d-", resp.Header.Get("Content-Range"), have)}
		}
		return have, last - first + 1, nil
	case http.StatusRequestedRangeNotSatisfiable:
		var total int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes */%d", &total); n == 1 && total == have {
			return have, 0, nil
		}
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return 0, 0, err
	}
	if resp.StatusCode >= 500 {
		return 0, 0, err
	}
	return 0, 0, permanent{err}
}

// mark remembers of which file the bytes are that come.
func (m *Manager) mark(f *Fetch, resp *http.Response, at int64) error {
	if at > 0 {
		return nil
	}
	tag := resp.Header.Get("ETag")
	if tag == "" || tag[0] == 'W' { // a weak one is not for ranges
		tag = resp.Header.Get("Last-Modified")
	}
	if tag == f.Tag {
		return nil
	}
	f.Tag = tag
	return f.write(m.cfg.Dir)
}

// counted tells of what is read.
type counted struct {
	io.Reader
	came func(n int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		c.came(n)
	}
	return n, err
}
