package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/buoy-edge/buoy/internal/errs"
)

// lib is libcni with a directory of its own for each network and interface
// name. It names its records NETWORK-CONTAINER-IFNAME, which would be one name
// for container b on network a-c and container c-b on network a. Without an
// interface name it keeps none.
func (c *CNI) lib(network, ifname string) *libcni.CNIConfig {
	dir := filepath.Join(c.cfg.CacheDir, ".none")
	if ifname != "" {
		dir = filepath.Join(c.cfg.CacheDir, network, ifname)
	}
	return libcni.NewCNIConfigWithCacheDir(c.cfg.PluginDirs, dir, &plugins{})
}

// recorded is what the attachment was made with: its network as it was
// configured then, and its arguments. nil: nothing is recorded.
func (c *CNI) recorded(a Attachment) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	rt, err := a.runtimeConf()
	if err != nil {
		return nil, nil, about(a.Network, err)
	}
	conf, was, err := c.lib(a.Network, a.Ifname).GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: a.Network}, rt)
	if err != nil {
		// A crash may leave half a record; it says nothing.
		return nil, rt, nil //nolint:nilerr // see above
	}
	if conf == nil {
		return nil, rt, nil
	}
	list, err := libcni.NetworkConfFromBytes(conf)
	if err != nil {
		return nil, nil, fmt.Errorf("CNI network %q: read what %s was attached with: %w", a.Network, a.Container, err)
	}
	return list, was, nil
}

// Result is what the plugins gave an attachment; errs.NotFound if it is not
// attached.
func (c *CNI) Result(a Attachment) (Result, error) {
	list, rt, err := c.recorded(a)
	if err != nil {
		return Result{}, err
	}
	if list == nil {
		return Result{}, errs.E(errs.NotFound, "CNI network %q: container %s is not attached by %s", a.Network, a.Container, a.Ifname)
	}
	made, err := c.lib(a.Network, a.Ifname).GetNetworkListCachedResult(list, rt)
	if err != nil {
		return Result{}, about(a.Network, err)
	}
	r, err := translate(made, a)
	if err != nil {
		return Result{}, about(a.Network, err)
	}
	return r, nil
}

// Attachments are all that are recorded, of any network, configured or not.
func (c *CNI) Attachments() ([]Attachment, error) {
	var all []Attachment
	networks, err := subdirs(c.cfg.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("look for CNI attachments: %w", err)
	}
	for _, network := range networks {
		ifnames, err := subdirs(filepath.Join(c.cfg.CacheDir, network))
		if err != nil {
			return nil, fmt.Errorf("look for CNI attachments: %w", err)
		}
		for _, ifname := range ifnames {
			have, err := c.lib(network, ifname).GetCachedAttachments("")
			if err != nil {
				return nil, fmt.Errorf("look for CNI attachments: %w", err)
			}
			for _, a := range have {
				all = append(all, Attachment{Container: a.ContainerID, Network: a.Network, Ifname: a.IfName, Netns: a.NetNS})
			}
		}
	}
	return all, nil
}

func subdirs(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// args are the attachment's CNI_ARGS, in a steady order. Plugins that know none
// of them are told to look away.
func (a Attachment) args() [][2]string {
	all := maps.Clone(a.Args)
	if all == nil {
		all = map[string]string{}
	}
	if a.MAC != nil {
		all["MAC"] = a.MAC.String()
	}
	if len(all) > 0 {
		all["IgnoreUnknown"] = "1"
	}
	var list [][2]string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		list = append(list, [2]string{k, all[k]})
	}
	return list
}

func plain(s string) bool { return !strings.ContainsAny(s, ";=") }

func networkName(s string) bool { return utils.ValidateNetworkName(s) == nil }
