package nodes

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
)

// nic is a network interface of a container.
type nic struct {
	Config nicConfig `json:"config"`
	ID     nicID     `json:"id"`
	Type   string    `json:"type"`
	Name   string    `json:"name,omitempty"`
	HWAddr string    `json:"hwaddr,omitempty"`
	Token  string    `json:"token,omitempty"`

	// Of answers; taken and dropped, so that what was read can be sent back.
	Status    string   `json:"status,omitempty"` // up or down
	Interface string   `json:"interface,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// nicConfig is Zero-OS's first, then ours. A NIC with several addresses or
// gateways has the first in Zero-OS's field and all in ours.
type nicConfig struct {
	DHCP    bool     `json:"dhcp"`
	CIDR    string   `json:"cidr"`
	Gateway string   `json:"gateway"`
	DNS     []string `json:"dns"`

	CIDRs    []string   `json:"cidrs,omitempty"`
	Gateways []string   `json:"gateways,omitempty"`
	Routes   []nicRoute `json:"routes,omitempty"`
	Search   []string   `json:"search,omitempty"`
	MTU      int        `json:"mtu,omitempty"`
	Rate     *nicRate   `json:"rate,omitempty"`
	Uplink   string     `json:"uplink,omitempty"`
	Mode     string     `json:"mode,omitempty"`
	Group    string     `json:"group,omitempty"`
	Peers    []string   `json:"peers,omitempty"`
	Port     uint16     `json:"port,omitempty"`
}

type nicRoute struct {
	To  string `json:"to"`
	Via string `json:"via,omitempty"`
}

type nicRate struct {
	In  bitrate `json:"in,omitempty"`
	Out bitrate `json:"out,omitempty"`
}

// bitrate is bits per second: 1000000, "10mbit", "1.5 Gbit/s". Units are powers
// of 1000, as for lines. Out it goes as a number.
type bitrate uint64

// Expect implements api.Expecter.
func (bitrate) Expect() string { return `a rate such as 1000000, "10mbit" or "1gbit"` }

// UnmarshalJSON implements json.Unmarshaler.
func (b *bitrate) UnmarshalJSON(raw []byte) error { return quantity(raw, b, parseRate) }

func parseRate(text string) (bitrate, bool) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return bitrate(n), true
	}
	text = strings.TrimSuffix(strings.ToLower(text), "/s")
	number, unit := text, 1.0
	for suffix, factor := range map[string]float64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = strings.TrimSpace(rest), factor
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || unit == 1 || f < 0 || f*unit >= math.MaxInt64 || strings.ContainsAny(number, "xpnie_+-") {
		return 0, false
	}
	return bitrate(f * unit), true
}

func nicsIn(list []nic) ([]netcfg.NIC, error) {
	var nics []netcfg.NIC
	for i, n := range list {
		if n.Type == "" {
			return nil, errs.E(errs.Invalid, "field \"nics.type\" of NIC %d is missing; \"default\" is the node's own bridge", i)
		}
		child := n.Type == string(netcfg.NICMacvlan) || n.Type == string(netcfg.NICIPvlan)
		if n.ID == "" && n.Type != string(netcfg.NICDefault) && !child { // these two are on the uplink then
			return nil, errs.E(errs.Invalid, "field \"nics.id\" of NIC %d is missing; type %s needs it", i, n.Type)
		}
		if n.Token != "" && n.Type != "zerotier" {
			return nil, errs.E(errs.Invalid, "field \"nics.token\" of NIC %d is for type zerotier only", i)
		}
		config, err := n.Config.in()
		if err != nil {
			return nil, fmt.Errorf("NIC %d: %w", i, err)
		}
		nics = append(nics, netcfg.NIC{Type: netcfg.NICType(n.Type), ID: string(n.ID), Name: n.Name, HWAddr: n.HWAddr, Config: config})
	}
	return nics, nil
}

// in reads the texts of a NIC's configuration.
func (c nicConfig) in() (out netcfg.NICConfig, err error) {
	out = netcfg.NICConfig{DHCP: c.DHCP, Search: c.Search, MTU: c.MTU, Uplink: c.Uplink, Mode: c.Mode, Port: c.Port}
	if c.Rate != nil {
		out.Rate = netcfg.Rate{In: uint64(c.Rate.In), Out: uint64(c.Rate.Out)}
	}
	if out.CIDRs, err = parseAll("cidr", withFirst(c.CIDR, c.CIDRs), netip.ParsePrefix, "an address with the length of its network, like 192.168.1.10/24"); err != nil {
		return out, err
	}
	if out.Gateways, err = parseAll("gateway", withFirst(c.Gateway, c.Gateways), netip.ParseAddr, ip); err != nil {
		return out, err
	}
	if out.DNS, err = parseAll("dns", c.DNS, netip.ParseAddr, ip); err != nil {
		return out, err
	}
	if out.Peers, err = parseAll("peers", c.Peers, netip.ParseAddr, ip); err != nil {
		return out, err
	}
	for _, r := range c.Routes {
		to, err := parseAll("routes.to", []string{r.To}, netip.ParsePrefix, "a network like 10.1.0.0/16")
		if err != nil {
			return out, err
		}
		via, err := parseAll("routes.via", withFirst(r.Via, nil), netip.ParseAddr, ip)
		if err != nil {
			return out, err
		}
		out.Routes = append(out.Routes, netcfg.Route{To: to[0], Via: only(via)})
	}
	group, err := parseAll("group", withFirst(c.Group, nil), netip.ParseAddr, ip)
	out.Group = only(group)
	return out, err
}

const ip = "an IP address"

// withFirst is the list of a field that has a form for one value too.
func withFirst(one string, all []string) []string {
	if one == "" || slices.Contains(all, one) {
		return all
	}
	return append([]string{one}, all...)
}

func only[T any](list []T) (one T) {
	if len(list) > 0 {
		one = list[0]
	}
	return one
}

func parseAll[T any](field string, texts []string, parse func(string) (T, error), what string) ([]T, error) {
	var all []T
	for _, s := range texts {
		v, err := parse(s)
		if err != nil {
			return nil, errs.E(errs.Invalid, "field \"nics.config.%s\" is %q, which is not %s", field, s, what)
		}
		all = append(all, v)
	}
	return all, nil
}

// nicOut is a NIC of a spec, with what the container has of it.
func nicOut(n netcfg.NIC, has node.NICState) nic {
	c := n.Config
	o := nic{
		ID: nicID(n.ID), Type: string(n.Type), Name: n.Name, HWAddr: n.HWAddr,
		Config: nicConfig{
			DHCP: c.DHCP, DNS: each(c.DNS, netip.Addr.String), Search: c.Search, MTU: c.MTU, Uplink: c.Uplink, Mode: c.Mode,
			Group: text(c.Group), Port: c.Port,
		},
		Status: "down", Interface: has.Name, Addresses: each(has.Addrs, netip.Prefix.String),
	}
	if has.Up {
		o.Status = "up"
	}
	if len(c.CIDRs) > 0 {
		o.Config.CIDR = c.CIDRs[0].String()
	}
	if len(c.CIDRs) > 1 {
		o.Config.CIDRs = each(c.CIDRs, netip.Prefix.String)
	}
	if len(c.Gateways) > 0 {
		o.Config.Gateway = c.Gateways[0].String()
	}
	if len(c.Gateways) > 1 {
		o.Config.Gateways = each(c.Gateways, netip.Addr.String)
	}
	if len(c.Peers) > 0 {
		o.Config.Peers = each(c.Peers, netip.Addr.String)
	}
	for _, r := range c.Routes {
		o.Config.Routes = append(o.Config.Routes, nicRoute{To: r.To.String(), Via: text(r.Via)})
	}
	if c.Rate != (netcfg.Rate{}) {
		o.Config.Rate = &nicRate{In: bitrate(c.Rate.In), Out: bitrate(c.Rate.Out)}
	}
	return o
}

// text is an address, or nothing.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// nicsOut are the NICs of a container.
func nicsOut(c node.Container) []nic {
	out := []nic{}
	for i, n := range c.Spec.NICs {
		var has node.NICState
		if i < len(c.NICs) {
			has = c.NICs[i]
		}
		out = append(out, nicOut(n, has))
	}
	return out
}

type containerUpdate struct {
	NICs  *[]nic    `json:"nics"`
	Ports *[]string `json:"ports"` // ours
}

func (d *Dialect) updateContainer(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	req, err := api.Decode[containerUpdate](w, r)
	if err != nil {
		return err
	}
	if req.NICs == nil && req.Ports == nil {
		return errs.E(errs.Invalid, "field \"nics\" is missing, and so is \"ports\"; an empty list takes all away")
	}
	var c node.Change
	if req.NICs != nil {
		nics, err := nicsIn(*req.NICs)
		if err != nil {
			return err
		}
		caller := auth.Of(r.Context())
		if what := (auth.Reach{NICs: nicTypes(nics)}).Beyond(); what != "" && !caller.Limits.Node(d.id) {
			return errs.E(errs.Forbidden, "%s is limited to some containers, and %s reaches others", caller.Name, what)
		}
		c.NICs = &nics
	}
	if req.Ports != nil {
		ports, err := portsIn(*req.Ports, d.publish)
		if err != nil {
			return err
		}
		c.Ports = &ports
	}
	if err := d.node.Update(r.Context(), name, c); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func portsIn(texts []string, publish netip.Addr) ([]netcfg.Port, error) {
	var ports []netcfg.Port
	for _, text := range texts {
		p, err := netcfg.ParsePort(text, publish)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}
