package images

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
)

// testLogin logs in to a registry, whose user is "me" with the password "secret", and pulls from there.
func testLogin(t *testing.T, host, ref string) {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir, logins(t, host, "stale")) // what the node is told counts before what it finds
	err := s.Login(t.Context(), host, "me", "wrong")
	wantErr(t, err, errs.Invalid, host, "does not take this user and password")
	if strings.Contains(err.Error(), "wrong") {
		t.Errorf("the password is told: %v", err)
	}
	if all := must(s.Logins())(t); len(all) != 0 {
		t.Errorf("a login that was refused is kept: %v", all)
	}
	if err := s.Login(t.Context(), host, "me", "secret"); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, logins(t, host, "stale")) // as after a restart
	must(s.Pull(t.Context(), ref, nil))(t)
	if d := cmp.Diff([]Login{{host, "me"}}, must(s.Logins())(t)); d != "" {
		t.Error(d)
	}
	file := filepath.Join(dir, "logins.json")
	if st := must(os.Stat(file))(t); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	sealed := string(must(os.ReadFile(file))(t))
	if !strings.Contains(sealed, `"password":"sealed-1:`) || strings.Contains(sealed, "secret") {
		t.Errorf("kept as %s", sealed)
	}

	// A password from before there was a key is sealed, and works.
	writeFile(t, file, []byte(`{"auths":{"`+host+`":{"username":"me","password":"secret"}}}`))
	s = openStore(t, dir)
	if got := string(must(os.ReadFile(file))(t)); !strings.Contains(got, `"password":"sealed-1:`) {
		t.Errorf("it stays %s", got)
	}
	must(s.Pull(t.Context(), ref, nil))(t)

	// With its key lost, the login says so, is listed, and another one takes its place.
	other := openStore(t, dir, logins(t, host, "stale"), func(c *Config) { c.Keys = seal.New() })
	_, err = other.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Unavailable, "the login of me at "+host, "sealed with key")
	if d := cmp.Diff([]Login{{host, "me"}}, must(other.Logins())(t)); d != "" {
		t.Error(d)
	}
	if err := other.Login(t.Context(), host, "me", "secret"); err != nil {
		t.Fatal(err)
	}
	must(other.Pull(t.Context(), ref, nil))(t)
	s = other
	if err := s.Logout(host); err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "refuses the login", "buoy login "+host)
	wantErr(t, s.Logout(host), errs.NotFound, "nobody has logged in to "+host)
}

func TestLoginByToken(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"a": "1"})))
	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if r.URL.Path == "/token" {
			if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" {
				return status(w, 401)
			}
			_, _ = w.Write([]byte(`{"token":"t"}`))
			return nil
		}
		if r.Header.Get("Authorization") != "Bearer t" {
			return status(w, 401, "WWW-Authenticate", `Bearer realm="http://`+reg.host+`/token",service="s"`)
		}
		return w
	})
	testLogin(t, reg.host, ref)
}

// TestLoginRefused: what cannot be checked is not kept, and nothing else that is no login.
func TestLoginRefused(t *testing.T) {
	open := newRegistry(t)
	s := openStore(t, t.TempDir())
	for name, c := range map[string]struct {
		registry, user, password string
		kind                     errs.Kind
		say                      string
	}{
		"open registry": {open.host, "me", "secret", errs.Invalid, "wants no login"},
		"nobody there":  {"127.0.0.1:1", "me", "secret", errs.Unavailable, "cannot be reached"},
		"a repository":  {"registry.example/team", "me", "secret", errs.Invalid, "want HOST or HOST:PORT"},
		"a URL":         {"https://registry.example", "me", "secret", errs.Invalid, "want HOST or HOST:PORT"},
		"no user":       {open.host, "", "secret", errs.Invalid, "not empty"},
		"a colon":       {open.host, "me:you", "secret", errs.Invalid, "no colon"},
		"no password":   {open.host, "me", "", errs.Invalid, "password is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			wantErr(t, s.Login(t.Context(), c.registry, c.user, c.password), c.kind, c.say)
		})
	}
	if _, err := os.Stat(s.loginsFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is kept: %v", err)
	}
	writeFile(t, s.loginsFile(), []byte("{"))
	_, err := s.Logins()
	wantErr(t, err, errs.Invalid, "logins.json")
}
