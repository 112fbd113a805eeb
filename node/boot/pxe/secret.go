package pxe

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// secretImage is an initramfs that has a machine's join token in a file of
// buoyd's configuration, readable to root. On the kernel's command line each
// container of the machine could read it.
func secretImage(token string) []byte {
	const dir, file = 0o040755, 0o100600
	var b bytes.Buffer
	entry := func(ino int, name string, mode uint32, data string) {
		// Inode, mode, uid, gid, links, mtime, size, device, special device, name's size, checksum.
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad(&b, 4)
		b.WriteString(data)
		pad(&b, 4)
	}
	above := ""
	for i, part := range strings.Split(secretDir, "/") {
		above = strings.TrimPrefix(above+"/"+part, "/")
		entry(1+i, above, dir, "")
	}
	entry(10, secretDir+"/boot.yaml", file, fmt.Sprintf("# from the machine that booted this one\njoin-token: %q\n", token))
	entry(11, "TRAILER!!!", 0, "")
	pad(&b, 512)
	return b.Bytes()
}

// secretDir is where buoyd looks for parts of its configuration.
const secretDir = "etc/buoy/conf.d"

func pad(b *bytes.Buffer, align int) {
	b.Write(make([]byte, (align-b.Len()%align)%align))
}

// neighbour says which MAC an address has on a link, by the kernel's table as
// /proc/net/arp shows it.
func neighbour(table string, link string, addr netip.Addr) (m mac, ok bool) {
	const complete = 2
	for line := range strings.Lines(table) {
		f := strings.Fields(line) // address, type, flags, MAC, mask, device
		if len(f) != 6 || f[5] != link || f[0] != addr.String() {
			continue
		}
		flags, err := hex.DecodeString(fmt.Sprintf("%08s", strings.TrimPrefix(f[2], "0x")))
		if err != nil || len(flags) != 4 || flags[3]&complete == 0 {
			return m, false
		}
		m, err = readMAC(f[3])
		return m, err == nil
	}
	return m, false
}
