package container

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
