package kmod

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// object is a module's file that has nothing but facts.
func object(facts ...string) []byte {
	const headers, names = 64, "\x00.modinfo\x00.shstrtab\x00"
	info := strings.Join(facts, "\x00") + "\x00"
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	table := uint64(headers + len(info) + len(names))
	for _, v := range []any{
		uint16(1), uint16(62), uint32(1), uint64(0), uint64(0), table, uint32(0),
		uint16(64), uint16(0), uint16(0), uint16(64), uint16(3), uint16(2),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v) // a buffer takes all
	}
	b.WriteString(info + names)
	section := func(name, kind uint32, offset, size int) {
		for _, v := range []any{name, kind, uint64(0), uint64(0), uint64(offset), uint64(size), uint64(0), uint64(1), uint64(0)} {
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	section(0, 0, 0, 0)
	section(1, 1, headers, len(info))
	section(10, 3, headers+len(info), len(names))
	return b.Bytes()
}

func TestRead(t *testing.T) {
	got, err := Read(object("license=GPL", "depends=libcrc32c,nf-tables", "softdep=pre: crc32c  post: other", "alias=pci:v1*", "alias=fs-x", "firmware=a/b.bin"))
	want := Facts{Depends: []string{"libcrc32c", "nf_tables"}, Before: []string{"crc32c"}, Aliases: []string{"pci:v1*", "fs-x"}, Firmware: []string{"a/b.bin"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := Read([]byte("#!/bin/sh\n")); err == nil {
		t.Error("a script is a module")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(object("depends=a", "softdep=pre:"))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = Read(raw) })
}

func TestName(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/net/bridge/br_netfilter.ko": "br_netfilter", "x/virtio-rng.ko": "virtio_rng", "x/8021q.ko.xz": "8021q", "modules.dep": "", "x.kobold": "",
	} {
		if got, ok := Name(file); ok != (want != "") || ok && got != want {
			t.Errorf("%s is module %q, %v", file, got, ok)
		}
	}
}

// TestIndex makes a tree and what a machine that boots gets of it.
func TestIndex(t *testing.T) {
	dir := t.TempDir()
	put := func(file string, data []byte) {
		t.Helper()
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("boot/vmlinuz-1.0", nil)
	put("lib/modules/1.0/modules.builtin", []byte("kernel/lib/crc.ko\n"))
	put("lib/modules/1.0/kernel/net/card.ko", object("depends=bus-core,crc", "softdep=pre: phy gone", "alias=pci:v00001AF4d*sv*", "alias=usb:v1p[0-9]*", "alias=acpi*:PNP0C0C:*"))
	put("lib/modules/1.0/kernel/net/phy.ko", object("depends="))
	put("lib/modules/1.0/kernel/bus/bus-core.ko", object("alias=pci:v0000*"))
	put("lib/modules/1.0/kernel/sound/noise.ko", object("alias=pci:v00001AF4d*"))
	tree, err := OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := tree.Closure(tree.Below("kernel/net"))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range chosen {
		order = append(order, m.Name)
	}
	if diff := cmp.Diff([]string{"phy", "bus_core", "card"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if _, err := tree.Closure([]string{"nothing"}); err == nil || !strings.Contains(err.Error(), "1.0 has no module nothing") {
		t.Errorf("a module that is not there: %v", err)
	}

	to := t.TempDir()
	for name, text := range Depmod(chosen) {
		if err := os.WriteFile(filepath.Join(to, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "modules.builtin"), []byte("kernel/lib/crc.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	x, err := Open(to, "quiet card.speed=9 console=ttyS0 card.duplex=1 plain")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"card": {"card"}, "bus-core": {"bus_core"}, "pci:v00001AF4d00001000sv0": {"bus_core", "card"}, "pci:v00008086d1": {"bus_core"},
		"usb:v1p7x": {"card"}, "usb:v1px": nil, "acpi:PNP0C0C:": {"card"}, "acpi:LNXCPU:": nil, "crc": nil, "noise": nil, "": nil,
	} {
		got := x.Find(name)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff([]string{"bus_core"}, x.modules["card"].depends); diff != "" {
		t.Errorf("depends (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"phy", "gone"}, x.modules["card"].before); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	if got := strings.TrimSpace(x.params["card"]); got != "speed=9 duplex=1" {
		t.Errorf("parameters %q", got)
	}
	if err := x.Load("crc"); err != nil {
		t.Errorf("what is part of the kernel: %v", err)
	}
	if err := x.Load("noise"); err == nil || !strings.Contains(err.Error(), "load module noise") {
		t.Errorf("what is not in the image: %v", err)
	}
}
