package node

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
)

// Secret is a value that a container gets and that nobody is told: in its
// environment, or as a file in memory. One of Env and Path is set.
type Secret struct {
	Env    string `json:"env,omitempty"`  // name of the variable
	Path   string `json:"path,omitempty"` // of the file, that its user alone may read
	Value  string `json:"-"`
	Sealed string `json:"sealed"` // Value as the database has it
}

// Bounds of the secrets of a container.
const (
	maxSecrets = 64
	maxSecret  = 64 << 10
)

func (s Spec) validateSecrets() error {
	if len(s.Secrets) > maxSecrets {
		return errs.E(errs.Invalid, "there are %d secrets; %d is the most", len(s.Secrets), maxSecrets)
	}
	beside := s.Run
	for i, one := range s.Secrets {
		switch {
		case (one.Env == "") == (one.Path == ""):
			return errs.E(errs.Invalid, "secret %d has to say where it goes, env or path, and only one of them", i+1)
		case len(one.Value) > maxSecret:
			return errs.E(errs.Invalid, "secret for %s has %d bytes; %d is the most", one.where(), len(one.Value), maxSecret)
		case !utf8.ValidString(one.Value):
			return errs.E(errs.Invalid, "secret for %s is not UTF-8", one.where())
		case one.Env != "" && strings.ContainsAny(one.Env, "=\x00"):
			return errs.E(errs.Invalid, "secret for %q: a variable's name has no '='", one.Env)
		case one.Env != "" && strings.ContainsRune(one.Value, 0):
			return errs.E(errs.Invalid, "secret for %s contains a NUL byte, which no variable can have", one.where())
		case one.Env != "" && slices.ContainsFunc(s.Secrets[:i], func(other Secret) bool { return other.Env == one.Env }):
			return errs.E(errs.Invalid, "there are two secrets for %s", one.where())
		}
		if one.Path != "" {
			beside.Mounts = append(slices.Clip(beside.Mounts), container.Mount{Type: container.Bind, Source: "/", Target: one.Path})
		}
	}
	if len(beside.Mounts) == len(s.Run.Mounts) {
		return nil
	}
	return beside.Validate()
}

// where is what the secret is called.
func (s Secret) where() string {
	if s.Path != "" {
		return path.Clean(s.Path)
	}
	return s.Env
}

func (s Secret) sealName(container string) string {
	return "container " + container + " " + cmp.Or(s.Path, "env "+s.Env)
}

// sealed is the spec with its secrets as the database has them.
func (s Spec) sealed(keys *seal.Keys) (Spec, error) {
	s.Secrets = slices.Clone(s.Secrets)
	for i := range s.Secrets {
		one := &s.Secrets[i]
		var err error
		if one.Sealed, err = keys.Seal(one.sealName(s.Name), one.Value); err != nil {
			return s, fmt.Errorf("secret for %s: %w", one.where(), err)
		}
	}
	return s, nil
}

// unseal reads the secrets of a spec that the database has; fresh: they are
// sealed anew, and the spec is to be written. What it cannot read stays as it is.
func (s *Spec) unseal(keys *seal.Keys) (fresh bool, err error) {
	for i := range s.Secrets {
		one := &s.Secrets[i]
		if one.Value, err = keys.Open(one.sealName(s.Name), one.Sealed); err != nil {
			return false, fmt.Errorf("secret for %s: %w", one.where(), err)
		}
		fresh = fresh || keys.Stale(one.Sealed)
	}
	if !fresh {
		return false, nil
	}
	*s, err = s.sealed(keys)
	return err == nil, err
}

// withSecrets is env with those that are variables, if they can be read.
func (b *box) withSecrets(env []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.spec.Secrets) == 0 || b.locked != nil {
		return env
	}
	var more []string
	for _, one := range b.spec.Secrets {
		if one.Env != "" {
			more = append(more, one.Env+"="+one.Value)
		}
	}
	return mergeEnv(env, more)
}

// secretFiles are those that are files.
func (s Spec) secretFiles() (all []shimapi.Secret) {
	for _, one := range s.Secrets {
		if one.Path != "" {
			all = append(all, shimapi.Secret{Path: path.Clean(one.Path), Data: []byte(one.Value)})
		}
	}
	return all
}
