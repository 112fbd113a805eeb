package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// network brings up loopback and the NIC of QEMU's user network, whose
// addresses are always these; what is on wires is the test's.
func network(ctx context.Context) error {
	for _, args := range []string{
		"link set lo up",
		"link set eth0 up",
		"addr add 10.0.2.15/24 dev eth0",
		"route add default via 10.0.2.2",
	} {
		out, err := exec.CommandContext(ctx, "/bin/busybox", append([]string{"ip"}, strings.Fields(args)...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return os.WriteFile("/etc/resolv.conf", []byte("nameserver 10.0.2.3\n"), 0o644)
}
