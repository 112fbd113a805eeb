//go:build linux && cgo

package shim

import (
	"encoding/json"
	"os"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/internal/errs"
)

// filters has each seccomp profile as a program for the kernel, compiled once:
// libseccomp takes 20 ms for the usual profile and three architectures, in
// every start, when libcontainer does it (reference/baseline.md, trick 2).
//
// buoy-init can load a program only with no_new_privs. Without it the profile
// goes to libcontainer, the slow and classic way.
type filters struct {
	mu   sync.Mutex // guards done
	done map[string]*filter
}

type filter struct {
	once sync.Once
	file *os.File // sealed; nil after an error
	err  error
}

func newFilters() *filters { return &filters{done: map[string]*filter{}} }

// open is a duplicate of the program of the profile in file, which is named by
// its content and so never changes.
func (b *filters) open(file string) (*os.File, error) {
	b.mu.Lock()
	f := b.done[file]
	if f == nil {
		f = &filter{}
		b.done[file] = f
	}
	b.mu.Unlock()
	f.once.Do(func() {
		profile, err := loadProfile(file)
		if err == nil {
			f.file, err = compile(profile)
		}
		f.err = err
	})
	if f.err != nil {
		b.mu.Lock()
		delete(b.done, file) // the file may come yet
		b.mu.Unlock()
		return nil, f.err
	}
	return reopen(f.file)
}

// reopen is another way to the same memory, with an offset of its own.
func reopen(f *os.File) (*os.File, error) {
	return os.Open(fdPath(int(f.Fd())))
}

func loadProfile(file string) (*specs.LinuxSeccomp, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.E(errs.NotFound, "read the seccomp profile: %w", err)
	}
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, errs.E(errs.Invalid, "read the seccomp profile %s: %w", file, err)
	}
	return &p, nil
}
