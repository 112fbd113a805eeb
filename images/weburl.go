package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// validators are what a server says to recognise a version of a file by.
type validators struct{ ETag, Modified string }

func validatorsOf(h http.Header) validators {
	return validators{ETag: h.Get("ETag"), Modified: h.Get("Last-Modified")}
}

// ifRange is what may be sent so that a rest is only given of the same version; "" if nothing is good enough.
func (v validators) ifRange() string {
	if v.ETag != "" && v.ETag[0] == '"' { // weak ones say that versions are alike, not the same
		return v.ETag
	}
	return v.Modified
}

// errUnchanged is an answer 304.
var errUnchanged = errs.E(errs.NotFound, "not modified")

// webFile is one file at a URL, on its way to tmp.
type webFile struct {
	url    string
	client *http.Client
	part   string     // file
	seen   validators // of what is in part
	known  validators // of what was imported before; asked for only if nothing is in part
}

// webSource is a file at a URL and what becomes of it.
type webSource struct {
	url    string
	client *http.Client
	rule   signature.Rule
	limit  int64
	fresh  bool // what is known of its last version does not count
	// check judges what has come, before anything is made of it; nil: nothing to judge.
	check func(f io.ReadSeeker) error
	take  func(ctx context.Context, f file, n int64, digest string, fix func(*record)) (Image, error)
}

// judge says whether what has come may be used, and whose signature it has.
func (src webSource) judge(ctx context.Context, f file, n int64, digest string) (key string, err error) {
	if src.check != nil {
		if err := src.check(f); err != nil {
			return "", err
		}
	}
	return signedBlob(src.rule, digest, n, f, func() ([]byte, error) { return beside(ctx, src.client, src.url, ".sig", maxSignature) })
}

// webClient asks for what a user typed, so plain HTTP is fine; done ends its connections.
func (s *Store) webClient() (c *http.Client, done func()) {
	base := s.newTransport()
	return &http.Client{CheckRedirect: noDowngrade, Transport: &retrier{
		inner: base, tune: s.tune, attempts: s.tune.attempts,
		log: s.log, plain: func(string) bool { return true },
	}}, base.CloseIdleConnections
}

// pullURL brings an archive.
func (s *Store) pullURL(ctx context.Context, r Reference, rule signature.Rule, emit func(Progress)) (Image, error) {
	client, done := s.webClient()
	defer done()
	return s.pullWeb(ctx, r, webSource{
		url: r.text, client: client, rule: rule, limit: s.tune.maxURL,
		take: func(ctx context.Context, f file, n int64, digest string, fix func(*record)) (Image, error) {
			return s.takeFile(ctx, r, f, n, digest, emit, fix)
		},
	}, emit)
}

// pullWeb fetches a file to tmp, unless the server says that it is still the same.
func (s *Store) pullWeb(ctx context.Context, r Reference, src webSource, emit func(Progress)) (Image, error) {
	sum := sha256.Sum256([]byte(r.text))
	w := &webFile{url: src.url, part: filepath.Join(s.tmpDir(), "url-"+hex.EncodeToString(sum[:])+partSuffix), client: src.client}
	old, have := s.known(r, "")
	src.fresh = src.fresh || have && meets(src.rule, old.Image) != nil
	if have && !src.fresh {
		w.known = validators{old.ETag, old.Modified}
	}
	f, err := os.OpenFile(w.part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	defer func() { _ = f.Close() }() // its content was verified or will be
	if err := w.pickUp(f); err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	digest, n, err := s.fetchURL(ctx, src, w, f, emit)
	if errors.Is(err, errUnchanged) {
		return old.Image, w.drop()
	}
	if err != nil {
		if st, serr := f.Stat(); isFull(err) || serr == nil && st.Size() == 0 {
			err = errors.Join(err, w.drop())
		}
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	key, err := src.judge(ctx, f, n, digest)
	if err != nil {
		return Image{}, errors.Join(fmt.Errorf("image %q: %w", r, err), w.drop())
	}
	fix := func(rec *record) { rec.ETag, rec.Modified, rec.Image.SignedBy = w.seen.ETag, w.seen.Modified, key }
	if rec, ok := s.known(r, digest); ok && !src.fresh { // a server without validators, or a new date on the old file
		same := *rec
		fix(&same)
		if same.ETag == rec.ETag && same.Modified == rec.Modified {
			return rec.Image, w.drop()
		}
		img, err := s.commit(&same)
		return img, errors.Join(err, w.drop())
	}
	img, err := src.take(ctx, f, n, digest, fix)
	if err == nil || ctx.Err() == nil { // else it was interrupted, and is not fetched again
		err = errors.Join(err, w.drop())
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	return img, nil
}

func (s *Store) fetchURL(ctx context.Context, src webSource, w *webFile, f *os.File, emit func(Progress)) (digest string, n int64, err error) {
	select {
	case s.downloading <- struct{}{}:
		defer func() { <-s.downloading }()
	case <-ctx.Done():
		return "", 0, context.Cause(ctx)
	}
	if err := s.fits(ctx, 1); err != nil {
		return "", 0, err
	}
	free, err := s.room()
	if err != nil {
		return "", 0, err
	}
	ctx, unguard := s.guard(ctx)
	defer unguard()
	p := Progress{Blob: src.url, Phase: PhaseDownload}
	step := stepper(p, emit)
	d := &download{
		what: src.url, want: -1, limit: min(src.limit, max(free, 1)), file: f, tune: s.tune, log: s.log, get: w.get,
		step: func(done, total int64) {
			if total != p.Total { // known only once the server has answered
				p.Total = total
				step = stepper(p, emit)
			}
			step(done)
		},
	}
	if err := d.run(ctx); err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(d.sum.Sum(nil)), d.have, nil
}

// pickUp empties the partial file unless it is known which version it is a part of.
func (w *webFile) pickUp(f *os.File) error {
	data, err := os.ReadFile(w.part + ".json")
	if err == nil {
		err = json.Unmarshal(data, &w.seen)
	}
	if err != nil || w.seen.ifRange() == "" {
		w.seen = validators{}
		return f.Truncate(0)
	}
	return nil
}

func (w *webFile) drop() error {
	err := errors.Join(os.Remove(w.part), os.Remove(w.part+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// get is download.get: the rest of the version that is partly here, or the newest one.
func (w *webFile) get(ctx context.Context, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return nil, errs.E(errs.Invalid, "%w", err)
	}
	if v := w.seen.ifRange(); offset > 0 && v != "" {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		req.Header.Set("If-Range", v)
	} else {
		if w.known.ETag != "" {
			req.Header.Set("If-None-Match", w.known.ETag)
		}
		if w.known.Modified != "" {
			req.Header.Set("If-Modified-Since", w.known.Modified)
		}
	}
	resp, err := w.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errs.E(errs.Unavailable, "%w", err)
	}
	if err := w.judge(req.URL, resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

func (w *webFile) judge(u *url.URL, resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusNotModified:
		return errUnchanged
	case code == http.StatusOK:
		w.known = validators{} // from here on it is the new version
		return w.note(validatorsOf(resp.Header))
	case code == http.StatusPartialContent, code == http.StatusRequestedRangeNotSatisfiable:
		return nil
	case code == http.StatusNotFound, code == http.StatusGone:
		return errs.E(errs.NotFound, "%s has no %s (%s)", u.Host, u.Path, resp.Status)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return errs.E(errs.Invalid, "%s does not give %s (%s); logins for archive URLs are not supported", u.Host, u.Path, resp.Status)
	case code >= 500 || code == http.StatusTooManyRequests:
		return errs.E(errs.Unavailable, "%s is out of order (%s)", u.Host, resp.Status)
	default:
		return errs.E(errs.Invalid, "%s does not give %s (%s)", u.Host, u.Path, resp.Status)
	}
}

// note remembers, also for after a restart, which version is being fetched.
func (w *webFile) note(v validators) error {
	w.seen = v
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(w.part+".json", data, 0o600)
}

// noDowngrade: a URL with TLS must not end up without.
func noDowngrade(req *http.Request, via []*http.Request) error {
	if req.URL.Scheme == "http" && via[0].URL.Scheme == "https" {
		return fmt.Errorf("redirect from https to %s refused", req.URL.Redacted())
	}
	return noMetadata(req, via)
}
