package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/cni"
	"github.com/buoy-edge/buoy/netcfg/dhcp"
)

// plug is a NIC of a run as it was made.
type plug struct {
	Link  netcfg.Link
	Lease *dhcp.Lease `json:",omitempty"`
	CNI   *cni.Result `json:",omitempty"`
}

// addrs are the addresses of the NIC, wherever they came from.
func (p plug) addrs() []netip.Prefix {
	switch {
	case p.CNI != nil:
		return p.CNI.Addrs
	case p.Lease != nil && p.Lease.Addr.IsValid():
		return []netip.Prefix{p.Lease.Addr}
	}
	return p.Link.Addrs
}

// names are the name servers and search domains that came with the NIC.
func (p plug) names() (servers, search []string) {
	var told []netip.Addr
	switch {
	case p.CNI != nil:
		told, search = p.CNI.DNS, p.CNI.Search
	case p.Lease != nil:
		told, search = p.Lease.DNS, p.Lease.Search
	}
	for _, a := range told {
		servers = append(servers, a.String())
	}
	return servers, search
}

// networkFile remembers what a run is plugged into: it names everything that is
// made before it is made, and what is left after something was taken away.
func (n *Node) networkFile(name string) string { return filepath.Join(n.runDir(name), "network.json") }

func (n *Node) writePlugs(name string, plugs []plug) error {
	raw, err := json.Marshal(plugs)
	if err == nil {
		err = os.MkdirAll(n.runDir(name), 0o755)
	}
	if err == nil {
		err = atomicfile.Write(n.networkFile(name), raw, 0o600)
	}
	if err != nil {
		return noSpace(err)
	}
	return nil
}

// readPlugs is fine with a run that has none.
func (n *Node) readPlugs(name string) (plugs []plug, err error) {
	raw, err := os.ReadFile(n.networkFile(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &plugs)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the container is plugged into: %w", err)
	}
	return plugs, nil
}

// links are the NICs that the container is to have, in the order of its spec.
func (n *Node) links(b *box) ([]netcfg.Link, error) {
	var spec Spec
	var had []given
	b.set(func() { spec, had = b.spec, b.given })
	if spec.HostNetworking {
		return nil, nil
	}
	n.mu.Lock()
	pools := n.pools()
	n.mu.Unlock()
	var out []netcfg.Link
	for _, nic := range spec.NICs {
		i := slices.IndexFunc(had, func(g given) bool { return g.Key == nic.Key() })
		if i < 0 {
			return nil, fmt.Errorf("BUG: %s of container %s was given nothing", nic, spec.Name)
		}
		l := netcfg.Link{Container: spec.Name, Index: had[i].Index, NIC: nic, Name: nic.Name, Addrs: had[i].Addrs, Gateways: nic.Config.Gateways}
		if l.Name == "" {
			l.Name = fmt.Sprintf("eth%d", l.Index)
		}
		if nic.HWAddr != "" {
			var err error
			if l.MAC, err = net.ParseMAC(nic.HWAddr); err != nil {
				return nil, errs.E(errs.Invalid, "hwaddr %q: %w", nic.HWAddr, err)
			}
		}
		if p := pools[l.NIC.Key()]; p.nat && len(l.Gateways) == 0 && len(l.Addrs) > 0 {
			l.Gateways = []netip.Addr{p.bridge.Addr()}
		}
		l.Answers = l.NIC.Type == netcfg.NICDefault && len(spec.NICs) > 1 && len(spec.Ports) > 0
		if nic.Type == netcfg.NICDefault {
			l.Addrs = n.cfg.Net.DefaultAddrs(l.Addrs[0].Addr())
		}
		if nic.Config.DHCP { // servers know it by its MAC, which must not follow the address
			done, err := n.cfg.Net.Complete(l)
			if err != nil {
				return nil, err
			}
			l.MAC = done.MAC
		}
		out = append(out, l)
	}
	return out, nil
}

// network is a network namespace for a start of the container, with its NICs.
// The namespace lives as long as the caller or a process keeps it open.
func (n *Node) network(ctx context.Context, b *box) (_ *netcfg.Netns, err error) {
	if b.spec.HostNetworking || len(b.spec.NICs) == 0 {
		return nil, nil
	}
	if err := n.unplug(ctx, b); err != nil { // what the end of the last run left
		return nil, err
	}
	links, err := n.links(b)
	if err != nil {
		return nil, err
	}
	if err := n.setUpNet(ctx, links); err != nil {
		return nil, err
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	ns, err := n.cfg.Net.Netns(ctx)
	if err != nil {
		return nil, err
	}
	undo.Push(ns.Close)
	if needsFile(links) {
		if err := n.writePlugs(b.spec.Name, unmade(links)); err != nil {
			return nil, err
		}
	}
	var plugs []plug
	for _, l := range links {
		p, err := n.plugIn(ctx, ns.Path(), l)
		if err != nil {
			return nil, about(l, err)
		}
		plugs = append(plugs, p)
		undo.Push(func() error { return n.pullOut(ctx, ns.Path(), p) })
	}
	if needsFile(links) {
		if err := n.writePlugs(b.spec.Name, plugs); err != nil {
			return nil, err
		}
	}
	if b.spec.Run.UserNS {
		err := netcfg.InNS(ns.Path(), func() error { return setSysctls(container.NetSysctls(b.spec.Run)) })
		if err != nil {
			return nil, err
		}
	}
	b.set(func() { b.plugs = plugs })
	if err := n.holdNetns(b, ns.Path()); err != nil {
		return nil, err
	}
	undo.Keep()
	return ns, nil
}

// about says which NIC an error is about, once.
func about(l netcfg.Link, err error) error {
	if strings.HasPrefix(err.Error(), l.NIC.String()+":") {
		return err
	}
	return fmt.Errorf("%s: %w", l.NIC, err)
}

// unmade are the links as plugs of which nothing may be there yet.
func unmade(links []netcfg.Link) []plug {
	var plugs []plug
	for _, l := range links {
		plugs = append(plugs, plug{Link: l})
	}
	return plugs
}

// lasts says whether something of the NIC stays when its namespace ends, or has
// to be gone by then: a link that ends with its namespace does so a while later,
// and until then a bridge cannot be deleted.
func lasts(l netcfg.Link) bool { return l.NIC.Type != netcfg.NICDefault }

// needsFile says whether the run's plugs have to be known to a daemon after
// this one beyond what the spec says.
func needsFile(links []netcfg.Link) bool { return slices.ContainsFunc(links, lasts) }

// checkLink says what keeps a NIC from being made.
func (n *Node) checkLink(ctx context.Context, l netcfg.Link) error {
	switch l.NIC.Type {
	case netcfg.NICDefault:
		// All is checked by now, and the link of a container that had its address may
		// be about to go, which Attach waits for.
		return nil
	case netcfg.NICCNI:
		return n.cfg.CNI.Status(ctx, l.NIC.ID)
	default:
		return n.cfg.Net.CheckLink(l)
	}
}

// plugIn makes a NIC in the namespace. When it fails nothing of it is left.
func (n *Node) plugIn(ctx context.Context, ns string, l netcfg.Link) (p plug, err error) {
	if err := n.checkLink(ctx, l); err != nil {
		return plug{}, err
	}
	if l.NIC.Type == netcfg.NICCNI {
		return n.addCNI(ctx, ns, l)
	}
	if err := n.cfg.Net.Attach(ctx, ns, l); err != nil {
		return plug{}, err
	}
	if !l.NIC.Config.DHCP {
		return plug{Link: l}, nil
	}
	got, err := n.lease(ctx, ns, l)
	if err != nil {
		return plug{}, errors.Join(err, n.pullOut(ctx, ns, plug{Link: l, Lease: got}))
	}
	return plug{Link: l, Lease: got}, nil
}

// pullOut takes a NIC away; ns is "" when the namespace has ended.
func (n *Node) pullOut(ctx context.Context, ns string, p plug) error {
	ctx, cancel := aside(ctx)
	defer cancel()
	if p.Link.NIC.Type == netcfg.NICCNI {
		return n.delCNI(ctx, ns, p.Link)
	}
	if p.Lease != nil && ns != "" && p.Lease.Addr.IsValid() {
		if err := dhcp.Release(ctx, n.dhcpOptions(ns, p.Link), *p.Lease); err != nil {
			n.cfg.Log.Debug("lease not given back", "container", p.Link.Container, "error", err) // it expires
		}
	}
	return n.cfg.Net.Detach(ctx, ns, p.Link)
}

// unplug takes away what lasts of a run's NICs when the run has ended.
func (n *Node) unplug(ctx context.Context, b *box) error {
	n.dropKeepers(b)
	var plugs []plug
	var ns *os.File
	b.set(func() { plugs, ns = b.plugs, b.netns })
	var all error
	for _, p := range plugs {
		if !lasts(p.Link) {
			continue
		}
		path := ""
		if ns != nil {
			path = fdPath(ns)
		}
		if err := n.pullOut(ctx, path, p); err != nil {
			all = errors.Join(all, about(p.Link, err))
		}
	}
	if all != nil {
		return all
	}
	if ns != nil {
		all = ns.Close()
	}
	b.set(func() { b.plugs, b.netns = nil, nil })
	return all
}

// holdNetns keeps the namespace of a run open where a NIC has to be taken out
// of it before it ends.
func (n *Node) holdNetns(b *box, path string) error {
	plugs := get(b, func() []plug { return b.plugs })
	held := get(b, func() bool { return b.netns != nil })
	if held || !slices.ContainsFunc(plugs, func(p plug) bool { return lasts(p.Link) }) {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("keep the network namespace: %w", err)
	}
	b.set(func() { b.netns = f })
	return nil
}

// assert makes the NICs of a container that runs what they are to be. What a
// former daemon was taking away, it takes away.
func (n *Node) assert(ctx context.Context, b *box) error {
	links, err := n.links(b)
	if err != nil {
		return err
	}
	plugs, err := n.readPlugs(b.spec.Name)
	if err != nil || len(links)+len(plugs) == 0 {
		return err
	}
	if err := n.setUpNet(ctx, links); err != nil {
		return err
	}
	ns, err := container.OpenProc(get(b, func() shimapi.Process { return b.process }), "ns/net")
	if errors.Is(err, errs.NotFound) {
		return nil // the shim is about to tell of its end, which is for the policy to judge
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	b.set(func() { b.plugs = plugs }) // what there is to take away if this fails
	for _, p := range plugs {         // first: what comes may have its name and its place
		if slices.ContainsFunc(links, func(l netcfg.Link) bool { return stays(p, l) }) {
			continue
		}
		if err := n.pullOut(ctx, fdPath(ns), p); err != nil {
			return about(p.Link, err)
		}
	}
	var now []plug
	for _, l := range links {
		var p plug
		i := staying(plugs, l)
		if i >= 0 {
			p = plugs[i]
		}
		if p, err = n.assertOne(ctx, fdPath(ns), l, p, i >= 0 || !lasts(l)); err != nil {
			return about(l, err)
		}
		now = append(now, p)
	}
	b.set(func() { b.plugs = now })
	if err := n.holdNetns(b, fdPath(ns)); err != nil {
		return err
	}
	if get(b, func() bool { return b.keeping == nil }) {
		n.keepLeases(ctx, b)
	}
	return nil
}

// assertOne verifies a NIC that was made, or makes it.
func (n *Node) assertOne(ctx context.Context, ns string, l netcfg.Link, p plug, made bool) (plug, error) {
	switch {
	case l.NIC.Type == netcfg.NICCNI && p.CNI == nil:
		// Plugins that died with their daemon have told nobody what they had made.
		if err := n.delCNI(ctx, ns, l); err != nil {
			return plug{}, err
		}
		return n.plugIn(ctx, ns, l)
	case !made, l.NIC.Config.DHCP && p.Lease == nil:
		return n.plugIn(ctx, ns, l)
	case p.Lease != nil:
		return plug{Link: l, Lease: p.Lease}, n.cfg.Net.Attach(ctx, ns, n.leased(l, *p.Lease))
	case l.NIC.Type == netcfg.NICCNI:
		return n.assertCNI(ctx, ns, l, p)
	}
	return plug{Link: l}, n.cfg.Net.Attach(ctx, ns, l)
}

// setSysctls sets sysctls of the calling thread's network namespace.
func setSysctls(values map[string]string) error {
	for k, v := range values {
		file := "/proc/sys/" + strings.ReplaceAll(k, ".", "/")
		if err := os.WriteFile(file, []byte(v), 0); err != nil {
			return errs.E(errs.Invalid, "sysctl %q cannot be set to %q: %w", k, v, err)
		}
	}
	return nil
}

// setUpNet makes the default bridge and its rules when the first container
// needs them.
func (n *Node) setUpNet(ctx context.Context, links []netcfg.Link) error {
	if !slices.ContainsFunc(links, func(l netcfg.Link) bool { return l.NIC.Type == netcfg.NICDefault }) {
		return nil
	}
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	if n.defaultUp {
		return nil
	}
	if err := n.cfg.Net.Setup(ctx); err != nil {
		return err
	}
	n.setDefaultUp(ctx, true)
	return nil
}

// setDefaultUp says whether there is a default bridge, to the resolver too. The
// caller holds n.netOnce.
func (n *Node) setDefaultUp(ctx context.Context, up bool) {
	n.mu.Lock()
	n.defaultUp = up
	n.mu.Unlock()
	n.answerNames(ctx)
}

// tidyAfter is how long the bridge and the rules outlive the last container
// that needs them: one that is made anew does not wait for them.
const tidyAfter = 5 * time.Second

// tidy has what no container needs taken from the machine's network, in a while.
func (n *Node) tidy() {
	select {
	case n.untidy <- struct{}{}:
	default: // that is to be done already
	}
}

// tidyUp does it, until ctx ends.
func (n *Node) tidyUp(ctx context.Context) {
	for {
		select {
		case <-n.untidy:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(tidyAfter):
		case <-ctx.Done():
			return
		}
		if err := n.release(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.Error("network not tidied up", "error", err)
		}
	}
}

// release takes away the default bridge if no container has a NIC on it, and
// VLANs and VXLANs without containers.
func (n *Node) release(ctx context.Context) error {
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	keep := n.usesDefault()
	if err := n.cfg.Net.Release(ctx, keep); err != nil || keep {
		return err
	}
	n.setDefaultUp(ctx, false)
	return nil
}

// usesDefault says whether a container has a default NIC, running or not.
func (n *Node) usesDefault() bool {
	return slices.ContainsFunc(n.all(), func(b *box) bool {
		return get(b, func() bool {
			return slices.ContainsFunc(b.promises(), func(p promise) bool { return p.spec.hasDefaultNIC() })
		})
	})
}
