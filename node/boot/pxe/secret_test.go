package pxe

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNeighbour(t *testing.T) {
	const table = `IP address       HW type     Flags       HW address            Mask     Device
10.9.0.57        0x1         0x2         52:54:00:aa:bb:07     *        eth1
10.9.0.57        0x1         0x2         52:54:00:aa:bb:09     *        eth2
10.9.0.58        0x1         0x0         00:00:00:00:00:00     *        eth1
10.9.0.59        0x1         0x6         52:54:00:aa:bb:07     *        eth1
10.9.0.60        0x1         zz          52:54:00:aa:bb:07     *        eth1
10.9.0.61        0x1
`
	type answer struct {
		mac mac
		ok  bool
	}
	for addr, want := range map[string]answer{
		"10.9.0.57": {ship, true}, "10.9.0.58": {}, "10.9.0.59": {ship, true}, "10.9.0.60": {}, "10.9.0.61": {}, "10.9.0.5": {}, "127.0.0.1": {},
	} {
		m, ok := neighbour(table, "eth1", netip.MustParseAddr(addr))
		if diff := cmp.Diff(want.mac, m); ok != want.ok || diff != "" {
			t.Errorf("%s: %v, %v", addr, m, ok)
		}
	}
}

// TestSecretImage has a stranger unpack it.
func TestSecretImage(t *testing.T) {
	image := secretImage("hu\"sh")
	if len(image)%512 != 0 {
		t.Errorf("%d bytes: what follows it in memory is not found", len(image))
	}
	cpio := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/bin/busybox", append([]string{"cpio"}, args...)...)
		cmd.Stdin = bytes.NewReader(image)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if got, want := cpio("-t"), "etc\netc/buoy\netc/buoy/conf.d\netc/buoy/conf.d/boot.yaml\n"; got != want {
		t.Errorf("it has %q, want %q", got, want)
	}
	if got := cpio("-i", "--to-stdout", "etc/buoy/conf.d/boot.yaml"); !strings.HasSuffix(got, "\njoin-token: \"hu\\\"sh\"\n") {
		t.Errorf("%q", got)
	}
	if list := cpio("-tv"); !strings.Contains(list, "-rw-------") || strings.Count(list, "drwxr-xr-x") != 3 {
		t.Errorf("permissions: %s", list)
	}
}
