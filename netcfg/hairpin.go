package netcfg

import (
	"errors"
	"io/fs"
)

// setHairpin lets the bridge send a frame back where it came from, where the
// kernel applies nftables to bridged frames (br_netfilter, which Docker and
// Kubernetes turn on): there a container that asks for its own published port
// is answered within the bridge, not by routing.
func (n *Net) setHairpin(s *sock, port string) error {
	on, err := n.sysctlOn("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if errors.Is(err, fs.ErrNotExist) || err == nil && !on {
		return nil
	}
	if err != nil {
		return err
	}
	link, err := linkByName(s.Handle, port)
	if err != nil {
		return err
	}
	return s.LinkSetHairpin(link, true)
}
