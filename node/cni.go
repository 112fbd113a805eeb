package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/cni"
)

// attachment is a NIC as plugins see it. They remember the path of its namespace
// and want it the same again later, so it has a link of a steady name to
// wherever this daemon has the namespace open; ns is "" when that has ended.
func (n *Node) attachment(ns string, l netcfg.Link) (cni.Attachment, error) {
	a := cni.Attachment{Container: l.Container, Network: l.NIC.ID, Ifname: l.Name, MAC: l.MAC}
	if ns == "" {
		return a, nil
	}
	a.Netns = filepath.Join(n.runDir(l.Container), "netns")
	if to, err := os.Readlink(a.Netns); err == nil && to == ns {
		return a, nil
	}
	fresh := a.Netns + ".new"
	err := errors.Join(os.MkdirAll(filepath.Dir(fresh), 0o755), os.RemoveAll(fresh))
	if err == nil {
		err = os.Symlink(ns, fresh)
	}
	if err == nil {
		err = os.Rename(fresh, a.Netns)
	}
	if err != nil {
		return a, noSpace(err)
	}
	return a, nil
}

// addCNI attaches. What the plugins still hold of a run that nobody saw end is
// detached first.
func (n *Node) addCNI(ctx context.Context, ns string, l netcfg.Link) (plug, error) {
	a, err := n.attachment(ns, l)
	if err != nil {
		return plug{}, err
	}
	if _, err := n.cfg.CNI.Result(a); !errors.Is(err, errs.NotFound) {
		if err := n.delCNI(ctx, ns, l); err != nil {
			return plug{}, fmt.Errorf("detach what is there: %w", err)
		}
	}
	res, err := n.cfg.CNI.Add(ctx, a)
	if err != nil {
		return plug{}, err
	}
	return plug{Link: l, CNI: &res}, nil
}

func (n *Node) checkCNI(ctx context.Context, ns string, l netcfg.Link) error {
	a, err := n.attachment(ns, l)
	if err != nil {
		return err
	}
	return n.cfg.CNI.Verify(ctx, a)
}

// assertCNI has the plugins check a NIC. Some complain of healthy ones (a bridge
// whose MAC has followed its ports, portmap without IPv6), so it is made anew
// only if the container has not got it any more.
func (n *Node) assertCNI(ctx context.Context, ns string, l netcfg.Link, p plug) (plug, error) {
	complaint := n.checkCNI(ctx, ns, l)
	if complaint == nil {
		return p, nil
	}
	err := netcfg.InNS(ns, func() error { _, err := net.InterfaceByName(l.Name); return err })
	if err == nil {
		n.cfg.Log.Warn("CNI plugins complain of a NIC that is there", "container", l.Container, "nic", l.Name, "error", complaint)
		return p, nil
	}
	n.cfg.Log.Warn("CNI NIC is made anew", "container", l.Container, "nic", l.Name, "error", complaint)
	return n.addCNI(ctx, ns, l)
}

func (n *Node) delCNI(ctx context.Context, ns string, l netcfg.Link) error {
	a, err := n.attachment(ns, l)
	if err != nil {
		return err
	}
	return n.cfg.CNI.Del(ctx, a)
}

// detachCNI detaches what a run that is over has left on CNI networks, whose
// plugins remember it over reboots.
func (n *Node) detachCNI(ctx context.Context, b *box) error {
	links, err := n.links(b)
	for _, l := range links {
		if l.NIC.Type == netcfg.NICCNI {
			err = errors.Join(err, n.delCNI(ctx, "", l))
		}
	}
	return err
}

// sweepCNI detaches what containers that are not live have on CNI networks. The
// networks that are in use are swept by their plugins too.
func (n *Node) sweepCNI(ctx context.Context, live func(name string) bool) error {
	have, err := n.cfg.CNI.Attachments()
	if err != nil {
		return err
	}
	networks := map[string]bool{}
	var valid []cni.Attachment
	for _, a := range have {
		networks[a.Network] = true
		if live(a.Container) {
			valid = append(valid, a)
		}
	}
	var all error
	for network := range networks {
		all = errors.Join(all, n.cfg.CNI.GC(ctx, network, valid))
	}
	return all
}
