package boot

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0, 0, n} }

func TestReadNICs(t *testing.T) {
	dir := t.TempDir()
	for name, files := range map[string]map[string]string{
		"eth10": {"address": "52:54:00:00:00:10", "device/vendor": "x", "carrier": "0"},
		"eth9":  {"address": "52:54:00:00:00:09", "device/vendor": "x", "carrier": "1"},
		"buoy0": {"address": "52:54:00:00:00:11"},
		"lo":    {"address": "00:00:00:00:00:00"},
		"ib0":   {"address": "80:00:00:48:fe:80:00:00:00:00:00:00:52:54:00:00:00:00:00:11", "device/vendor": "x"},
		"wwan0": {"address": "", "device/vendor": "x"},
	} {
		for file, text := range files {
			file = filepath.Join(dir, name, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := readNICs(dir)
	want := []nic{{"eth9", mac(9), true}, {"eth10", mac(0x10), false}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(nic{})); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if id := got[0].id(); id != "525400000009" {
		t.Errorf("a node is called %s", id)
	}
}

func TestChooseNIC(t *testing.T) {
	one, two, cable := nic{"eth0", mac(1), false}, nic{"eth1", mac(2), false}, nic{"eth2", mac(3), true}
	for what, c := range map[string]struct {
		choice choice
		all    []nic
		want   string
		sure   bool
	}{
		"asked by name":                     {choice{asked: "eth1", booted: mac(1)}, []nic{one, two, cable}, "eth1", true},
		"asked by MAC":                      {choice{asked: "52:54:00:00:00:02"}, []nic{one, two, cable}, "eth1", true},
		"booted":                            {choice{booted: mac(2), before: mac(1)}, []nic{one, two, cable}, "eth1", true},
		"the one of before":                 {choice{before: mac(2)}, []nic{one, two, cable}, "eth1", true},
		"with a cable":                      {choice{}, []nic{one, two, cable}, "eth2", true},
		"with a cable, others may come":     {choice{before: mac(9)}, []nic{one, two, cable}, "eth2", false},
		"no cable yet":                      {choice{}, []nic{one, two}, "eth0", false},
		"none":                              {choice{}, nil, "", false},
		"asked for one that is not there":   {choice{asked: "eth7"}, []nic{one}, "", false},
		"asked for a MAC that is not there": {choice{asked: "52:54:00:00:00:09"}, []nic{one}, "", false},
	} {
		got, sure, err := c.choice.choose(c.all)
		if got.name != c.want || sure != c.sure || (c.want == "") != errors.Is(err, errs.NotFound) {
			t.Errorf("%s: %q, sure %v, %v", what, got.name, sure, err)
		}
	}
	if _, _, err := (choice{asked: "eth7"}).choose([]nic{one, two}); !strings.Contains(err.Error(), "eth0 52:54:00:00:00:01, eth1") {
		t.Errorf("it does not say which there are: %v", err)
	}
}

// TestNodeWithoutNIC: a node whose NIC has died is the same node.
func TestNodeWithoutNIC(t *testing.T) {
	m := &Machine{cfg: MachineConfig{Dir: t.TempDir()}}
	if id := m.NodeID(); id != "" {
		t.Errorf("one that never had any is called %q", id)
	}
	m.nic = nic{name: "eth0", mac: mac(7)}
	if err := m.keepUplink(m.nic); err != nil {
		t.Fatal(err)
	}
	with := m.NodeID()
	m.nic = nic{}
	if id := m.NodeID(); id != with || id != "525400000007" {
		t.Errorf("it was called %q, and is called %q", with, id)
	}
}
