package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// Bridge is a bridge that was made through the API.
type Bridge struct {
	netcfg.Bridge
	Up bool
}

// bridgeKey is the NIC.Key of NICs on the bridge.
func bridgeKey(name string) string { return netcfg.NIC{Type: netcfg.NICBridge, ID: name}.Key() }

// loadBridges reads the bridges that there should be.
func (n *Node) loadBridges(ctx context.Context) error {
	rows, err := n.cfg.DB.Bridges(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		var b netcfg.Bridge
		if err := json.Unmarshal(row.Spec, &b); err != nil {
			return fmt.Errorf("bridge %s: read its spec: %w", row.Name, err)
		}
		n.bridges[b.Name] = b
	}
	return nil
}

// Bridges are the bridges that were made through the API, by name.
func (n *Node) Bridges() []Bridge {
	n.mu.Lock()
	all := slices.SortedFunc(maps.Values(n.bridges), func(a, b netcfg.Bridge) int { return strings.Compare(a.Name, b.Name) })
	n.mu.Unlock()
	var out []Bridge
	for _, b := range all {
		out = append(out, Bridge{b, n.cfg.Net.LinkUp(b.Name)})
	}
	return out
}

// Bridge is one of them.
func (n *Node) Bridge(name string) (Bridge, error) {
	n.mu.Lock()
	b, ok := n.bridges[name]
	n.mu.Unlock()
	if !ok {
		return Bridge{}, errs.E(errs.NotFound, "no bridge %q on this node", name)
	}
	return Bridge{b, n.cfg.Net.LinkUp(name)}, nil
}

// CreateBridge makes a bridge that lasts over reboots until it is deleted. When
// it fails nothing of it remains.
func (n *Node) CreateBridge(ctx context.Context, b netcfg.Bridge) (err error) {
	if err := b.Validate(); err != nil {
		return err
	}
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	n.mu.Lock()
	_, taken := n.bridges[b.Name]
	next := maps.Clone(n.bridges)
	n.mu.Unlock()
	if taken {
		return errs.E(errs.Exists, "bridge %q exists already on this node", b.Name)
	}
	next[b.Name] = b
	raw, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := n.cfg.DB.PutBridge(ctx, state.Bridge{Name: b.Name, Spec: raw, Created: time.Now()}); err != nil {
		return err
	}
	if err := n.setBridges(ctx, next); err != nil {
		ctx, cancel := aside(ctx)
		defer cancel()
		delete(next, b.Name)
		return errors.Join(fmt.Errorf("create bridge %s: %w", b.Name, err), n.cfg.DB.DeleteBridge(ctx, b.Name), n.setBridges(ctx, next))
	}
	n.emit(ctx, events.BridgeCreated, "bridges/"+b.Name, events.Data{})
	return nil
}

// DeleteBridge removes a bridge. Conflict: a container has a NIC on it.
func (n *Node) DeleteBridge(ctx context.Context, name string) error {
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	had, next, err := n.withoutBridge(name)
	if err != nil {
		return err
	}
	// A link may be on it yet that is being taken away. So the database forgets it
	// last: a daemon after us rather makes it again than meets one with a container
	// that it does not know.
	err = n.setBridges(ctx, next)
	if err == nil {
		err = n.cfg.DB.DeleteBridge(ctx, name)
	}
	if err == nil {
		n.emit(ctx, events.BridgeDeleted, "bridges/"+name, events.Data{})
		return nil
	}
	ctx, cancel := aside(ctx)
	defer cancel()
	return errors.Join(fmt.Errorf("delete bridge %s: %w", name, err), n.setBridges(ctx, had))
}

// withoutBridge gives the bridges as they are and as they are to be without that
// one, if no container has a NIC on it.
func (n *Node) withoutBridge(name string) (had, next map[string]netcfg.Bridge, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, there := n.bridges[name]; !there {
		return nil, nil, errs.E(errs.NotFound, "no bridge %q on this node", name)
	}
	if user := n.userOf(bridgeKey(name)); user != "" {
		return nil, nil, errs.E(errs.Conflict, "container %q has a NIC on bridge %q: take it away first", user, name)
	}
	had, next = n.bridges, maps.Clone(n.bridges)
	delete(next, name)
	return had, next, nil
}

// userOf is a container with a NIC of that key, "" if there is none. The caller
// holds n.mu.
func (n *Node) userOf(key string) string {
	for name, b := range n.boxes {
		uses := func(p promise) bool {
			return slices.ContainsFunc(p.given, func(g given) bool { return g.Key == key })
		}
		if get(b, func() bool { return slices.ContainsFunc(b.promises(), uses) }) {
			return name
		}
	}
	return ""
}

// setBridges makes the machine's bridges these. The caller holds n.netOnce.
func (n *Node) setBridges(ctx context.Context, want map[string]netcfg.Bridge) error {
	if err := n.cfg.Net.SetBridges(ctx, slices.Collect(maps.Values(want))); err != nil {
		return err
	}
	n.mu.Lock()
	n.bridges = want
	n.mu.Unlock()
	n.answerNames(ctx)
	n.serveDHCP(ctx, false)
	return nil
}

// checkBridges refuses a NIC on a bridge that the node has not. The caller
// holds n.mu.
func (n *Node) checkBridges(nics []netcfg.NIC) error {
	for _, nic := range nics {
		if nic.Type != netcfg.NICBridge {
			continue
		}
		if b, ours := n.bridges[nic.ID]; ours {
			if nic.Config.DHCP && b.Mode != netcfg.BridgeDHCP {
				return errs.E(errs.Invalid, "%s: nothing answers to DHCP on a bridge of mode %s; leave out dhcp", nic, b.Mode)
			}
			if slices.ContainsFunc(nic.Config.Gateways, func(a netip.Addr) bool { return b.Prefix.IsValid() && a.Is4() && !b.Prefix.Contains(a) }) {
				return errs.E(errs.Invalid, "%s: the gateway is not in the bridge's network %s", nic, b.Prefix.Masked())
			}
		}
	}
	return nil
}
