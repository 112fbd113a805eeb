// Package cni connects containers to networks that CNI plugins make: the
// networks of the machine's CNI configuration directory, by name.
package cni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config says where networks and plugins are.
type Config struct {
	ConfDir    string        // /etc/cni/net.d
	PluginDirs []string      // /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni
	CacheDir   string        // required; what is attached, over reboots
	Timeout    time.Duration // of one operation; 60 s

	// Enter runs f on a thread in the namespace that plugins take for the
	// machine's. nil: here.
	Enter func(f func() error) error
}

// Attachment is a NIC of a container on a network. Container, Network and
// Ifname name it.
type Attachment struct {
	Container string
	Network   string
	Ifname    string
	Netns     string           // path; "" when it is gone, which only Del takes
	MAC       net.HardwareAddr // nil: the plugins choose
	Args      map[string]string

	// Capabilities are for those plugins that declare them, such as
	// "portMappings".
	Capabilities map[string]any
}

// CNI runs plugins. Operations of different attachments may run side by side,
// those of one may not.
type CNI struct{ cfg Config }

// New touches nothing.
func New(cfg Config) *CNI {
	if cfg.CacheDir == "" {
		panic("BUG: cni.Config without CacheDir")
	}
	if cfg.ConfDir == "" {
		cfg.ConfDir = "/etc/cni/net.d"
	}
	if cfg.PluginDirs == nil {
		cfg.PluginDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Enter == nil {
		cfg.Enter = func(f func() error) error { return f() }
	}
	return &CNI{cfg}
}

// Networks are the names of the networks that are configured.
func (c *CNI) Networks() ([]string, error) {
	all, _, err := c.configured()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(all))
	for _, l := range all {
		names = append(names, l.Name)
	}
	return names, nil
}

// Status says why nothing can be attached to a network now: it is unknown
// (errs.Invalid), a plugin is not installed, or one says that it is not ready,
// which those of CNI 1.1 can.
func (c *CNI) Status(ctx context.Context, network string) error {
	list, err := c.find(network)
	if err != nil {
		return err
	}
	for _, p := range list.Plugins {
		for _, name := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if name == "" {
				continue
			}
			if _, err := findPlugin(name, c.cfg.PluginDirs); err != nil {
				return about(network, err)
			}
		}
	}
	return c.run(ctx, network, func(ctx context.Context) error {
		return c.lib("", "").GetStatusNetworkList(ctx, list)
	})
}

// Add attaches. What a failed Add has done is undone; one that died with its
// process is undone by Del.
func (c *CNI) Add(ctx context.Context, a Attachment) (Result, error) {
	list, err := c.find(a.Network)
	if err != nil {
		return Result{}, err
	}
	rt, err := a.runtimeConf()
	if err != nil {
		return Result{}, about(a.Network, err)
	}
	var r Result
	err = c.run(ctx, a.Network, func(ctx context.Context) error {
		made, err := c.lib(a.Network, a.Ifname).AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		r, err = translate(made, a)
		return err
	})
	if err == nil {
		return r, nil
	}
	// It has a time of its own: ctx may be what ended the operation.
	undo := c.run(context.WithoutCancel(ctx), a.Network, func(ctx context.Context) error {
		return c.lib(a.Network, a.Ifname).DelNetworkList(ctx, list, rt)
	})
	if undo != nil {
		return Result{}, fmt.Errorf("%w; undoing it: %w", err, undo)
	}
	return Result{}, err
}

// Verify asks the plugins whether the attachment is as they made it, with the
// configuration that it was made with. errs.NotFound: there is none. Plugins of
// before CNI 0.4 cannot be asked, and pass.
func (c *CNI) Verify(ctx context.Context, a Attachment) error {
	list, rt, err := c.recorded(a)
	if err != nil {
		return err
	}
	if list == nil {
		return errs.E(errs.NotFound, "CNI network %q: container %s is not attached by %s", a.Network, a.Container, a.Ifname)
	}
	err = c.run(ctx, a.Network, func(ctx context.Context) error {
		return c.lib(a.Network, a.Ifname).CheckNetworkList(ctx, list, rt)
	})
	if errors.Is(err, libcni.ErrorCheckNotSupp) {
		return nil
	}
	return err
}

// Del detaches, with the configuration that was there at Add. What is not
// attached is detached already; without a record, as Add leaves none when its
// process dies, plugins are asked all the same, if the network is configured.
func (c *CNI) Del(ctx context.Context, a Attachment) error {
	list, rt, err := c.recorded(a)
	if err != nil {
		return err
	}
	if list == nil {
		list, err = c.find(a.Network)
		if errors.Is(err, errs.Invalid) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return c.run(ctx, a.Network, func(ctx context.Context) error {
		return c.lib(a.Network, a.Ifname).DelNetworkList(ctx, list, rt)
	})
}

// GC detaches what is on a network and not among valid, and has plugins of CNI
// 1.1 drop what else they hold; unless the network's configuration says
// disableGC, as it must where others than buoy use that network.
func (c *CNI) GC(ctx context.Context, network string, valid []Attachment) error {
	type id struct{ container, ifname string }
	keep := map[id]bool{}
	gc := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, a := range valid {
		if a.Network == network {
			keep[id{a.Container, a.Ifname}] = true
			gc.ValidAttachments = append(gc.ValidAttachments, types.GCAttachment{ContainerID: a.Container, IfName: a.Ifname})
		}
	}
	have, err := c.Attachments()
	if err != nil {
		return err
	}
	var failures []error
	for _, a := range have {
		if a.Network == network && !keep[id{a.Container, a.Ifname}] {
			failures = append(failures, c.Del(ctx, a))
		}
	}
	list, err := c.find(network)
	switch {
	case errors.Is(err, errs.Invalid): // not configured any more: nobody to ask
	case err != nil:
		failures = append(failures, err)
	default:
		failures = append(failures, c.run(ctx, network, func(ctx context.Context) error {
			return c.lib("", "").GCNetworkList(ctx, list, gc)
		}))
	}
	return errors.Join(failures...)
}

// run bounds an operation in time and makes a sentence of its failure.
func (c *CNI) run(ctx context.Context, network string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err := c.cfg.Enter(func() error { return f(ctx) })
	if err == nil {
		return nil
	}
	return about(network, err)
}

// about names the network. What a plugin said is enough; libcni's words around
// it say the same again.
func about(network string, err error) error {
	if p, ok := errors.AsType[*pluginError](err); ok {
		return errs.E(errs.Unavailable, "CNI network %q: %w", network, p)
	}
	if e, ok := errors.AsType[*types.Error](err); ok {
		return errs.E(errs.Invalid, "CNI network %q: %w", network, e)
	}
	return fmt.Errorf("CNI network %q: %w", network, err)
}

// runtimeConf is the attachment in libcni's words.
func (a Attachment) runtimeConf() (*libcni.RuntimeConf, error) {
	if err := a.validate(); err != nil {
		return nil, err
	}
	rt := &libcni.RuntimeConf{
		ContainerID: a.Container, NetNS: a.Netns, IfName: a.Ifname, Args: a.args(),
		CapabilityArgs: map[string]any{},
	}
	maps.Copy(rt.CapabilityArgs, a.Capabilities)
	if a.MAC != nil {
		rt.CapabilityArgs["mac"] = a.MAC.String()
	}
	return rt, nil
}

// validate keeps names from being paths and more than one argument.
func (a Attachment) validate() error {
	// Each returns a nil pointer that is no nil error.
	if err := utils.ValidateContainerID(a.Container); err != nil {
		return err
	}
	if err := utils.ValidateNetworkName(a.Network); err != nil {
		return err
	}
	if err := utils.ValidateInterfaceName(a.Ifname); err != nil {
		return err
	}
	for k, v := range a.Args {
		if k == "" || !plain(k) || !plain(v) {
			return errs.E(errs.Invalid, "argument %q: arguments have no ';' and no '='", k+"="+v)
		}
	}
	return nil
}
