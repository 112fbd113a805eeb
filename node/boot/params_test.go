package boot

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadParams(t *testing.T) {
	got, complaints := ReadParams(`BOOT_IMAGE=/vmlinuz quiet console=ttyS0 BOOTIF=01-52-54-00-aa-bb-07 buoy.controller=https://10.9.0.1:8443 ` +
		`buoy.token="a b" buoy.label=rack=7 buoy.label=row=2 buoy.data=create:/dev/disk/vda buoy.ntp=10.0.0.1 buoy.ntp=fd00::1 buoy.ntp=time.lan buoy.dev card.speed=9` + "\n")
	want := Params{
		Data: Data{Kind: DataDisk, Create: "/dev/disk/vda"}, NTP: []string{"10.0.0.1", "fd00::1", "time.lan"},
		BootIF: net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 7},
		Settings: []Setting{
			{"controller", "https://10.9.0.1:8443"}, {"join-token", "a b"}, {"label", "rack=7"}, {"label", "row=2"}, {"dev", "true"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(complaints) > 0 {
		t.Errorf("complaints %q (-want +got):\n%s", complaints, diff)
	}
	for word, why := range map[string]string{
		"buoy.data=sda": "create:/dev/NAME", "buoy.data": "create:/dev/NAME", "buoy.data=create:": "create:/dev/NAME", "buoy.data=create:/dev/../etc": "create:/dev/NAME",
		"buoy.ntp=http://x": "not a name", `buoy.ntp="a b"`: "not a name",
	} {
		p, complaints := ReadParams("quiet " + word)
		if len(complaints) != 1 || !strings.Contains(complaints[0], why) || strings.HasPrefix(complaints[0], "buoy.") {
			t.Errorf("%s: %q", word, complaints)
		}
		if diff := cmp.Diff(Params{}, p); diff != "" {
			t.Errorf("%s is not passed over: %s", word, diff)
		}
	}
	for word, want := range map[string]DataKind{"": DataAny, "buoy.data=memory": DataMemory, "buoy.data=disk": DataDisk} {
		if p, complaints := ReadParams(word); p.Data != (Data{Kind: want}) || len(complaints) > 0 {
			t.Errorf("%q: %+v, %q", word, p.Data, complaints)
		}
	}
	if p, _ := ReadParams("BOOTIF=01-zz"); p.BootIF != nil {
		t.Errorf("BOOTIF %s", p.BootIF)
	}
}

func FuzzReadParams(f *testing.F) {
	f.Add(`buoy.a="b c" buoy.data=disk BOOTIF=01-52-54-00-aa-bb-07`)
	f.Fuzz(func(t *testing.T, line string) {
		p, _ := ReadParams(line)
		if p.Data.Create != "" && (!strings.HasPrefix(p.Data.Create, "/dev/") || strings.Contains(p.Data.Create, "..")) {
			t.Errorf("a disk is to be made of %q", p.Data.Create)
		}
	})
}
