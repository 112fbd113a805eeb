package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Login is a registry that somebody has logged this node in to.
type Login struct{ Registry, Username string }

// loginsFile has the logins that Login keeps, in the format of docker's
// config.json but that passwords are sealed. They count before those of Config.AuthFile.
func (s *Store) loginsFile() string { return filepath.Join(s.cfg.Dir, "logins.json") }

// Login keeps a user's password for pulls, once the registry has taken it.
// Invalid: it does not, or asks nobody for one.
func (s *Store) Login(ctx context.Context, registry, user, password string) error {
	reg, err := s.parseRegistry(registry)
	switch {
	case err != nil:
		return err
	case user == "" || strings.Contains(user, ":") || strings.ContainsFunc(user, unicode.IsControl):
		return errs.E(errs.Invalid, "user %q: a name has no colon and is not empty", user)
	case password == "":
		return errs.E(errs.Invalid, "the password is empty")
	}
	if err := s.tryLogin(ctx, reg, &authn.Basic{Username: user, Password: password}); err != nil {
		return err
	}
	host := hubName(reg.RegistryStr())
	sealed, err := s.cfg.Keys.Seal(loginName(host), password)
	if err != nil {
		return err
	}
	return s.editLogins(func(all map[string]authEntry) {
		all[host] = authEntry{Username: user, Password: sealed}
	})
}

// Logout forgets what Login has kept. NotFound: nothing.
func (s *Store) Logout(registry string) error {
	reg, err := s.parseRegistry(registry)
	if err != nil {
		return err
	}
	host := hubName(reg.RegistryStr())
	there := false
	err = s.editLogins(func(all map[string]authEntry) {
		_, there = all[host]
		delete(all, host)
	})
	if err == nil && !there {
		return errs.E(errs.NotFound, "nobody has logged in to %s here", host)
	}
	return err
}

// Logins are those that Login has kept, by registry.
func (s *Store) Logins() ([]Login, error) {
	kept, err := s.readLogins()
	if err != nil {
		return nil, err
	}
	var all []Login
	for host, entry := range kept {
		all = append(all, Login{host, entry.Username})
	}
	slices.SortFunc(all, func(a, b Login) int { return strings.Compare(a.Registry, b.Registry) })
	return all, nil
}

// parseRegistry reads HOST or HOST:PORT; empty is Docker Hub.
func (s *Store) parseRegistry(text string) (name.Registry, error) {
	var opts []name.Option
	if s.mayBePlain(text) {
		opts = append(opts, name.Insecure)
	}
	if text == "docker.io" { // as authKeys has it
		text = name.DefaultRegistry
	}
	reg, err := name.NewRegistry(text, opts...)
	if err != nil {
		return reg, errs.E(errs.Invalid, "registry %q: want HOST or HOST:PORT", text)
	}
	return reg, nil
}

// tryLogin asks a registry, and whoever gives out its tokens, whether it takes a login.
func (s *Store) tryLogin(ctx context.Context, reg name.Registry, login *authn.Basic) error {
	base := s.newTransport()
	defer base.CloseIdleConnections()
	e, err := s.endpoint(reg.RegistryStr()+"/login", false, &authFile{}, base) // any repository; it is not asked for
	if err != nil {
		return err
	}
	said, err := transport.Ping(ctx, reg, e.round)
	if err != nil {
		return e.explain(ctx, "the login", err)
	}
	if said.Scheme == "" {
		return errs.E(errs.Invalid, "registry %s wants no login", e.host())
	}
	refused := func(err error) error {
		var answer *transport.Error
		if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
			return errs.E(errs.Invalid, "registry %s does not take this user and password%s", e.host(), saying(answer))
		}
		return e.explain(ctx, "the login", err)
	}
	round, err := transport.NewWithContext(ctx, reg, login, e.round, nil)
	if err != nil {
		return refused(err)
	}
	u := url.URL{Scheme: reg.Scheme(), Host: reg.RegistryStr(), Path: "/v2/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: round, CheckRedirect: noMetadata}).Do(req)
	if err != nil {
		return refused(err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return refused(err)
	}
	return nil
}

// loginName is what a password is sealed for.
func loginName(host string) string { return "registry " + host }

// kept is the login for a registry that Login has kept, if it has.
func (s *Store) kept(host string) (login authn.Authenticator, err error) {
	all, err := s.readLogins()
	if err != nil {
		return nil, err
	}
	e, ok := all[host]
	if !ok {
		return nil, nil //nolint:nilnil // there is none
	}
	password, err := s.cfg.Keys.Open(loginName(host), e.Password)
	if err != nil {
		return nil, fmt.Errorf("the login of %s at %s: %w", e.Username, host, err)
	}
	return &authn.Basic{Username: e.Username, Password: password}, nil
}

// sealLogins seals passwords that are not yet, or with a former key.
func (s *Store) sealLogins() error {
	all, err := s.readLogins()
	if err != nil {
		return err
	}
	var bad error
	fresh := map[string]authEntry{}
	for host, e := range all {
		if !s.cfg.Keys.Stale(e.Password) {
			continue
		}
		password, err := s.cfg.Keys.Open(loginName(host), e.Password)
		if err == nil {
			e.Password, err = s.cfg.Keys.Seal(loginName(host), password)
		}
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("the login of %s at %s: %w", e.Username, host, err))
			continue
		}
		fresh[host] = e
	}
	if len(fresh) == 0 {
		return bad
	}
	return errors.Join(bad, s.editLogins(func(all map[string]authEntry) { maps.Copy(all, fresh) }))
}

// readLogins gives what Login has kept, sealed.
func (s *Store) readLogins() (map[string]authEntry, error) {
	a, err := readAuth(s.loginsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]authEntry{}, nil
	}
	if err != nil {
		return nil, err
	}
	return a.Auths, nil
}

// editLogins changes it.
func (s *Store) editLogins(change func(map[string]authEntry)) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	all, err := s.readLogins()
	if err != nil {
		return err
	}
	change(all)
	data, err := json.Marshal(map[string]any{"auths": all})
	if err != nil {
		return err
	}
	return atomicfile.Write(s.loginsFile(), data, 0o600)
}
