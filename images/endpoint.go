package images

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/buoy-edge/buoy/internal/errs"
)

// endpoint is one repository at one registry: a mirror or the origin. It logs in at its first request.
type endpoint struct {
	repo   name.Repository
	mirror bool
	auth   *authFile
	round  *retrier

	connecting chan struct{} // of one: guards client and anonymous, waits with ctx
	client     *http.Client
	anonymous  bool
}

// endpoints are the mirrors of ref's registry, then itself.
func (s *Store) endpoints(ref Reference, base http.RoundTripper) ([]*endpoint, error) {
	auth, err := loadAuth(s.cfg.AuthFile, getenv)
	if err != nil {
		return nil, err
	}
	auth.kept = s.kept
	repo := ref.reg.Context()
	host := repo.RegistryStr()
	mirrors := s.cfg.Mirrors[host]
	if len(mirrors) == 0 {
		mirrors = s.cfg.Mirrors[hubName(host)]
	}
	var all []*endpoint
	for _, m := range mirrors {
		bare, plain := strings.CutPrefix(m, "http://")
		bare = strings.Trim(strings.TrimPrefix(bare, "https://"), "/")
		e, err := s.endpoint(bare+"/"+repo.RepositoryStr(), plain, auth, base)
		if err != nil {
			return nil, errs.E(errs.Invalid, "mirror %q of %s: %w", m, host, err)
		}
		e.mirror, e.round.attempts = true, 1 // somebody else can be asked
		all = append(all, e)
	}
	e, err := s.endpoint(repo.Name(), false, auth, base)
	if err != nil {
		return nil, err
	}
	return append(all, e), nil
}

// Registries are the URLs of the registries, and of their mirrors, that the
// images here came from: https://registry-1.docker.io/v2/.
func (s *Store) Registries(ctx context.Context) ([]string, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, img := range all {
		ref, err := ParseRef(img.Ref)
		if err != nil || ref.Kind != Registry {
			continue
		}
		ends, err := s.endpoints(ref, http.DefaultTransport)
		if err != nil {
			return nil, err
		}
		for _, e := range ends {
			urls = append(urls, (&url.URL{Scheme: e.repo.Scheme(), Host: e.repo.RegistryStr(), Path: "/v2/"}).String())
		}
	}
	slices.Sort(urls)
	return slices.Compact(urls), nil
}

func (s *Store) endpoint(repo string, plain bool, auth *authFile, base http.RoundTripper) (*endpoint, error) {
	r, err := name.NewRepository(repo)
	if err != nil {
		return nil, err
	}
	if plain = plain || s.mayBePlain(r.RegistryStr()); plain {
		if r, err = name.NewRepository(repo, name.Insecure); err != nil {
			return nil, err
		}
	}
	round := &retrier{inner: base, tune: s.tune, attempts: s.tune.attempts, log: s.log, plain: func(string) bool { return plain }}
	return &endpoint{repo: r, auth: auth, round: round, connecting: make(chan struct{}, 1)}, nil
}

func (e *endpoint) host() string { return hubName(e.repo.RegistryStr()) }

// connect finds out how the registry wants to be talked to.
func (e *endpoint) connect(ctx context.Context) (*http.Client, error) {
	select {
	case e.connecting <- struct{}{}:
		defer func() { <-e.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if e.client != nil {
		return e.client, nil
	}
	login, err := e.auth.login(ctx, e.repo)
	if err != nil {
		return nil, err
	}
	e.anonymous = login == authn.Anonymous
	rt, err := transport.NewWithContext(ctx, e.repo.Registry, login, e.round, []string{e.repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	e.client = &http.Client{Transport: rt, CheckRedirect: noMetadata}
	return e.client, nil
}

// do asks for /v2/REPO/kind/id; the answer is 200, 206 or 416.
func (e *endpoint) do(ctx context.Context, method, kind, id string, header http.Header) (*http.Response, error) {
	what := e.what(kind, id)
	c, err := e.connect(ctx)
	if err != nil {
		return nil, e.explain(ctx, what, err)
	}
	u := url.URL{Scheme: e.repo.Scheme(), Host: e.repo.RegistryStr(), Path: "/v2/" + e.repo.RepositoryStr() + "/" + kind + "/" + id}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, e.explain(ctx, what, err)
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable); err != nil {
		_ = resp.Body.Close()
		if wait := resp.Header.Get("Retry-After"); wait != "" {
			err = fmt.Errorf("%w (Retry-After: %q)", err, wait)
		}
		return nil, e.explain(ctx, what, err)
	}
	return resp, nil
}

// explain gives a failure its kind and says what to do about it.
func (e *endpoint) explain(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var answer *transport.Error
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errs.Invalid):
		return err
	case errors.As(err, &cert): // before the answer: where plain HTTP is allowed, that was tried as well
		return errs.E(errs.Unavailable, "registry %s has a certificate this node does not trust; add its CA to the system's: %w", e.host(), err)
	case errors.As(err, &answer):
		return e.explainStatus(what, answer, err)
	case errors.Is(err, errPlain), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return errs.E(errs.Invalid, "registry %s does not speak TLS, and %w", e.host(), errors.Join(errPlain, err))
	}
	return errs.E(errs.Unavailable, "registry %s cannot be reached: %w", e.host(), err)
}

// what is how a person would write the thing asked for.
func (e *endpoint) what(kind, id string) string {
	repo := e.repo.RepositoryStr()
	switch {
	case kind != "manifests":
		return strings.TrimSuffix(kind, "s") + " " + id + " of " + repo
	case strings.Contains(id, ":"):
		return repo + "@" + id
	}
	return repo + ":" + id
}

// aboutPaths is for those who meant something of this node's disk.
const aboutPaths = "(a path begins with / or ./)"

func (e *endpoint) explainStatus(what string, answer *transport.Error, err error) error {
	status, says := answer.StatusCode, saying(answer)
	switch {
	case status == http.StatusUnauthorized && e.anonymous:
		return errs.E(errs.Invalid, "registry %s wants a login for %s, or does not have it %s; %s", e.host(), what, aboutPaths, e.auth.advice(e.host()))
	case status == http.StatusUnauthorized:
		return errs.E(errs.Invalid, "registry %s refuses the login for %s%s; %s", e.host(), what, says, e.auth.advice(e.host()))
	case status == http.StatusForbidden:
		return errs.E(errs.Invalid, "registry %s denies access to %s%s; check the rights of the account, or %s", e.host(), what, says, e.auth.advice(e.host()))
	case status == http.StatusNotFound:
		return errs.E(errs.NotFound, "registry %s has no %s %s", e.host(), what, aboutPaths)
	case status == http.StatusTooManyRequests:
		return errs.E(errs.Unavailable, "registry %s limits how often it may be asked; try later, or %s: %w", e.host(), e.auth.advice(e.host()), err)
	case status >= 500:
		return errs.E(errs.Unavailable, "registry %s is out of order: %w", e.host(), err)
	}
	return errs.E(errs.Invalid, "registry %s does not give %s: status %d%s", e.host(), what, status, says)
}

// saying is the registry's own word for why, in brackets, if it has one.
func saying(answer *transport.Error) string {
	if len(answer.Errors) == 0 || answer.Errors[0].Message == "" {
		return ""
	}
	return fmt.Sprintf(" (it says %q)", answer.Errors[0].Message)
}

// read fetches something small whole; check judges it. Dropped connections and wrong bytes are tried again.
func (e *endpoint) read(ctx context.Context, kind, id string, limit int64, check func([]byte) error) ([]byte, error) {
	for n := 1; ; n++ {
		data, err := e.readOnce(ctx, kind, id, limit)
		if err == nil {
			if err = check(data); err == nil {
				return data, nil
			}
			err = errs.E(errs.Unavailable, "registry %s sent something else: %w", e.host(), err)
		} else if errs.KindOf(err) != errs.Internal || ctx.Err() != nil {
			return nil, err // judged by explain, or nobody waits
		}
		if n >= e.round.attempts {
			return nil, errs.E(errs.Unavailable, "registry %s: %w", e.host(), err)
		}
		if err := sleep(ctx, e.round.tune.pause(n)); err != nil {
			return nil, err
		}
	}
}

func (e *endpoint) readOnce(ctx context.Context, kind, id string, limit int64) ([]byte, error) {
	var h http.Header
	if kind == "manifests" {
		h = acceptManifests()
	}
	resp, err := e.do(ctx, http.MethodGet, kind, id, h)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("registry answered %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, errs.E(errs.Invalid, "registry %s: %s is larger than %s", e.host(), id, size(limit))
	}
	return data, nil
}

// digest is what tag is at the registry, by a request that Docker Hub does not count as a pull; "" if it does not say.
func (e *endpoint) digest(ctx context.Context, tag string) (string, error) {
	resp, err := e.do(ctx, http.MethodHead, "manifests", tag, acceptManifests())
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Docker-Content-Digest"), resp.Body.Close()
}

func acceptManifests() http.Header {
	var list []string
	for _, t := range []types.MediaType{types.OCIManifestSchema1, types.OCIImageIndex, types.DockerManifestSchema2, types.DockerManifestList} {
		list = append(list, string(t))
	}
	return http.Header{"Accept": {strings.Join(list, ", ")}}
}
