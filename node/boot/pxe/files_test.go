package pxe

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "amd64/vmlinuz", "a kernel")
	put(t, dir, "ipxe/snponly.efi", "iPXE")
	put(t, dir, "secret", "hush")
	f := files{dir}
	if err := f.check(); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a kernel without initramfs: %v", err)
	}
	put(t, dir, "amd64/initrd.img", "an initramfs")
	if err := f.check(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"snponly.efi": "iPXE", "/snponly.efi": "iPXE", `\snponly.efi`: "iPXE", "amd64/vmlinuz": "a kernel", "/amd64/initrd.img": "an initramfs", `\amd64\vmlinuz`: "a kernel",
		"": "", "/": "", "secret": "", "../secret": "", "amd64/../secret": "", "/../../../../etc/passwd": "", `..\secret`: "", "/etc/passwd": "",
		"amd64": "", "amd64/": "", "amd64/secret": "", "arm64/vmlinuz": "", "undionly.kpxe": "", "ipxe/snponly.efi": "", "snponly.efi\x00": "", "./snponly.efi": "",
	} {
		file, info, err := f.open(name)
		if want == "" {
			if err == nil {
				t.Errorf("%q is given", name)
				file.Close()
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if info.Size() != int64(len(want)) {
			t.Errorf("%q has %d bytes", name, info.Size())
		}
		file.Close()
	}
	if err := os.Remove(filepath.Join(dir, "ipxe/snponly.efi")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "ipxe/snponly.efi"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.open("snponly.efi"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a directory: %v", err)
	}
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
