package vm

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/buoy-edge/buoy/internal/kmod"
)

// usualModules are loaded in each guest, with what they depend on: a host that
// runs containers has them, and there is nobody in a guest to load them on demand.
var usualModules = []string{
	"virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "overlay", "fuse", "loop",
	"8021q", "bridge", "br_netfilter", "veth", "vxlan", "macvlan", "ipvlan", "dummy", "tun",
	"nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_redir",
	"nft_reject_inet", "nft_fib", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet", "nft_limit",
}

// findKernel fetches a kernel if there is none yet.
var findKernel = sync.OnceValues(func() (*kmod.Tree, error) {
	root, err := findUp("go.mod")
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(root, "scripts", "kernel"), "cloud-amd64")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fetch a kernel: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return kmod.OpenTree(strings.TrimSpace(string(out)))
})
