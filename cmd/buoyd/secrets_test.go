package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
)

func TestSecret(t *testing.T) {
	c := &controller{data: t.TempDir(), keys: seal.New()}
	if _, err := c.secret("db", "password"); errs.KindOf(err) != errs.NotFound || err.Error() != `there is no secret "db/password"` {
		t.Errorf("no secrets: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(c.data, "secrets", "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.data, "secrets", "db", "password"), []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.secret("db", "user"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("absent: %v", err)
	}
	if _, err := c.secret("db", ""); errs.KindOf(err) != errs.Internal {
		t.Errorf("unreadable: %v", err)
	}
	if text, err := c.secret("db", "password"); text != "hush" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func TestSeal(t *testing.T) {
	data := t.TempDir()
	do := func(in string, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		var err error
		if args = append(args, "--data", data, "--run", data); args[0] == "--data" {
			cfg, perr := parse(args, io.Discard)
			if perr != nil {
				t.Fatal(perr)
			}
			err = sealAll(cfg, log(&out), &out)
		} else {
			err = sealOne(args[0], args[1:], strings.NewReader(in), io.Discard)
		}
		if err != nil {
			out.WriteString(err.Error())
		}
		return out.String()
	}
	read := func(path string) string {
		t.Helper()
		c := &controller{data: data, keys: seal.Load(filepath.Join(data, keyFile), false)}
		text, err := c.secret(filepath.Split(path))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	file := func(path string) string { return filepath.Join(data, "secrets", path) }

	if out := do("hush\nhush\n", "db/password"); out != "" || read("db/password") != "hush\nhush" {
		t.Errorf("%s; %q", out, read("db/password"))
	}
	raw, err := os.ReadFile(file("db/password"))
	st, serr := os.Stat(file("db/password"))
	if err != nil || serr != nil || bytes.Contains(raw, []byte("hush")) || st.Mode().Perm() != 0o600 {
		t.Errorf("kept as %s, %v, %v", raw, err, serr)
	}
	for _, bad := range []string{"../x", "a/b/c", ".x", "a//b", "a/"} {
		if out := do("x", bad); !strings.Contains(out, "want NAME/FIELD") {
			t.Errorf("%s: %q", bad, out)
		}
	}
	if out := do(strings.Repeat("x", maxSecret+1), "long"); !strings.Contains(out, "longer than") {
		t.Error(out)
	}

	// One that somebody has put there plain, and one that is not ours.
	if err := os.WriteFile(file("plain"), []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file(".swp"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read("plain"); got != "old" {
		t.Errorf("%q", got)
	}
	if out := do(""); out != "plain\n" || read("plain") != "old" {
		t.Errorf("sealed %q", out)
	}
	if out := do(""); out != "" {
		t.Errorf("sealed again: %q", out)
	}

	// Under another's name it is worth nothing.
	if err := os.Rename(file("plain"), file("other")); err != nil {
		t.Fatal(err)
	}
	c := &controller{data: data, keys: seal.Load(filepath.Join(data, keyFile), false)}
	if _, err := c.secret("other", ""); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), `secret "other"`) {
		t.Errorf("%v", err)
	}

	// A new key before the old one.
	old, err := os.ReadFile(filepath.Join(data, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	if err := seal.Load(filepath.Join(fresh, keyFile), true).Err(); err != nil {
		t.Fatal(err)
	}
	raw, err = os.ReadFile(filepath.Join(fresh, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, keyFile), append(raw, old...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := do(""); !strings.Contains(out, "db/password\n") || !strings.Contains(out, `the secret "other": it was changed`) {
		t.Errorf("sealed %q", out)
	}
	if err := os.WriteFile(filepath.Join(data, keyFile), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read("db/password"); got != "hush\nhush" {
		t.Errorf("%q", got)
	}
}

// A key that somebody names is not made in its place; systemd's counts before ours.
func TestSecretKeys(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	of := func(args ...string) (*seal.Keys, string) {
		t.Helper()
		cfg, err := parse(append([]string{"--data", data, "--run", data}, args...), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		return cfg.secretKeys(log(&out)), out.String()
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	ours, out := of()
	if ours.Err() != nil || out != "" {
		t.Errorf("%v, %s", ours.Err(), out)
	}
	named := filepath.Join(t.TempDir(), "key")
	k, out := of("--secrets-key", named)
	if k.Err() == nil || !strings.Contains(out, named) {
		t.Errorf("%v, %s", k.Err(), out)
	}
	if _, err := os.Stat(named); err == nil {
		t.Error("it was made")
	}
	if err := seal.Load(filepath.Join(dir, keyCredential), true).Err(); err != nil {
		t.Fatal(err)
	}
	text, err := ours.Seal("x", "hush")
	if err != nil {
		t.Fatal(err)
	}
	k, _ = of()
	if _, err := k.Open("x", text); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("the credential is not what counts: %v", err)
	}
}

func log(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
