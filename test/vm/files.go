package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/internal/cpio"
)

// File is one of a guest's files.
type File struct {
	Path string      // required: in the guest
	Perm fs.FileMode // 0644
	Data []byte
	From string // instead of Data: a file of the host
	Link string // instead of both: what a symbolic link points to
}

func (f File) into(a *cpio.Writer) error {
	if f.Link != "" {
		a.Link(f.Path, f.Link)
		return nil
	}
	if f.From != "" {
		data, err := os.ReadFile(f.From)
		if err != nil {
			return err
		}
		f.Data = data
	}
	if f.Perm == 0 {
		f.Perm = 0o644
	}
	a.File(f.Path, f.Perm, f.Data)
	return nil
}

// Program is a program of the host with the shared libraries it needs, for
// Config.Files: in the guest it is at the same path.
func Program(t testing.TB, path string) []File {
	t.Helper()
	files := []File{{Path: path, Perm: 0o755, From: path}}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("a guest needs it: %v", err)
	}
	// It fails on static programs, which need nothing more.
	out, err := exec.CommandContext(t.Context(), "ldd", path).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("ldd %s: %v", path, err)
	}
	// Lines are "NAME => FILE (ADDRESS)", of the loader "FILE (ADDRESS)".
	for line := range strings.Lines(string(out)) {
		if _, file, ok := strings.Cut(line, "=> "); ok {
			line = file
		}
		file, _, ok := strings.Cut(strings.TrimSpace(line), " (0x")
		if strings.Contains(file, "not found") {
			t.Fatalf("ldd %s: %s", path, strings.TrimSpace(line))
		}
		if ok && filepath.IsAbs(file) {
			files = append(files, File{Path: file, Perm: 0o755, From: file})
		}
	}
	return files
}

// Buoy is the programs of this tree, for Config.Files; in the guest they are in PATH.
func Buoy(t testing.TB) []File {
	t.Helper()
	dir := os.Getenv("BUOY_BIN")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), "bin")
	}
	var files []File
	for _, name := range []string{"buoyd", "buoy", "buoy-shim", "buoy-reaper", "buoy-init", "buoy-flist"} {
		from := filepath.Join(dir, name)
		if _, err := os.Stat(from); err != nil {
			t.Fatalf("%v: run \"make build\", or \"make test-vm\", which does", err)
		}
		files = append(files, File{Path: "/usr/local/bin/" + name, Perm: 0o755, From: from})
	}
	return files
}

// Busybox is the static busybox of the host with a link for each of its
// applets, below root. Guests have one below /; a container's root file system
// can be made with it, too.
func Busybox(t testing.TB, root string) []File {
	t.Helper()
	const path = "/bin/busybox"
	files := []File{{Path: filepath.Join(root, path), Perm: 0o755, From: path}}
	applets, err := busyboxApplets()
	if err != nil {
		t.Fatalf("%v: install busybox-static, as \"make test-vm\" does", err)
	}
	for _, name := range applets { // among them busybox itself
		if name == "busybox" {
			continue
		}
		files = append(files, File{Path: filepath.Join(root, "bin", name), Link: "busybox"})
	}
	return files
}

var busyboxApplets = sync.OnceValues(func() ([]string, error) {
	out, err := exec.Command("/bin/busybox", "--list").Output()
	return strings.Fields(string(out)), err
})

// moduleRoot is the top of this source tree.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := findUp("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// findUp is the nearest directory, from here upwards, that has a file of that name.
func findUp(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no %s here or above", name)
		}
		dir = filepath.Dir(dir)
	}
}

// guestProgram is the guest's first program, compiled once a test run.
var guestProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "buoy-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	gocmd := os.Getenv("GO")
	if gocmd == "" {
		gocmd = "go"
	}
	file := filepath.Join(dir, "guest")
	cmd := exec.Command(gocmd, "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "github.com/buoy-edge/buoy/test/vm/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the guest's program: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})
