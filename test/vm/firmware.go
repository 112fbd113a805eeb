package vm

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// BootFiles is what a machine boots from a wire to become a guest: its kernel and
// its first file system, as files of the machine that serves them.
func BootFiles(t testing.TB, dir string, cfg Config) []File {
	t.Helper()
	Require(t)
	k, err := findKernel()
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, cfg: cfg, kernel: k}
	if m.initrd, err = scratch(t); err != nil {
		t.Fatal(err)
	}
	if err := m.writeInitrd(); err != nil {
		t.Fatalf("initramfs of %s: %v", cfg.Name, err)
	}
	var initrd bytes.Buffer
	z, err := gzip.NewWriterLevel(&initrd, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.initrd.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, m.initrd); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return []File{
		{Path: filepath.Join(dir, "vmlinuz"), From: k.Image},
		{Path: filepath.Join(dir, "initrd.img"), Data: initrd.Bytes()},
	}
}

// unpacked is where the files of a Debian package lie that is not installed.
func unpacked(t testing.TB, name string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(moduleRoot(t), "scripts", "unpacked"), name)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fetch %s: %v: %s", name, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// IPXE is the builds of iPXE that firmware loads, as files of the machine that
// serves them.
func IPXE(t testing.TB, dir string) []File {
	t.Helper()
	from := unpacked(t, "ipxe")
	return []File{
		{Path: filepath.Join(dir, "undionly.kpxe"), From: filepath.Join(from, "usr/lib/ipxe/undionly.kpxe")},
		{Path: filepath.Join(dir, "snponly.efi"), From: filepath.Join(from, "usr/lib/ipxe/snponly.efi")},
		{Path: filepath.Join(dir, "ipxe.efi"), From: filepath.Join(from, "boot/ipxe.efi")},
	}
}
