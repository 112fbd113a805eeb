package boot

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

// disk is a file that takes no room, of so many MiB.
func disk(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size << 20); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

// needsMkfs puts mke2fs into PATH.
func needsMkfs(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if _, err := exec.LookPath("mke2fs"); err != nil {
		t.Skipf("SKIPPED: %v: install e2fsprogs", err)
	}
}

// TestCreateState: only what is blank and free becomes a disk for state.
func TestCreateState(t *testing.T) {
	needsMkfs(t)
	blankDisk := disk(t, "blank", 300)
	if err := createState(t.Context(), blankDisk); err != nil {
		t.Fatal(err)
	}
	v, err := readVolume(blankDisk)
	if err != nil || v.label != Label || len(v.id) != 32 {
		t.Errorf("it is %+v, %v", v, err)
	}
	if err := createState(t.Context(), blankDisk); !errors.Is(err, errs.Conflict) {
		t.Errorf("again: %v", err)
	}

	const size = 300
	for what, at := range map[string]int64{
		"a boot sector": 510, "LVM": 512, "ext4": superblock + atMagic, "btrfs": 64<<10 + 64, "ZFS": 200 << 10, "the first megabytes": blankEnds - 1,
		"RAID at the end": size<<20 - 64<<10, "GPT's copy": size<<20 - 512, "the last byte": size<<20 - 1, "the last megabytes": size<<20 - blankEnds,
	} {
		d := disk(t, "theirs", size)
		write(t, d, at, "\x01")
		before, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		err = createState(t.Context(), d)
		if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "not blank") {
			t.Errorf("%s: %v", what, err)
		}
		if after, err := os.Stat(d); err != nil || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s: it was written to: %v", what, err)
		}
	}
	if err := createState(t.Context(), disk(t, "small", 255)); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "wants 256") {
		t.Errorf("a small one: %v", err)
	}
	if err := createState(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, errs.NotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestFindState(t *testing.T) {
	needsMkfs(t)
	one, other, foreign, empty := disk(t, "one", 300), disk(t, "other", 300), disk(t, "foreign", 16), disk(t, "empty", 0)
	if _, err := findState([]string{empty, foreign, "/dev/none"}); !errors.Is(err, errs.NotFound) {
		t.Errorf("none: %v", err)
	}
	for _, d := range []string{one, other} {
		if err := createState(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-L", "BUOY-DATA2", foreign).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if v, err := findState([]string{empty, foreign, one, one}); err != nil || v.device != one { // by two ways
		t.Errorf("one: %+v, %v", v, err)
	}
	if _, err := findState([]string{one, foreign, other}); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), other) {
		t.Errorf("two: %v", err)
	}
}

// TestMend damages disks: what can be mended is, and what cannot is told from it.
func TestMend(t *testing.T) {
	needsMkfs(t)
	log := slog.New(slog.DiscardHandler)
	made := func(name string) string {
		d := disk(t, name, 300)
		if err := createState(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	sound := made("sound")
	if said, err := mend(t.Context(), sound, log); said != "" || err != nil {
		t.Errorf("a sound one: %q, %v", said, err)
	}
	write(t, sound, superblock+0x40, "\x77") // e2fsck -p gives up on that
	said, err := mend(t.Context(), sound, log)
	if err != nil || !strings.Contains(said, "Superblock checksum does not match") || strings.Contains(said, "Pass 1") {
		t.Errorf("a damaged one: %q, %v", said, err)
	}
	if again, err := mend(t.Context(), sound, log); again != "" || err != nil {
		t.Errorf("it is still damaged: %q, %v", again, err)
	}
	if v, err := findState([]string{sound}); err != nil || v.device != sound {
		t.Errorf("it is not found any more: %v", err)
	}

	half := made("half")
	if err := os.Truncate(half, 200<<20); err != nil {
		t.Fatal(err)
	}
	said, err = mend(t.Context(), half, log)
	if _, broken := errors.AsType[brokenDisk](err); !broken || said != "" || !strings.Contains(err.Error(), "The physical size of the device is") {
		t.Errorf("half a disk: %q, %v", said, err)
	}
	t.Setenv("PATH", "")
	_, err = mend(t.Context(), sound, log)
	if _, broken := errors.AsType[brokenDisk](err); broken || !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without e2fsck: %v", err)
	}
}

func TestFindings(t *testing.T) {
	out := "e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking inodes, blocks, and sizes\n" + strings.Repeat("Inode 7 has illegal blocks.  Clear? yes\n\n", 9) +
		"Fix? yes\n\nBUOY-DATA: ***** FILE SYSTEM WAS MODIFIED *****\nBUOY-DATA: 11/128 files (0.0% non-contiguous), 1/2 blocks\n"
	if got, want := findings([]byte(out)), strings.Repeat("Inode 7 has illegal blocks.  Clear? yes; ", 6)+"and 3 lines more"; got != want {
		t.Errorf("%q", got)
	}
}

// TestTellDamage: it is told once.
func TestTellDamage(t *testing.T) {
	m := &Machine{cfg: MachineConfig{Dir: t.TempDir()}}
	want := Damage{true, "it was mended"}
	if err := m.keepDamage(want); err != nil {
		t.Fatal(err)
	}
	var told []Damage
	for range 2 {
		if err := m.TellDamage(func(d Damage) { told = append(told, d) }); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]Damage{want}, told); diff != "" {
		t.Errorf("-want +told:\n%s", diff)
	}
}
