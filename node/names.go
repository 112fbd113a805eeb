package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// namesDir is where hosts, hostname and resolv.conf of a run are. The container
// may write to them, so they are not below RUN, whose room all containers need.
func (n *Node) namesDir(name string) string { return filepath.Join(n.dataDir(name), "etc") }

// writeNames writes hosts, hostname and resolv.conf of a run. They stay the
// same files, which are mounted in the container.
func (n *Node) writeNames(b *box, hostname string) error {
	var spec Spec
	var nics []NICState
	b.set(func() { spec, nics = b.spec, b.nics() })
	var addrs []netip.Addr
	for _, nic := range nics {
		for _, p := range nic.Addrs {
			addrs = append(addrs, p.Addr())
		}
	}
	for name, text := range map[string][]byte{
		"hosts":       hostsFile(hostname, addrs),
		"hostname":    []byte(hostname + "\n"),
		"resolv.conf": resolvConf(hostResolv(), n.resolverOf(b)),
	} {
		if err := os.WriteFile(filepath.Join(n.namesDir(spec.Name), name), text, 0o644); err != nil {
			return noSpace(err)
		}
	}
	return nil
}

// nics are the NICs as the container has them. The caller holds b.mu.
func (b *box) nics() []NICState {
	if b.spec.HostNetworking {
		return nil
	}
	var out []NICState
	for _, nic := range b.spec.NICs {
		s := NICState{Name: nic.Name}
		if i := slices.IndexFunc(b.given, func(g given) bool { return g.Key == nic.Key() }); i >= 0 {
			s.Addrs = b.given[i].Addrs
			if s.Name == "" {
				s.Name = fmt.Sprintf("eth%d", b.given[i].Index)
			}
		}
		for _, p := range b.plugs {
			if p.Link.NIC.Key() == nic.Key() {
				s.Up, s.Addrs = true, p.addrs()
			}
		}
		out = append(out, s)
	}
	return out
}

// resolverOf says how a container finds names.
func (n *Node) resolverOf(b *box) resolving {
	var spec Spec
	var plugs []plug
	b.set(func() { spec, plugs = b.spec, b.plugs })
	r := resolving{asked: slices.Clone(spec.DNS), own: !spec.HostNetworking}
	if spec.HostNetworking {
		return r
	}
	for _, nic := range spec.NICs {
		for _, a := range nic.Config.DNS {
			r.asked = append(r.asked, a.String())
		}
		r.search = append(r.search, nic.Config.Search...)
	}
	for _, p := range plugs {
		servers, search := p.names()
		r.told = append(r.told, servers...)
		if len(r.search) == 0 {
			r.search = search
		}
	}
	if a, ok := n.resolver(spec.NICs); ok {
		r.ours = a.String()
	}
	return r
}

// hostsFile is /etc/hosts of a container.
func hostsFile(hostname string, addrs []netip.Addr) []byte {
	text := []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.MustParseAddr("127.0.1.1")}
	}
	for _, a := range addrs {
		text = fmt.Appendf(text, "%s\t%s\n", a, hostname)
	}
	return text
}

// resolving is what goes into /etc/resolv.conf of a container.
type resolving struct {
	asked  []string // name servers that a person named: no others count
	ours   string   // the resolver on the bridge, "" for none
	told   []string // name servers from DHCP and CNI
	search []string // domains in place of the host's
	own    bool     // a network of its own: the host's loopback is no use
}

// maxServers is how many name servers resolvers read (MAXNS of resolv.conf(5)).
const maxServers = 3

// resolvConf is /etc/resolv.conf of a container, after that of the host. The
// host's servers come last: they answer while buoyd is away.
func resolvConf(host []byte, r resolving) []byte {
	servers := r.asked
	if len(servers) == 0 {
		servers = slices.DeleteFunc(slices.Clone(r.told), func(s string) bool { return s == r.ours })
		if r.ours != "" {
			servers = slices.Insert(servers, 0, r.ours)
		}
	}
	var out, options strings.Builder
	for line := range strings.Lines(string(host)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			addr, err := netip.ParseAddr(f[1])
			if len(r.asked) == 0 && err == nil && !(r.own && addr.IsLoopback()) && !slices.Contains(servers, f[1]) {
				servers = append(servers, f[1])
			}
		case "search", "domain":
			if len(r.search) == 0 {
				options.WriteString(strings.Join(f, " ") + "\n")
			}
		case "options":
			options.WriteString(strings.Join(f, " ") + "\n")
		}
	}
	if len(r.search) > 0 {
		options.WriteString("search " + strings.Join(r.search, " ") + "\n")
	}
	for _, s := range servers[:min(len(servers), maxServers)] {
		out.WriteString("nameserver " + s + "\n")
	}
	return []byte(out.String() + options.String())
}

// hostServers are the machine's own name servers, those on loopback too.
func hostServers() []netip.AddrPort {
	var all []netip.AddrPort
	for line := range strings.Lines(string(hostResolv())) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			all = append(all, netip.AddrPortFrom(a, 53))
		}
	}
	return all
}

// hostResolv reads the host's resolver configuration. Where systemd-resolved
// listens on loopback the real servers are in a file of its own.
func hostResolv() []byte {
	raw, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil // a host without resolver gives none to its containers
	}
	if strings.Contains(string(raw), "127.0.0.53") {
		if real, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
			return real
		}
	}
	return raw
}
