package pxe

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

var (
	at   = netip.MustParseAddrPort("10.9.0.1:8067")
	ship = mac{0x52, 0x54, 0, 0xaa, 0xbb, 7}
)

// discover is what firmware broadcasts.
func discover(class string, arch iana.Arch, edit ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: ship[:], TransactionID: dhcpv4.TransactionID{1, 2, 3, 4},
		Options: dhcpv4.Options{},
	}
	m.SetBroadcast()
	m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeDiscover))
	m.UpdateOption(dhcpv4.OptClassIdentifier(class))
	m.UpdateOption(dhcpv4.OptClientArch(arch))
	for _, e := range edit {
		e(m)
	}
	return m
}

const biosClass, uefiClass = "PXEClient:Arch:00000:UNDI:002001", "PXEClient:Arch:00007:UNDI:003016"

// isIPXE makes it a question of iPXE's, with these features.
func isIPXE(features ...byte) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) {
		m.UpdateOption(dhcpv4.OptGeneric(optionUserClass, []byte("iPXE")))
		m.UpdateOption(dhcpv4.OptGeneric(optionIPXE, features))
	}
}

func TestReadClient(t *testing.T) {
	without := func(code dhcpv4.OptionCode) dhcpv4.Modifier {
		return func(m *dhcpv4.DHCPv4) { m.Options.Del(code) }
	}
	from := func(hw ...byte) dhcpv4.Modifier {
		return func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = net.HardwareAddr(hw) }
	}
	const script = "http://10.9.0.1:8067/boot.ipxe?mac=525400aabb07&arch="
	for _, c := range []struct {
		name string
		m    *dhcpv4.DHCPv4
		file string // "": it is not for us
		err  bool
	}{
		{"BIOS", discover(biosClass, iana.INTEL_X86PC), "undionly.kpxe", false},
		{"UEFI", discover(uefiClass, iana.EFI_X86_64), "snponly.efi", false},
		{"UEFI that says EFI BC", discover(uefiClass, iana.EFI_BC), "snponly.efi", false},
		{"UEFI on arm64", discover("PXEClient:Arch:00011:UNDI:003000", iana.EFI_ARM64), "snponly-arm64.efi", false},
		{"UEFI by HTTP", discover("HTTPClient:Arch:00016:UNDI:003001", iana.EFI_X86_64_HTTP), "http://10.9.0.1:8067/snponly.efi", false},
		{"UEFI by HTTP on arm64", discover("HTTPClient", iana.EFI_ARM64_HTTP), "http://10.9.0.1:8067/snponly-arm64.efi", false},
		{"iPXE", discover(biosClass, iana.INTEL_X86PC, isIPXE(33, 1, 1, 19, 1, 1)), script + "amd64", false},
		{"iPXE, length first", discover(uefiClass, iana.EFI_ARM64, isIPXE(19, 1, 1), dhcpv4.WithUserClass("iPXE", true)), script + "arm64", false},
		{"iPXE without HTTP", discover(biosClass, iana.INTEL_X86PC, isIPXE(33, 1, 1, 19, 1, 0)), "undionly.kpxe", false},
		{"iPXE, cut short", discover(biosClass, iana.INTEL_X86PC, isIPXE(19, 1)), "undionly.kpxe", false},
		{"iPXE, of length 0", discover(biosClass, iana.INTEL_X86PC, isIPXE(19, 0, 1)), "undionly.kpxe", false},
		{"another user class", discover(biosClass, iana.INTEL_X86PC, isIPXE(19, 1, 1), dhcpv4.WithUserClass("gPXE", false)), "undionly.kpxe", false},
		{"second architecture", discover(uefiClass, iana.EFI_IA32, dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_IA32, iana.EFI_X86_64))), "snponly.efi", false},

		{"another vendor", discover("MSFT 5.0", iana.INTEL_X86PC), "", false},
		{"no vendor", discover("", iana.INTEL_X86PC), "", false},
		{"a lower-case one", discover("pxeclient", iana.INTEL_X86PC), "", false},
		{"an answer", discover(biosClass, iana.INTEL_X86PC, func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply }), "", false},
		{"InfiniBand", discover(biosClass, iana.INTEL_X86PC, dhcpv4.WithHWType(iana.HWTypeInfiniband)), "", false},
		{"a group", discover(biosClass, iana.INTEL_X86PC, from(1, 0, 0x5e, 0, 0, 1)), "", false},
		{"nobody", discover(biosClass, iana.INTEL_X86PC, from(0, 0, 0, 0, 0, 0)), "", false},
		{"a short MAC", discover(biosClass, iana.INTEL_X86PC, from(2, 0, 0)), "", false},

		{"32-bit UEFI", discover(uefiClass, iana.EFI_IA32), "", true},
		{"no architecture", discover(uefiClass, 0, without(dhcpv4.OptionClientSystemArchitectureType)), "", true},
		{"half an architecture", discover(uefiClass, 0, dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{7})), "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := dhcpv4.FromBytes(c.m.ToBytes())
			if err != nil {
				t.Fatal(err)
			}
			got, ok, err := readClient(m)
			switch {
			case (err != nil) != c.err || ok != (c.file != "" || c.err):
				t.Fatalf("ok %v, %v", ok, err)
			case c.file != "" && (got.bootFile(at) != c.file || got.mac != ship):
				t.Errorf("%s is told to load %s, want %s", got.mac, got.bootFile(at), c.file)
			}
		})
	}
}

func TestProxyAnswer(t *testing.T) {
	uuid := append([]byte{0}, bytes.Repeat([]byte{7}, 16)...)
	for _, c := range []struct {
		name   string
		m      *dhcpv4.DHCPv4
		class  string
		vendor []byte
		option string // 67
	}{
		{"BIOS", discover(biosClass, iana.INTEL_X86PC), "PXEClient", []byte{6, 1, 8, 255}, ""},
		{"UEFI", discover(uefiClass, iana.EFI_X86_64), "PXEClient", nil, ""},
		{"iPXE", discover(uefiClass, iana.EFI_X86_64, isIPXE(19, 1, 1)), "PXEClient", []byte{6, 1, 8, 255}, ""},
		{"HTTP", discover("HTTPClient", iana.EFI_X86_64_HTTP), "HTTPClient", nil, "http://10.9.0.1:8067/snponly.efi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.m.UpdateOption(dhcpv4.OptGeneric(optionMachineUUID, uuid))
			who, ok, err := readClient(c.m)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			r, err := dhcpv4.FromBytes(who.proxyAnswer(c.m, dhcpv4.MessageTypeOffer, at).ToBytes())
			if err != nil {
				t.Fatal(err)
			}
			if !r.YourIPAddr.IsUnspecified() || r.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
				t.Errorf("it gives an address: %s", r.Summary())
			}
			if r.OpCode != dhcpv4.OpcodeBootReply || r.TransactionID != c.m.TransactionID || r.ClientHWAddr.String() != ship.String() || !r.IsBroadcast() {
				t.Errorf("it is no answer: %s", r.Summary())
			}
			if r.ServerIPAddr.String() != "10.9.0.1" || r.ServerIdentifier().String() != "10.9.0.1" || r.BootFileName != who.bootFile(at) {
				t.Errorf("where to boot from: %s", r.Summary())
			}
			if r.ClassIdentifier() != c.class || !bytes.Equal(r.Options.Get(optionVendor), c.vendor) || string(r.Options.Get(optionBootFile)) != c.option {
				t.Errorf("options: %s", r.Summary())
			}
			if !bytes.Equal(r.Options.Get(optionMachineUUID), uuid) {
				t.Errorf("the machine's UUID is not given back: %s", r.Summary())
			}
		})
	}
}

// FuzzClient has packets of strangers.
func FuzzClient(f *testing.F) {
	for _, m := range []*dhcpv4.DHCPv4{
		discover(biosClass, iana.INTEL_X86PC), discover(uefiClass, iana.EFI_X86_64, isIPXE(19, 1, 1)), discover("HTTPClient", iana.EFI_X86_64_HTTP),
	} {
		b := m.ToBytes()
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		c, ok, err := readClient(m)
		if !ok || err != nil {
			return
		}
		r, err := dhcpv4.FromBytes(c.proxyAnswer(m, dhcpv4.MessageTypeOffer, at).ToBytes())
		if err != nil || r.BootFileName != c.bootFile(at) || r.BootFileName == "" {
			t.Errorf("the answer to %s cannot be read: %v", m.Summary(), err)
		}
	})
}

func TestReadMAC(t *testing.T) {
	for _, s := range []string{"525400aabb07", "52:54:00:AA:bb:07", "52-54-00-aa-bb-07"} {
		if m, err := readMAC(s); err != nil || m != ship || m.id() != "525400aabb07" {
			t.Errorf("%s: %v, %v", s, m, err)
		}
	}
	for _, s := range []string{
		"", "${net0/mac:hexraw}", "5254", "525400aabb0g", "52:54:00:aa:bb", "52:54:00:aa:bb:07:08:09", "ff:ff:ff:ff:ff:ff", "000000000000", "../../../etc",
	} {
		if m, err := readMAC(s); err == nil {
			t.Errorf("%q is %v", s, m)
		}
	}
}
