package pxe

import (
	"fmt"
	"net/netip"
	"strings"
)

// introduction is the script for who does not say who it is: iPXE knows, and
// asks again. DHCP servers that can name only one file for all name this one.
const introduction = "#!ipxe\nchain boot.ipxe?mac=${netX/mac:hexraw}&arch=${buildarch}\n"

// buildArch is what iPXE calls architectures. That for BIOS is a 32-bit
// program, and starts kernels of 64 bits.
var buildArch = map[string]string{"i386": "amd64", "x86_64": "amd64", "amd64": "amd64", "arm64": "arm64"}

// script has iPXE load a kernel and start it. A machine for which that fails
// begins again, as the server may be restarting, or a cable may be loose.
//
// UEFI kernels find an initramfs by "initrd="; those of BIOS do not mind. The
// secret comes first in memory, since only the end of an archive is padded.
func script(at netip.AddrPort, id mac, arch string, params []string, secret bool) string {
	base := "http://" + at.String()
	names, more := "initrd=initrd.img", ""
	if secret {
		names = "initrd=secret.img " + names
		more = fmt.Sprintf("initrd --name secret.img %s/secret.img?mac=%s || goto failed\n", base, id.id())
	}
	// BOOTIF is SYSLINUX's way to say which NIC it was, with the type of its network.
	args := append([]string{names, "BOOTIF=01-" + strings.ReplaceAll(id.String(), ":", "-")}, params...)
	return fmt.Sprintf(`#!ipxe
kernel %[1]s/%[2]s/vmlinuz %[3]s || goto failed
%[4]sinitrd --name initrd.img %[1]s/%[2]s/initrd.img || goto failed
boot || goto failed
:failed
echo buoy cannot be loaded; again in 10 seconds
sleep 10
reboot
`, base, arch, strings.Join(args, " "), more)
}
