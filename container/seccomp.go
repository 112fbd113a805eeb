package container

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// Seccomp is the file with docker's default profile for s, empty when s is
// unconfined. The profile depends on the capabilities alone.
func (r *Runtime) Seccomp(s Spec) (string, error) {
	if s.Privileged || s.Unconfined {
		return "", nil
	}
	caps := capabilities(s)
	return r.seccomp.file(strings.Join(caps, " "), func() (any, error) {
		return seccomp.GetDefaultProfile(&specs.Spec{
			Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		})
	})
}

func writeProfile(dir string, raw []byte) (string, error) {
	sum := sha256.Sum256(raw)
	name := filepath.Join(dir, hex.EncodeToString(sum[:])+".json")
	if _, err := os.Stat(name); err == nil {
		return name, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := atomicfile.Write(name, raw, 0o600); err != nil {
		return "", fmt.Errorf("keep seccomp profile: %w", err)
	}
	return name, nil
}

// profiles keeps seccomp profiles as files named by their content, which is how
// the shim knows what it has compiled already.
type profiles struct {
	dir string

	mu    sync.Mutex // guards files
	files map[string]string
}

// file is the file that holds the profile for a container with these
// capabilities; build makes it the first time.
func (p *profiles) file(key string, build func() (any, error)) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.files[key]; ok {
		return f, nil
	}
	profile, err := build()
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(profile)
	if err != nil {
		return "", err
	}
	name, err := writeProfile(p.dir, raw)
	if err != nil {
		return "", err
	}
	if p.files == nil {
		p.files = map[string]string{}
	}
	p.files[key] = name
	return name, nil
}
