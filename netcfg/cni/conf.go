package cni

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/buoy-edge/buoy/internal/errs"
)

// configured reads the configuration directory, in the order of file names; of
// two networks with one name the first counts. Files that cannot be read hide
// none of the others.
func (c *CNI) configured() (lists []*libcni.NetworkConfigList, broken []error, err error) {
	files, err := libcni.ConfFiles(c.cfg.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, nil, fmt.Errorf("look for CNI networks: %w", err)
	}
	slices.Sort(files)
	for _, f := range files {
		list, err := readConf(f)
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", filepath.Base(f), err))
			continue
		}
		if !slices.ContainsFunc(lists, func(l *libcni.NetworkConfigList) bool { return l.Name == list.Name }) {
			lists = append(lists, list)
		}
	}
	return lists, broken, nil
}

// find is the network of that name; errs.Invalid if it is not configured.
func (c *CNI) find(network string) (*libcni.NetworkConfigList, error) {
	lists, broken, err := c.configured()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range lists {
		if l.Name == network {
			return l, nil
		}
		names = append(names, l.Name)
	}
	there := "none"
	if len(names) > 0 {
		there = strings.Join(names, ", ")
	}
	for _, err := range broken {
		there += fmt.Sprintf("; it cannot read %v", err)
	}
	return nil, errs.E(errs.Invalid, "there is no CNI network %q in %s, which has: %s", network, c.cfg.ConfDir, there)
}

func readConf(file string) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromFile(file)
	if filepath.Ext(file) != ".conflist" {
		var one *libcni.PluginConfig
		if one, err = libcni.ConfFromFile(file); err == nil { //nolint:staticcheck // such files are still about
			list, err = libcni.ConfListFromConf(one) //nolint:staticcheck // likewise
		}
	}
	if err != nil {
		return nil, err
	}
	if !networkName(list.Name) {
		return nil, fmt.Errorf("%q is no name of a network", list.Name)
	}
	if list.CNIVersion == "" {
		list.CNIVersion = "0.1.0" // as the specification says
	}
	return whole(list)
}

// whole makes list.Bytes, which is kept as the record of what was attached,
// hold the plugins that lie in files of their own, too.
func whole(list *libcni.NetworkConfigList) (*libcni.NetworkConfigList, error) {
	var raw map[string]any
	if err := json.Unmarshal(list.Bytes, &raw); err != nil {
		return nil, err
	}
	plugins := make([]json.RawMessage, 0, len(list.Plugins))
	for _, p := range list.Plugins {
		plugins = append(plugins, p.Bytes)
	}
	raw["plugins"], raw["loadOnlyInlinedPlugins"] = plugins, true
	var err error
	list.Bytes, err = json.Marshal(raw)
	return list, err
}
