package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// nicHelp explains --nic.
const nicHelp = "network `interface`: type=default|bridge|vlan|vxlan|macvlan|ipvlan|passthrough|cni[,id=…][,name=…][,hwaddr=…]" +
	"[,dhcp][,cidr=…][,gateway=…][,route=NET@VIA][,dns=…][,search=…][,mtu=…][,in=10mbit][,out=10mbit][,uplink=…][,mode=…][,group=…][,peer=…][,port=…]; " +
	"lists by repeating a field"

// nicFields read the fields of --nic.
var nicFields = map[string]func(nic *buoy.NIC, c *buoy.NICConfig, value string) error{
	"type":    func(n *buoy.NIC, _ *buoy.NICConfig, v string) error { n.Type = v; return nil },
	"id":      func(n *buoy.NIC, _ *buoy.NICConfig, v string) error { n.ID = v; return nil },
	"name":    func(n *buoy.NIC, _ *buoy.NICConfig, v string) error { n.Name = v; return nil },
	"hwaddr":  func(n *buoy.NIC, _ *buoy.NICConfig, v string) error { n.HWAddr = v; return nil },
	"dhcp":    func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.DHCP = v == "" || v == "true"; return nil },
	"cidr":    func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.CIDRs = append(c.CIDRs, v); return nil },
	"gateway": func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.Gateways = append(c.Gateways, v); return nil },
	"dns":     func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.DNS = append(c.DNS, v); return nil },
	"search":  func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.Search = append(c.Search, v); return nil },
	"route": func(_ *buoy.NIC, c *buoy.NICConfig, v string) error {
		to, via, _ := strings.Cut(v, "@")
		c.Routes = append(c.Routes, buoy.Route{To: to, Via: via})
		return nil
	},
	"mtu":    func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { return parseNumber(v, &c.MTU) },
	"in":     func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { return parseRate(v, &rateOf(c).In) },
	"out":    func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { return parseRate(v, &rateOf(c).Out) },
	"uplink": func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.Uplink = v; return nil },
	"mode":   func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.Mode = v; return nil },
	"group":  func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.Group = v; return nil },
	"peer":   func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { c.Peers = append(c.Peers, v); return nil },
	"port":   func(_ *buoy.NIC, c *buoy.NICConfig, v string) error { return parseNumber(v, &c.Port) },
}

func parseNumber[T int | uint16](text string, into *T) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a number up to 65535", text)
	}
	*into = T(n)
	return nil
}

func rateOf(c *buoy.NICConfig) *buoy.Rate {
	if c.Rate == nil {
		c.Rate = &buoy.Rate{}
	}
	return c.Rate
}

// parseRate reads bits per second with a decimal unit: "10mbit".
func parseRate(text string, into *uint64) error {
	number, unit := strings.ToLower(text), 1.0
	for suffix, factor := range map[string]float64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = rest, factor
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*unit >= math.MaxInt64 || f != f {
		return fmt.Errorf("%q is not a rate like 500kbit, 10mbit or 1gbit", text)
	}
	*into = uint64(f * unit)
	return nil
}

// parseNIC reads --nic. What the values may be is the node's business.
func parseNIC(text string) (buoy.NIC, error) {
	var nic buoy.NIC
	var config buoy.NICConfig
	for field := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(field, "=")
		read, ok := nicFields[name]
		if !ok {
			var known []string
			for k := range nicFields {
				known = append(known, k)
			}
			slices.Sort(known)
			return nic, fmt.Errorf("--nic %q: %q is none of %s", text, name, strings.Join(known, ", "))
		}
		if err := read(&nic, &config, value); err != nil {
			return nic, fmt.Errorf("--nic %q: %s: %w", text, name, err)
		}
	}
	if nic.Type == "" {
		return nic, fmt.Errorf("--nic %q: want at least type=", text)
	}
	if len(config.CIDRs) == 1 {
		config.CIDR, config.CIDRs = config.CIDRs[0], nil
	}
	if len(config.Gateways) == 1 {
		config.Gateway, config.Gateways = config.Gateways[0], nil
	}
	if config.DNS == nil {
		config.DNS = []string{}
	}
	nic.Config = &config
	return nic, nil
}
