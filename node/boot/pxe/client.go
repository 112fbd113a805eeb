package pxe

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/buoy-edge/buoy/internal/errs"
)

// mac is the address of a machine's NIC.
type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// id is the MAC as ids of nodes have it.
func (m mac) id() string { return fmt.Sprintf("%x", m[:]) }

// readMAC reads either spelling.
func readMAC(s string) (m mac, err error) {
	if len(s) == 2*len(m) && !strings.ContainsAny(s, ":-.") {
		s = strings.Join([]string{s[0:2], s[2:4], s[4:6], s[6:8], s[8:10], s[10:12]}, ":")
	}
	hw, err := net.ParseMAC(s)
	m, ok := macOf(hw)
	if err != nil || !ok {
		return m, errs.E(errs.Invalid, "%.100q is not the MAC of a NIC", s)
	}
	return m, nil
}

// macOf takes what one machine can have: no broadcast, no multicast, not nothing.
func macOf(hw net.HardwareAddr) (m mac, ok bool) {
	if len(hw) != len(m) || hw[0]&1 != 0 || bytes.Equal(hw, m[:]) {
		return m, false
	}
	return mac(hw), true
}

// stage is how far a machine has got.
type stage int

const (
	firmware stage = iota // PXE in the firmware, which wants iPXE by TFTP
	web                   // firmware that wants it by HTTP
	ipxe                  // iPXE, which wants its script
)

func (s stage) String() string { return [...]string{"PXE", "HTTP", "iPXE"}[s] }

// client is a machine that asks by DHCP how to boot.
type client struct {
	mac   mac
	stage stage
	arch  string // as Go has it
	bios  bool
}

const (
	pxeClass  = "PXEClient"
	httpClass = "HTTPClient"
)

// architectures are those of option 93 that buoy runs on. Many UEFI machines
// with x86-64 call themselves EFI BC (errata of RFC 4578).
var architectures = map[iana.Arch]client{
	iana.INTEL_X86PC:     {arch: "amd64", bios: true},
	iana.EFI_X86_64:      {arch: "amd64"},
	iana.EFI_BC:          {arch: "amd64"},
	iana.EFI_ARM64:       {arch: "arm64"},
	iana.EFI_X86_64_HTTP: {arch: "amd64"},
	iana.EFI_BC_HTTP:     {arch: "amd64"},
	iana.EFI_ARM64_HTTP:  {arch: "arm64"},
}

// readClient reads who asks. It is not ok if that is no machine that boots; an
// error says that it is one which cannot.
func readClient(m *dhcpv4.DHCPv4) (c client, ok bool, err error) {
	class := m.ClassIdentifier()
	at, isPXE := firmware, strings.HasPrefix(class, pxeClass)
	switch {
	case strings.HasPrefix(class, httpClass):
		at = web
	case isPXE && speaksHTTP(m):
		at = ipxe
	case !isPXE:
		return c, false, nil
	}
	if m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != iana.HWTypeEthernet {
		return c, false, nil
	}
	from, ok := macOf(m.ClientHWAddr)
	if !ok {
		return c, false, nil
	}
	asked := m.ClientArch()
	for _, a := range asked {
		if c, ok = architectures[a]; ok {
			c.mac, c.stage = from, at
			return c, true, nil
		}
	}
	return client{mac: from, stage: at}, true, fmt.Errorf("its architecture is %v, and buoy is for x86-64 (BIOS or UEFI) and arm64 (UEFI)", asked)
}

const (
	optionUserClass   = dhcpv4.GenericOptionCode(77)
	optionIPXE        = dhcpv4.GenericOptionCode(175)
	optionBootFile    = dhcpv4.GenericOptionCode(67)
	optionVendor      = dhcpv4.GenericOptionCode(43)
	optionMachineUUID = dhcpv4.GenericOptionCode(97)
)

// speaksHTTP says whether it is an iPXE that can load by HTTP. One in a NIC's
// ROM may be unable to, and is treated as the firmware that it is.
func speaksHTTP(m *dhcpv4.DHCPv4) bool {
	const http = 19
	class := m.Options.Get(optionUserClass)
	if !bytes.Equal(class, []byte("iPXE")) && !bytes.Equal(class, []byte("\x04iPXE")) { // RFC 3004 has a length
		return false
	}
	for b := m.Options.Get(optionIPXE); len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if b[0] == http {
			return b[1] > 0 && b[2] != 0
		}
	}
	return false
}

// bootFile is what the machine is told to load.
func (c client) bootFile(at netip.AddrPort) string {
	switch c.stage {
	case ipxe:
		return fmt.Sprintf("http://%s/boot.ipxe?mac=%s&arch=%s", at, c.mac.id(), c.arch)
	case web:
		return fmt.Sprintf("http://%s/%s", at, c.loader())
	default:
		return c.loader()
	}
}

// loader is the iPXE for the machine.
func (c client) loader() string {
	switch {
	case c.bios:
		return "undionly.kpxe"
	case c.arch == "arm64":
		return "snponly-arm64.efi"
	}
	return "snponly.efi"
}

// fill writes into an answer where to boot from.
func (c client) fill(r *dhcpv4.DHCPv4, at netip.AddrPort) {
	r.ServerIPAddr = at.Addr().AsSlice()
	r.BootFileName = c.bootFile(at)
	if c.stage == web {
		r.UpdateOption(dhcpv4.OptClassIdentifier(httpClass))
		r.UpdateOption(dhcpv4.OptGeneric(optionBootFile, []byte(r.BootFileName)))
	}
}

// proxyAnswer is what a ProxyDHCP server says (PXE 2.1, 2.2.3): no address, but
// where to boot from.
func (c client) proxyAnswer(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, at netip.AddrPort) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{Options: dhcpv4.Options{}}
	dhcpv4.WithReply(m)(r)
	r.ClientIPAddr = m.ClientIPAddr
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(at.Addr().AsSlice()))
	r.UpdateOption(dhcpv4.OptClassIdentifier(pxeClass))
	if id := m.Options.Get(optionMachineUUID); id != nil {
		r.UpdateOption(dhcpv4.OptGeneric(optionMachineUUID, bytes.Clone(id)))
	}
	if c.bios || c.stage == ipxe {
		// PXE_DISCOVERY_CONTROL: no menu and no discovery, but the file named
		// here. Some UEFI drop offers that have it; without it they ask again
		// at port 4011.
		r.UpdateOption(dhcpv4.OptGeneric(optionVendor, []byte{6, 1, 8, 255}))
	}
	c.fill(r, at)
	return r
}
