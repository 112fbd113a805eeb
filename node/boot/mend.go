package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/sysmount"
)

// Damage is what was found on the disk for state.
type Damage struct {
	Mended bool // or the disk is not used
	Text   string
}

// brokenDisk is a disk for state that no waiting makes one that can be used.
type brokenDisk struct{ error }

// mountState mounts a volume for what lasts, and mends it before if need be.
func mountState(ctx context.Context, v volume, log *slog.Logger) (mended string, err error) {
	if mended, err = mend(ctx, v.device, log); err != nil {
		return "", err
	}
	if err := sysmount.Mount(v.device, State, "ext4", unix.MS_NOATIME, ""); err != nil {
		return "", brokenDisk{fmt.Errorf("use disk %s: %w", v.device, err)}
	}
	return mended, nil
}

// mend looks a file system over. Nobody is there who could be asked whether to
// mend it: what can be is, even if some files are lost by that, which else could
// be read by nobody either.
func mend(ctx context.Context, dev string, log *slog.Logger) (mended string, err error) {
	const some, unmended = 1, 4 // codes of e2fsck
	code, said, err := e2fsck(ctx, "-p", dev)
	if err == nil && code >= unmended {
		log.WarnContext(ctx, "the disk for state is damaged; it is mended, which may take minutes", "disk", dev, "what", said)
		code, said, err = e2fsck(ctx, "-fy", dev)
	}
	switch {
	case err != nil:
		return "", err
	case code >= unmended:
		return "", brokenDisk{fmt.Errorf("%s has damages that e2fsck cannot mend: %s", dev, said)}
	case code >= some:
		return fmt.Sprintf("%s was mended: %s", dev, said), nil
	}
	return "", nil
}

func e2fsck(ctx context.Context, how, dev string) (code int, said string, err error) {
	out, err := exec.CommandContext(ctx, "e2fsck", how, dev).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), findings(out), nil
	}
	if err != nil {
		err = fmt.Errorf("check disk %s: %w", dev, err)
	}
	return 0, "", err
}

// findings is what e2fsck has said that is about this disk, as a line; of much
// the beginning.
func findings(out []byte) string {
	const most = 6
	var found []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if line == "" || line == "Fix? yes" || strings.HasPrefix(line, "e2fsck 1.") || strings.HasPrefix(line, "Pass ") || strings.HasPrefix(line, "(i.e., ") ||
			strings.Contains(line, "*****") || strings.Contains(line, "RUN fsck MANUALLY") || strings.Contains(line, "non-contiguous") {
			continue
		}
		found = append(found, line)
	}
	if n := len(found) - most; n > 0 {
		found = append(found[:most], fmt.Sprintf("and %d lines more", n))
	}
	return strings.Join(found, "; ")
}

// damageFile keeps what is to be told of the disk until it was.
func (m *Machine) damageFile() string { return filepath.Join(m.cfg.Dir, "damage.json") }

func (m *Machine) keepDamage(d Damage) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return atomicfile.Write(m.damageFile(), raw, 0o600)
}

// TellDamage tells of damage of the disk, once: by this buoyd, or by the one that
// takes its place before it came to that.
func (m *Machine) TellDamage(tell func(Damage)) error {
	raw, err := os.ReadFile(m.damageFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var d Damage
	if err = json.Unmarshal(raw, &d); err == nil {
		tell(d)
	}
	return errors.Join(err, os.Remove(m.damageFile()))
}
