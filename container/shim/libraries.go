//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/ldcache"
)

// maxCache bounds the cache of an image's loader; those of desktops have 200 KB.
const maxCache = 16 << 20

// addLibraries has the image's loader find libraries, by name, in programs that
// drop LD_LIBRARY_PATH, too: in its cache, and in what the next ldconfig reads. An
// image without a cache that we understand stays as it is.
func (m *rootMount) addLibraries(libraries map[string]string) error {
	if len(libraries) == 0 || !m.writable {
		return nil
	}
	root := int(m.dir.Fd())
	const cache = "etc/ld.so.cache"
	old, err := readIn(root, cache)
	if err != nil {
		return nil //nolint:nilerr // musl has none
	}
	now, err := ldcache.Add(old, libraries)
	if err != nil {
		return nil //nolint:nilerr // nor would its loader understand it
	}
	dirs := map[string]bool{}
	for _, file := range libraries {
		dirs[path.Dir(file)] = true
	}
	conf := strings.Join(slices.Sorted(maps.Keys(dirs)), "\n") + "\n"
	err = writeIn(root, "etc/ld.so.conf.d/buoy.conf", []byte(conf))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		err = nil // its ldconfig reads something else
	}
	if err == nil {
		err = writeIn(root, cache, now)
	}
	if err != nil {
		return fmt.Errorf("tell the image's loader of libraries: %w", err)
	}
	return nil
}

// readIn is a file of a root.
func readIn(root int, name string) ([]byte, error) {
	f, err := openFile(root, name, maxCache)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func writeIn(root int, name string, text []byte) error {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_NONBLOCK | unix.O_CLOEXEC, Mode: 0o644,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
