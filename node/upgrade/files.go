package upgrade

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

func syncDir(dir string) error { return atomicfile.SyncDir(dir) }

// copyFile copies a file durably; one that is not there is none there either.
func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return out.Sync()
}
