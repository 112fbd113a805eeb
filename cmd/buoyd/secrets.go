package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
)

// Where the keys that seal secrets are when nothing else is said: a file below
// DATA, or what systemd hands over under a name.
const (
	keyFile       = "secrets.key"
	keyCredential = "buoy.secrets-key"
)

// secretKeys are those that seal secrets. Without them all goes on but what needs one.
// A file that somebody names is not made: it may be on a disk that is not there yet.
func (c *config) secretKeys(log *slog.Logger) *seal.Keys {
	path, create := c.keyFile, false
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); path == "" && dir != "" {
		if _, err := os.Stat(filepath.Join(dir, keyCredential)); err == nil {
			path = filepath.Join(dir, keyCredential)
		}
	}
	if path == "" {
		path, create = filepath.Join(c.data, keyFile), true
	}
	keys := seal.Load(path, create)
	if err := keys.Err(); err != nil {
		log.Error("what needs a secret does not start, and none is kept", "error", err)
	}
	return keys
}

// secretsDir is where secrets of apps are: NAME/FIELD, or NAME, as a file.
func secretsDir(data string) string { return filepath.Join(data, "secrets") }

// maxSecret bounds a secret: it goes into an environment, or a file in memory.
const maxSecret = 64 << 10

// sealName is what a secret of apps is sealed for.
func sealName(path string) string { return "secret " + path }

// secret reads DATA/secrets/NAME, or NAME/KEY.
func (c *controller) secret(name, key string) (string, error) {
	path := filepath.Join(name, key)
	root, err := os.OpenRoot(secretsDir(c.data))
	var text []byte
	if err == nil {
		defer root.Close()
		text, err = root.ReadFile(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", errs.E(errs.NotFound, "there is no secret %q", path)
	case err != nil:
		return "", fmt.Errorf("read the secret %q: %w", path, err)
	}
	value, err := c.keys.Open(sealName(path), strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return "", fmt.Errorf("the secret %q: %w", path, err)
	}
	if !utf8.ValidString(value) {
		return "", errs.E(errs.Invalid, "the secret %q is not UTF-8 text; base64 makes it some", path)
	}
	return value, nil
}

var secretPath = regexp.MustCompile(`^[A-Za-z0-9][-_.A-Za-z0-9]*(/[A-Za-z0-9][-_.A-Za-z0-9]*)?$`)

// sealOne keeps what stdin gives, without a newline at its end, as a secret.
func sealOne(path string, args []string, stdin io.Reader, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return usageError{err}
	}
	if !secretPath.MatchString(path) {
		return errs.E(errs.Invalid, "secret %q: want NAME/FIELD or NAME, of letters, digits, '.', '_' and '-'", path)
	}
	value, err := io.ReadAll(io.LimitReader(stdin, maxSecret+2))
	if err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	text := strings.TrimSuffix(string(value), "\n")
	switch {
	case len(text) > maxSecret:
		return errs.E(errs.Invalid, "the secret is longer than %d bytes", maxSecret)
	case !utf8.ValidString(text):
		return errs.E(errs.Invalid, "the secret is not UTF-8 text; base64 makes it some")
	}
	return writeSecret(cfg.data, cfg.secretKeys(slog.New(slog.DiscardHandler)), path, text)
}

// writeSecret seals a secret into its file.
func writeSecret(data string, keys *seal.Keys, path, value string) error {
	text, err := keys.Seal(sealName(path), value)
	if err != nil {
		return err
	}
	file := filepath.Join(secretsDir(data), path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("keep the secret %q: %w", path, err)
	}
	return atomicfile.Write(file, []byte(text+"\n"), 0o600)
}

// sealAll seals the secrets of apps that lie there plain, or were sealed with a
// key that is not the first any more, and says which.
func sealAll(cfg config, log *slog.Logger, stdout io.Writer) error {
	keys := cfg.secretKeys(log)
	if err := keys.Err(); err != nil {
		return err
	}
	dir := secretsDir(cfg.data)
	var bad error
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		path, err := filepath.Rel(dir, file)
		if err != nil || !secretPath.MatchString(path) {
			return err
		}
		raw, err := os.ReadFile(file)
		text := strings.TrimSuffix(string(raw), "\n")
		if err != nil || !keys.Stale(text) {
			return err
		}
		value, err := keys.Open(sealName(path), text)
		if err == nil {
			err = writeSecret(cfg.data, keys, path, value)
		}
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("the secret %q: %w", path, err))
			return nil
		}
		fmt.Fprintln(stdout, path)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, bad)
}
