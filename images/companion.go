package images

import (
	"context"
	"crypto/md5" //nolint:gosec // what hubs publish; nothing rests on it but noticing a change or a broken transfer
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/errs"
)

// urlOf is where an flist that is not of this node's disk is fetched.
func (s *Store) urlOf(r Reference) string {
	name, ok := strings.CutPrefix(r.text, "hub:")
	if !ok {
		return r.text
	}
	return strings.TrimRight(s.cfg.Hub, "/") + "/" + name
}

// pullFlistURL fetches an flist, unless the server or the companion file of it says that it is still the same.
func (s *Store) pullFlistURL(ctx context.Context, r Reference, rule signature.Rule, emit func(Progress)) (Image, error) {
	client, done := s.webClient()
	defer done()
	at := s.urlOf(r)
	md5sum, err := companion(ctx, client, at)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	old, have := s.known(r, "")
	again := have && (old.Image.About.Warning != "" || meets(rule, old.Image) != nil)
	if have && !again && md5sum != "" && md5sum == old.MD5 {
		return old.Image, nil
	}
	return s.pullWeb(ctx, r, webSource{
		url: at, client: client, rule: rule, limit: s.tune.maxFlist,
		fresh: again || md5sum != "",
		check: func(f io.ReadSeeker) error {
			got, err := md5Of(f)
			if err != nil || md5sum == "" || got == md5sum {
				md5sum = got
				return err
			}
			if md5sum, err = companion(ctx, client, at); err != nil || md5sum == "" || md5sum == got { // replaced meanwhile
				md5sum = got
				return err
			}
			return errs.E(errs.Unavailable, "what %s gives has md5 %s, but the file beside it, %s, says %s", at, got, besideName(at, md5Ending), md5sum)
		},
		take: func(ctx context.Context, f file, n int64, digest string, fix func(*record)) (Image, error) {
			return s.takeFlist(ctx, r, f, n, digest, func(rec *record) {
				fix(rec)
				rec.MD5 = md5sum
			})
		},
	}, emit)
}

// besideName is the URL of the file beside another whose name has a further ending.
func besideName(at, ending string) string {
	u, err := url.Parse(at)
	if err != nil {
		return at + ending
	}
	u.Path += ending
	if u.RawPath != "" {
		u.RawPath += ending
	}
	return u.String()
}

// beside fetches a small file that a server may have published beside another; nil if there is none.
func beside(ctx context.Context, client *http.Client, at, ending string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, besideName(at, ending), nil)
	if err != nil {
		return nil, errs.E(errs.Invalid, "%w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errs.E(errs.Unavailable, "%w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return nil, errs.E(errs.Unavailable, "%s is out of order (%s)", req.URL.Host, resp.Status)
	case resp.StatusCode != http.StatusOK: // object stores say 403 of what they have not
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return nil, errs.E(errs.Unavailable, "%s: %w", besideName(at, ending), err)
	}
	return data, nil
}

// companion is the md5 that a server has published beside an flist; "" if there is none.
func companion(ctx context.Context, client *http.Client, at string) (string, error) {
	data, err := beside(ctx, client, at, md5Ending, 512)
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(data))
	if len(words) == 0 || len(words[0]) != 32 || !isMD5.MatchString(words[0]) {
		return "", nil // nothing, or a page for people
	}
	return strings.ToLower(words[0]), nil
}

var isMD5 = regexp.MustCompile(`^[0-9A-Fa-f]+$`)

const md5Ending = ".md5"

func md5Of(f io.ReadSeeker) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sum := md5.New() //nolint:gosec // see the import
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
