package node

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/node/state"
)

const marker = "s3cr3t-marker"

// found are the files below dirs that have it.
func found(t *testing.T, dirs ...string) (all []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			raw, err := os.ReadFile(path)
			if bytes.Contains(raw, []byte(marker)) {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func withSecrets(n *Node, name string) Spec {
	s := n.spec(name)
	s.Run.Env = []string{"A=plain", "MODE=1"}
	s.Secrets = []Secret{{Env: "A", Value: marker}, {Path: "/run/secrets//b", Value: marker + "\n"}}
	return s
}

// What starts and commands in it have the secrets, and no file of the node.
func TestSecrets(t *testing.T) {
	n, shim := newNode(t)
	if err := n.Create(t.Context(), withSecrets(n, "a")); err != nil {
		t.Fatal(err)
	}
	shim.mu.Lock()
	asked := shim.asked
	shim.mu.Unlock()
	if !slices.Contains(asked.Spec.Process.Env, "A="+marker) || slices.Contains(asked.Spec.Process.Env, "A=plain") || !slices.Contains(asked.Spec.Process.Env, "MODE=1") {
		t.Errorf("environment %q", asked.Spec.Process.Env)
	}
	if len(asked.Secrets) != 1 || asked.Secrets[0].Path != "/run/secrets/b" || string(asked.Secrets[0].Data) != marker+"\n" {
		t.Errorf("files %+v", asked.Secrets)
	}
	if _, err := n.Exec(t.Context(), "a", container.Command{Args: []string{"x"}, Env: []string{"MODE=2"}}); err != nil {
		t.Fatal(err)
	}
	shim.mu.Lock()
	env := shim.env
	shim.mu.Unlock()
	if !slices.Contains(env, "A="+marker) || !slices.Contains(env, "MODE=2") {
		t.Errorf("environment of a command %q", env)
	}
	if all := found(t, n.cfg.Data, n.cfg.Run); all != nil {
		t.Errorf("it is in %s", all)
	}
	if err := n.cfg.DB.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

// The next daemon reads them; one with another key starts nothing that needs
// them, and does not lose them.
func TestSecretsOfTheNextDaemon(t *testing.T) {
	n, _ := newNode(t)
	if err := n.Create(t.Context(), withSecrets(n, "a")); err != nil {
		t.Fatal(err)
	}
	row := func() state.Record {
		t.Helper()
		all, err := n.cfg.DB.Containers(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	before := row()
	b, fresh, err := restore(before, n.cfg.Keys)
	if err != nil || fresh || b.locked != nil || b.spec.Secrets[0].Value != marker || b.spec.Secrets[1].Value != marker+"\n" {
		t.Errorf("%+v, %v, %v, %v", b.spec.Secrets, fresh, b.locked, err)
	}

	b, fresh, err = restore(before, seal.New())
	if err != nil || fresh || b.locked == nil || !strings.Contains(b.locked.Error(), "secret for A: it was sealed with key") {
		t.Fatalf("%v, %v, %v", b.locked, fresh, err)
	}
	b.respec() // as an update of its ports does
	if !bytes.Equal(b.rec.Spec, before.Spec) {
		t.Errorf("it became %s", b.rec.Spec)
	}
	if env := b.withSecrets([]string{"A=plain"}); !slices.Equal(env, []string{"A=plain"}) {
		t.Errorf("a command has %s", env)
	}
	if _, _, _, err := n.prepare(t.Context(), b); !errors.Is(err, errs.Unavailable) {
		t.Errorf("started: %v", err)
	}

	// Another container's secret is not taken for one of this.
	stolen := before
	stolen.Spec = bytes.Replace(before.Spec, []byte(`"name":"a"`), []byte(`"name":"b"`), 1)
	if b, _, err := restore(stolen, n.cfg.Keys); err != nil || !errors.Is(b.locked, errs.Invalid) {
		t.Errorf("%v, %v", b.locked, err)
	}

	// A new key before the old one: all is sealed with it at the start.
	old, fresher := keyFile(t), keyFile(t)
	both := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(both, slices.Concat(read(t, fresher), read(t, old)), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := withSecrets(n, "a").sealed(seal.Load(old, false))
	if err != nil {
		t.Fatal(err)
	}
	b.spec = spec
	b.respec()
	before.Spec = b.rec.Spec
	b, fresh, err = restore(before, seal.Load(both, false))
	if err != nil || !fresh || b.locked != nil {
		t.Fatalf("%v, %v, %v", fresh, b.locked, err)
	}
	if b, fresh, err := restore(b.rec, seal.Load(fresher, false)); err != nil || fresh || b.locked != nil || b.spec.Secrets[0].Value != marker {
		t.Errorf("%v, %v, %v", fresh, b.locked, err)
	}
}

func keyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := seal.Load(path, true).Err(); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSecretsRefused(t *testing.T) {
	for want, secrets := range map[string][]Secret{
		"secret 1 has to say where":           {{Value: marker}},
		"secret 2 has to say where":           {{Env: "A", Value: marker}, {Env: "B", Path: "/b", Value: marker}},
		"a variable's name has no '='":        {{Env: "A=", Value: marker}},
		"contains a NUL":                      {{Env: "A", Value: marker + "\x00"}},
		"two secrets for A":                   {{Env: "A", Value: marker}, {Env: "A", Value: marker}},
		"is not UTF-8":                        {{Env: "A", Value: marker + "\xff"}},
		"has 65537 bytes":                     {{Path: "/a", Value: marker + strings.Repeat("x", maxSecret+1-len(marker))}},
		"\"run/a\" is not an absolute path":   {{Path: "run/a", Value: marker}},
		"\"/proc/a\": nothing can be mounted": {{Path: "/proc/a", Value: marker}},
		"\"/m\" is used twice":                {{Path: "/m", Value: marker}},
		"there are 65 secrets":                slices.Repeat([]Secret{{Path: "/a", Value: marker}}, maxSecrets+1),
	} {
		s := Spec{Name: "a", Image: "/x", Secrets: secrets, Run: container.Spec{Mounts: []container.Mount{{Type: container.Tmpfs, Target: "/m"}}}}
		err := s.Validate()
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), marker) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	n, _ := newNode(t)
	n.cfg.Keys = nil
	if err := n.Create(t.Context(), withSecrets(n, "a")); !errors.Is(err, errs.Unavailable) || strings.Contains(err.Error(), marker) {
		t.Errorf("without a key: %v", err)
	}
}
