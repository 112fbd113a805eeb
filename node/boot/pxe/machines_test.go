package pxe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMachines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machines")
	write := func(text string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(file, then, then); err != nil {
			t.Fatal(err)
		}
	}
	write(`# the fleet
52:54:00:aa:bb:07  buoy.labels=rack=7 console=ttyS0,115200n8  # quay 7
525400aabb08
`, time.Hour)
	m, err := newMachines(file, []string{"quiet"})
	if err != nil {
		t.Fatal(err)
	}
	of := func(id mac) (string, bool) {
		t.Helper()
		params, ok, err := m.of(id)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(params, " "), ok
	}
	other, stranger := ship, ship
	other[5], stranger[5] = 8, 9
	if got, ok := of(ship); !ok || got != "quiet buoy.labels=rack=7 console=ttyS0,115200n8" {
		t.Errorf("listed: %q, %v", got, ok)
	}
	if got, ok := of(other); !ok || got != "quiet" {
		t.Errorf("listed without parameters: %q, %v", got, ok)
	}
	if _, ok := of(stranger); ok {
		t.Error("one that is not listed is booted")
	}

	write("* buoy.guest=1\n", time.Minute)
	if got, ok := of(stranger); !ok || got != "quiet buoy.guest=1" {
		t.Errorf("anyone: %q, %v", got, ok)
	}

	write("quay seven\n", 0)
	if got, ok, err := m.of(stranger); !ok || err == nil || strings.Join(got, " ") != "quiet buoy.guest=1" {
		t.Errorf("a file that is wrong now: %q, %v, %v", got, ok, err)
	}
	if _, err := newMachines(file, nil); err == nil || !strings.Contains(err.Error(), file+`: line 1: "quay" is not the MAC of a NIC`) {
		t.Errorf("a file that is wrong at once: %v", err)
	}
	if _, err := newMachines(file+"x", nil); err == nil {
		t.Error("a file that is not there passes")
	}

	m, err = newMachines("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := of(stranger); !ok || got != "" {
		t.Errorf("without a list: %q, %v", got, ok)
	}
}

func TestParseMachines(t *testing.T) {
	got, err := parseMachines("\n  # nothing\n52-54-00-AA-BB-07 a=1 b #c=2\n*\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[mac][]string{ship: {"a=1", "b"}, anyone: {}}, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"52:54:00:aa:bb":                         "line 1: \"52:54:00:aa:bb\" is not the MAC of a NIC",
		"525400aabb07\n52:54:00:aa:bb:07 a":      "line 2: 52:54:00:aa:bb:07 is listed above already",
		"000000000000 a":                         "is not the MAC of a NIC",
		"* a\n* b":                               "line 2: * is listed above already",
		"525400aabb07 a=${net0/ip}":              "cannot be a parameter",
		"525400aabb07 ok a=\"b":                  "cannot be a parameter",
		"525400aabb07 a || b":                    "cannot be a parameter",
		"525400aabb07 grüße":                     "cannot be a parameter",
		"525400aabb07 a\x00b":                    "cannot be a parameter",
		"525400aabb07 " + `C:\boot`:              "cannot be a parameter",
		"* ok\n525400aabb07 a && reboot # later": "line 2",
	} {
		if _, err := parseMachines(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestParametersThatAreTooLong(t *testing.T) {
	long := strings.Repeat("x", maxParams-4)
	if _, err := newMachines("", []string{long, "abc"}); err != nil {
		t.Errorf("just short enough: %v", err)
	}
	if _, err := newMachines("", []string{long, "abcd"}); err == nil {
		t.Error("too long, and passes")
	}
	file := filepath.Join(t.TempDir(), "machines")
	if err := os.WriteFile(file, []byte("525400aabb07 abcd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newMachines(file, []string{long}); err == nil || !strings.Contains(err.Error(), "machine 52:54:00:aa:bb:07: ") {
		t.Errorf("both together are too long: %v", err)
	}
}

func TestScript(t *testing.T) {
	want := `#!ipxe
kernel http://10.9.0.1:8067/amd64/vmlinuz initrd=secret.img initrd=initrd.img BOOTIF=01-52-54-00-aa-bb-07 quiet buoy.controller=http://10.9.0.1:8080 || goto failed
initrd --name secret.img http://10.9.0.1:8067/secret.img?mac=525400aabb07 || goto failed
initrd --name initrd.img http://10.9.0.1:8067/amd64/initrd.img || goto failed
boot || goto failed
:failed
echo buoy cannot be loaded; again in 10 seconds
sleep 10
reboot
`
	got := script(at, ship, "amd64", []string{"quiet", "buoy.controller=http://10.9.0.1:8080"}, true)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := script(at, ship, "arm64", nil, false); strings.Contains(got, "secret") || !strings.Contains(got, "/arm64/vmlinuz initrd=initrd.img BOOTIF") {
		t.Errorf("without a secret: %s", got)
	}
	const longest = "http://255.255.255.255:65535/boot.ipxe?mac=525400aabb07&arch=amd64"
	if len(longest) > 127 { // what the header of DHCP holds
		t.Error("names of scripts are too long")
	}
}
