package netcfg

// setHairpin lets the bridge send a frame back where it came from, where the
// kernel applies nftables to bridged frames (br_netfilter, which Docker and
// Kubernetes turn on): there a container that asks for its own published port
// is answered within the bridge, not by routing.
func (n *Net) setHairpin(s *sock, port string) error {
	const filters4, filters6 = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"
	is, err := n.sysctls(filters4, filters6)
	if err != nil || is[filters4] != "1" && is[filters6] != "1" {
		return err
	}
	link, err := linkByName(s.Handle, port)
	if err != nil {
		return err
	}
	return s.LinkSetHairpin(link, true)
}
