// Package packages tests what users install: packages of an older and a newer
// version of this tree, on a Debian with systemd.
package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/test/vm"
)

// The versions that the packages say they are.
const (
	older = "0.1.0"
	newer = "0.2.0"
	air   = "0.3.0" // of the bundle for an upgrade over the air
)

const top = "../../.." // of the tree

// build makes packages of a version in a directory, in a tree.
func build(tree, version, dir, tz string, formats ...string) error {
	cmd := exec.Command(filepath.Join(tree, "scripts/package"), formats...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch(), "VERSION=v"+version, "DIST="+dir, "ARCH="+runtime.GOARCH, "TZ="+tz, "ZSTD_CLEVEL=1", "KEY="+filepath.Join(dir, "key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build packages of %s: %w\n%s", version, err, out)
	}
	return nil
}

// epoch is the time of the commit: a copy of the tree does not know it.
func epoch() string {
	cmd := exec.Command("git", "log", "-1", "--format=%ct")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		return "" // scripts/package asks, too, and says what is wrong
	}
	return strings.TrimSpace(string(out))
}

// built is a directory with packages of both versions. It stays, so that the
// next run has less to compile.
var built = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(filepath.Join(top, ".cache/package/test"))
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), keys(dir)); err != nil {
		return dir, err
	}
	return dir, errors.Join(build(top, air, dir, "UTC", "bundle"), build(top, older, dir, "UTC", "deb", "rpm"), build(top, newer, dir, "UTC", "deb", "rpm", "tarball"))
})

// keys makes what signs bundles, and what nodes trust, as docs/operate.md has it.
func keys(dir string) error {
	for _, args := range [][]string{{"genpkey", "-algorithm", "ed25519", "-out", "key"}, {"pkey", "-in", "key", "-pubout", "-out", "key.pem"}} {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make a key: %w\n%s", err, out)
		}
	}
	return nil
}

func dist(t *testing.T) string {
	t.Helper()
	vm.Require(t)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func deb(version string) string    { return "buoy_" + version + "-1_amd64.deb" }
func bundle(version string) string { return "buoy-" + version + "-linux-amd64.bundle" }
func rpm(version string) string    { return "buoy-" + version + "-1.x86_64.rpm" }

// files are those that all packages have.
const files = `
drwxr-xr-x /etc/buoy
-rw-r--r-- /etc/buoy/buoyd.yaml
drwxr-xr-x /etc/buoy/conf.d
-rwxr-xr-x /usr/bin/buoy
-rwxr-xr-x /usr/bin/buoyd
-rw-r--r-- /usr/lib/systemd/system/buoy-halt.service
-rw-r--r-- /usr/lib/systemd/system/buoyd.service
drwxr-xr-x /usr/libexec/buoy
-rwxr-xr-x /usr/libexec/buoy/buoy-flist
-rwxr-xr-x /usr/libexec/buoy/buoy-gpu
-rwxr-xr-x /usr/libexec/buoy/buoy-init
-rwxr-xr-x /usr/libexec/buoy/buoy-reaper
-rwxr-xr-x /usr/libexec/buoy/buoy-shim
-rw-r--r-- /usr/share/bash-completion/completions/buoy
drwxr-xr-x /usr/share/doc/buoy
-rw-r--r-- /usr/share/doc/buoy/LICENSE
-rw-r--r-- /usr/share/doc/buoy/THIRD-PARTY.gz
-rw-r--r-- /usr/share/doc/buoy/changelog.gz
-rw-r--r-- /usr/share/doc/buoy/copyright
-rw-r--r-- /usr/share/doc/buoy/sbom.cdx.json
-rw-r--r-- /usr/share/fish/vendor_completions.d/buoy.fish
-rw-r--r-- /usr/share/man/man1/buoy.1.gz
-rw-r--r-- /usr/share/man/man8/buoyd.8.gz
-rw-r--r-- /usr/share/zsh/site-functions/_buoy
`

// listing is lines of MODE PATH, in the order of paths, as files has them. Shells
// have different names for one directory.
func listing(lines []string) string {
	path := func(line string) string { return line[strings.Index(line, "/"):] }
	for i, line := range lines {
		lines[i] = strings.Replace(line, "/zsh/vendor-completions/", "/zsh/site-functions/", 1)
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(path(a), path(b)) })
	return "\n" + strings.Join(lines, "\n") + "\n"
}

// unpack reads a tar archive whose names begin with prefix.
func unpack(t *testing.T, archive io.Reader, prefix string) (list string, data map[string][]byte) {
	t.Helper()
	var lines []string
	data = map[string][]byte{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return listing(lines), data
		}
		if err != nil {
			t.Fatal(err)
		}
		name := "/" + strings.Trim(strings.TrimPrefix(h.Name, prefix), "/")
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", name, h.Uid, h.Gid)
		}
		if h.Typeflag == tar.TypeDir && !strings.Contains(name, "/buoy") {
			continue // the system's
		}
		if data[name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, h.FileInfo().Mode().String()+" "+name)
	}
}

func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

func TestContents(t *testing.T) {
	t.Parallel()
	dir := dist(t)

	list, data := unpack(t, strings.NewReader(output(t, dir, "dpkg-deb", "--fsys-tarfile", deb(newer))), "./")
	if diff := cmp.Diff(files, list); diff != "" {
		t.Errorf("the .deb (-want +have):\n%s", diff)
	}
	if got := output(t, dir, "dpkg-deb", "--field", deb(newer), "Package", "Version", "Architecture"); got != "Package: buoy\nVersion: 0.2.0-1\nArchitecture: amd64\n" {
		t.Error(got)
	}
	for name, text := range data {
		if !strings.HasPrefix(name, "/usr/bin/") && !strings.HasPrefix(name, "/usr/libexec/") || len(text) == 0 {
			continue
		}
		program, err := elf.NewFile(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		loader := slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if program.Machine != elf.EM_X86_64 || loader != strings.HasSuffix(name, "/buoy-gpu") { // which loads the driver's library
			t.Errorf("%s is for %v, and that it wants a loader is %v", name, program.Machine, loader)
		}
	}
	for name, want := range map[string]string{
		"/usr/share/man/man1/buoy.1.gz":      "buoy app apply",
		"/usr/share/man/man8/buoyd.8.gz":     `\-\-flist\-cache`,
		"/usr/share/doc/buoy/THIRD-PARTY.gz": "github.com/opencontainers/runc v",
	} {
		z, err := gzip.NewReader(bytes.NewReader(data[name]))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if text, err := io.ReadAll(z); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not speak of %q, %v", name, want, err)
		}
	}

	for _, want := range []string{"pkg:golang/github.com/opencontainers/runc@v", "pkg:deb/debian/libseccomp@", "pkg:deb/debian/glibc@", "pkg:golang/std@1."} {
		if !strings.Contains(string(data["/usr/share/doc/buoy/sbom.cdx.json"]), want) {
			t.Errorf("the bill of materials does not speak of %s", want)
		}
	}

	lines := strings.Split(strings.TrimSpace(output(t, dir, "rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\n]", rpm(newer))), "\n")
	if diff := cmp.Diff(files, listing(lines)); diff != "" {
		t.Errorf("the .rpm (-want +have):\n%s", diff)
	}
	if got := output(t, dir, "rpm", "-qpc", rpm(newer)); got != "/etc/buoy/buoyd.yaml\n" {
		t.Errorf("configuration files of the .rpm: %s", got)
	}

	name := "buoy-" + newer + "-linux-amd64"
	packed, err := os.Open(filepath.Join(dir, name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	list, _ = unpack(t, z, name)
	if diff := cmp.Diff(strings.Replace(files, "drwxr-xr-x /etc/buoy/conf.d\n", "", 1), strings.Replace(list, "drwxr-xr-x /\n", "", 1)); diff != "" {
		t.Errorf("the tarball (-want +have):\n%s", diff)
	}

	if got := output(t, dir, "sha256sum", "--check", "SHA256SUMS"); strings.Count(got, ": OK\n") != 9 {
		t.Error(got)
	}
}

// TestReproducible: the same commit gives the same bytes, to another builder, in
// another directory, too. What it compiles may come from this one's cache;
// "make reproducible" has one of its own.
func TestReproducible(t *testing.T) {
	t.Parallel()
	dir, again, tree := dist(t), t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	const copied = `mkdir -p "$1/.cache" && git ls-files -z | tar --create --null --files-from - | tar --extract --directory "$1" && ln -s "$PWD/.cache/tools" "$1/.cache/tools"`
	output(t, top, "sh", "-c", copied, "sh", tree)
	if err := build(tree, newer, again, "Asia/Tokyo", "deb", "rpm", "tarball"); err != nil {
		t.Fatal(err)
	}
	want, err1 := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	got, err2 := os.ReadFile(filepath.Join(again, "SHA256SUMS"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(got)) {
		if !strings.Contains(string(want), line) {
			t.Errorf("built again it is another: %s; before:\n%s", line, want)
		}
	}
}
