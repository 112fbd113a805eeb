package images

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/buoy-edge/buoy/internal/errs"
)

// authFile is the part of docker's config.json and podman's auth.json that is about logging in. The library's own
// keychain looks in other places in another order, and knows no keys with a path.
type authFile struct {
	path        string
	kept        func(host string) (authn.Authenticator, error) // those of Store.Login, which count first; nil: none
	Auths       map[string]authEntry                           `json:"auths"`
	CredsStore  string                                         `json:"credsStore"`
	CredHelpers map[string]string                              `json:"credHelpers"`
}

type authEntry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// authPaths are the places to look, first that exists wins. A place the user named must exist.
func authPaths(configured string, getenv func(string) string) (paths []string, named bool) {
	if p := configured; p != "" {
		return []string{p}, true
	}
	if p := getenv("REGISTRY_AUTH_FILE"); p != "" {
		return []string{p}, true
	}
	if d := getenv("DOCKER_CONFIG"); d != "" {
		paths = append(paths, filepath.Join(d, "config.json"))
	}
	if d := getenv("HOME"); d != "" {
		paths = append(paths, filepath.Join(d, ".docker", "config.json"))
	}
	if d := getenv("XDG_RUNTIME_DIR"); d != "" {
		paths = append(paths, filepath.Join(d, "containers", "auth.json"))
	}
	return paths, false
}

// loadAuth reads the login file; no file is no logins.
func loadAuth(configured string, getenv func(string) string) (*authFile, error) {
	paths, named := authPaths(configured, getenv)
	for _, p := range paths {
		a, err := readAuth(p)
		if errors.Is(err, fs.ErrNotExist) && !named {
			continue
		}
		return a, err
	}
	return &authFile{path: strings.Join(paths, " or ")}, nil
}

// readAuth reads a login file.
func readAuth(path string) (*authFile, error) {
	a := &authFile{path: path}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, a)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "registry logins in %s: %w", path, err)
	}
	return a, nil
}

// login is what to show the registry for repo. Keys are tried from the whole repository down to the host.
func (a *authFile) login(ctx context.Context, repo name.Repository) (authn.Authenticator, error) {
	host := repo.RegistryStr()
	if a.kept != nil {
		if login, err := a.kept(hubName(host)); login != nil || err != nil {
			return login, err
		}
	}
	for _, key := range authKeys(host, repo.RepositoryStr()) {
		if e, ok := a.Auths[key]; ok && (e.Auth != "" || e.Username != "" || e.IdentityToken != "" || e.RegistryToken != "") {
			return entryLogin(a.path, key, authn.AuthConfig{
				Auth: e.Auth, Username: e.Username, Password: e.Password,
				IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
			})
		}
		if h := a.CredHelpers[key]; h != "" {
			return helperLogin(ctx, h, key)
		}
	}
	if a.CredsStore != "" {
		key := host
		if host == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		return helperLogin(ctx, a.CredsStore, key)
	}
	return authn.Anonymous, nil
}

func authKeys(host, repo string) []string {
	hosts := []string{host}
	if host == name.DefaultRegistry {
		hosts = []string{"docker.io", host, authn.DefaultAuthKey}
	}
	var keys []string
	for _, h := range hosts {
		for path := repo; path != "" && path != "."; path = filepath.Dir(path) {
			keys = append(keys, strings.TrimSuffix(h, "/")+"/"+path)
		}
	}
	for _, h := range hosts {
		keys = append(keys, h, "https://"+h, "http://"+h, "https://"+h+"/v1/", "https://"+h+"/v2/")
	}
	return keys
}

func entryLogin(path, key string, c authn.AuthConfig) (authn.Authenticator, error) {
	if c.Auth != "" {
		plain, err := base64.StdEncoding.DecodeString(c.Auth)
		user, pass, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		if err != nil || !ok {
			return nil, errs.E(errs.Invalid, "registry logins in %s: entry %q is not base64 of user:password", path, key)
		}
		c.Auth, c.Username, c.Password = "", user, pass
	}
	return authn.FromConfig(c), nil
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// helperLogin asks docker-credential-NAME, as docker does.
func helperLogin(ctx context.Context, helper, server string) (authn.Authenticator, error) {
	if !helperName.MatchString(helper) {
		return nil, errs.E(errs.Invalid, "credential helper %q has no valid name", helper)
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	if err != nil && strings.Contains(out.String(), "credentials not found") {
		return authn.Anonymous, nil
	}
	var c struct{ Username, Secret string }
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &c)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "ask credential helper %q for %s: %w", helper, server, err)
	}
	if c.Username == "<token>" {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: c.Secret}), nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Secret}), nil
}

// advice says what to do about a refused login.
func (a *authFile) advice(host string) string {
	where := a.path
	if where == "" {
		where = "the login file"
	}
	return fmt.Sprintf("log in with \"buoy login %s\", or check %s", hubName(host), where)
}
