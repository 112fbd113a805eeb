package gpu

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMessages(t *testing.T) {
	m, err := readMessage([]byte(`{"ID":1,"Machine":{"Devices":[
		{"UUID":"GPU-1","Memory":-5,"Minor":-9,"Index":0,"PCI":"0000:3b:00.0","Vendor":"acme"},
		{"UUID":"MIG-1","Instance":{"Parent":"GPU-1","Profile":"1g\u0007"}},
		{"UUID":"MIG-2","Instance":{"Parent":"GPU-9"}},
		{"UUID":"GPU-1"},{"UUID":"../../x"},{"UUID":""}],
		"Links":[{"A":"GPU-1","B":"GPU-2"},{"A":"GPU-1","B":"GPU-1"},{"A":"GPU-1","B":"MIG-1","NVLinks":-1},{"A":"GPU-1","B":"MIG-1","Distance":77}]}}`))
	if err != nil || len(m.Machine.Devices) != 5 || len(m.Machine.Links) != 0 {
		t.Fatalf("%+v, %v", m.Machine, err)
	}
	if d := m.Machine.Devices[0]; d.Memory != 0 || d.Minor != -1 || d.Vendor != NVIDIA || d.Broken != "" {
		t.Errorf("%+v", d)
	}
	for _, d := range m.Machine.Devices[2:] {
		if d.UUID != "" || d.Broken == "" {
			t.Errorf("%+v", d)
		}
	}
	m, err = readMessage([]byte(`{"Figures":[{"UUID":"GPU-1","Processes":[{"PID":-1},{"PID":5}]},{"UUID":"x"}]}`))
	if err != nil || len(m.Figures) != 1 || len(m.Figures[0].Processes) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{`{"XID":{"UUID":"x","Code":79}}`, `{"XID":{"UUID":"GPU-1","Code":0}}`} {
		if m, err := readMessage([]byte(bad)); err != nil || m.XID != nil || !m.Changed {
			t.Errorf("%s: %+v, %v", bad, m, err)
		}
	}
	for _, bad := range []string{"", "null x", "[]", `{"ID":-1}`, `{"Machine":{"Devices":[` + strings.Repeat("{},", maxDevices) + `{}]}}`, `{"Figures":[` + strings.Repeat("{},", maxDevices) + `{}]}`} {
		if _, err := readMessage([]byte(bad)); err == nil {
			t.Errorf("%.40s is fine", bad)
		}
	}
}

// FuzzMessage reads what a broken library might make buoy-gpu say, and merges
// it.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"ID":1,"Machine":{"Driver":"550","Devices":[{"UUID":"GPU-1","PCI":"0000:3b:00.0"},{"UUID":"MIG-1","Instance":{"Parent":"GPU-1"}}],"Links":[{"A":"GPU-1","B":"MIG-1"}]}}`))
	f.Add([]byte(`{"Figures":[{"UUID":"GPU-1","Temperature":3}],"XID":{"UUID":"GPU-1","Code":79}}`))
	f.Add([]byte(`{"Machine":{"Devices":[{"Index":-9223372036854775808,"Model":"\ud800"}]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := readMessage(line)
		if err != nil || m.Machine == nil {
			return
		}
		k := kernelView{Loaded: true, Devices: []Device{{UUID: "0000:3b:00.0", PCI: "0000:3b:00.0", Vendor: NVIDIA, Kernel: "nvidia"}}}
		first := merge(k, m.Machine, "", nil)
		seen := map[string]bool{}
		for _, d := range merge(k, m.Machine, "", first.Devices).Devices {
			if d.UUID == "" || seen[d.UUID] || !utf8.ValidString(d.Model) || len(d.Model) > maxText {
				t.Errorf("%q makes %+v", line, d)
			}
			seen[d.UUID] = true
		}
	})
}
