package buoy

import (
	"context"
	"net/http"
	"net/url"
)

// NIC is a network interface that a container asks for.
type NIC struct {
	Type   string     `json:"type"` // "default", "bridge", "vlan", "vxlan", "macvlan", "ipvlan", "passthrough" or "cni"
	ID     string     `json:"id"`   // bridge, VLAN, VXLAN network, link of the machine or CNI network; empty for "default"
	Name   string     `json:"name,omitempty"`
	HWAddr string     `json:"hwaddr,omitempty"`
	Config *NICConfig `json:"config,omitempty"`

	// In answers only.
	Status    string   `json:"status,omitempty"` // "up" or "down"
	Interface string   `json:"interface,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// NICConfig is how a NIC gets its addresses, and what it may carry.
type NICConfig struct {
	DHCP     bool     `json:"dhcp"`
	CIDR     string   `json:"cidr"`
	Gateway  string   `json:"gateway"`
	DNS      []string `json:"dns"`
	CIDRs    []string `json:"cidrs,omitempty"`    // where there is more than one
	Gateways []string `json:"gateways,omitempty"` // one for IPv4 and one for IPv6
	Routes   []Route  `json:"routes,omitempty"`
	Search   []string `json:"search,omitempty"`
	MTU      int      `json:"mtu,omitempty"`
	Rate     *Rate    `json:"rate,omitempty"`
	Uplink   string   `json:"uplink,omitempty"` // of vlan and vxlan: another than the node's
	Mode     string   `json:"mode,omitempty"`   // of macvlan and ipvlan
	Group    string   `json:"group,omitempty"`  // of vxlan, as are the others
	Peers    []string `json:"peers,omitempty"`
	Port     uint16   `json:"port,omitempty"`
}

// Route is a way to a network.
type Route struct {
	To  string `json:"to"`
	Via string `json:"via,omitempty"`
}

// Rate bounds what a NIC carries, in bits per second.
type Rate struct {
	In  uint64 `json:"in,omitempty"`  // to the container
	Out uint64 `json:"out,omitempty"` // from it
}

// ContainerUpdate is what Update changes; nil stays.
type ContainerUpdate struct {
	NICs  *[]NIC    `json:"nics,omitempty"`
	Ports *[]string `json:"ports,omitempty"`
}

// Update gives a container exactly these NICs and ports, live.
func (c *Client) Update(ctx context.Context, name string, u ContainerUpdate) error {
	return c.Do(ctx, http.MethodPut, containerPath(name), u, nil)
}

// Bridge is a bridge of the node that containers can have NICs on.
type Bridge struct {
	Name        string        `json:"name"`
	HWAddr      string        `json:"hwaddr,omitempty"`
	NetworkMode string        `json:"networkMode"` // "none", "static" (we give addresses) or "dnsmasq" (DHCP)
	NAT         bool          `json:"nat"`
	Setting     BridgeSetting `json:"setting"`
	Status      string        `json:"status,omitempty"` // in answers: "up" or "down"
}

// BridgeSetting is empty in mode "none".
type BridgeSetting struct {
	CIDR  string `json:"cidr,omitempty"` // the bridge's address with its length
	Start string `json:"start,omitempty"`
	End   string `json:"end,omitempty"`
}

// Bridges lists the bridges that were made through the API.
func (c *Client) Bridges(ctx context.Context) ([]Bridge, error) {
	var all []Bridge
	return all, c.Do(ctx, http.MethodGet, "/nodes/{node}/bridges", nil, &all)
}

// Bridge is one of them.
func (c *Client) Bridge(ctx context.Context, name string) (Bridge, error) {
	var b Bridge
	return b, c.Do(ctx, http.MethodGet, bridgePath(name), nil, &b)
}

// CreateBridge makes a bridge, which lasts until it is deleted.
func (c *Client) CreateBridge(ctx context.Context, b Bridge) error {
	return c.Do(ctx, http.MethodPost, "/nodes/{node}/bridges", b, nil)
}

// DeleteBridge removes a bridge. One that is not there is deleted already.
func (c *Client) DeleteBridge(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, bridgePath(name), nil, nil)
}

func bridgePath(name string) string { return "/nodes/{node}/bridges/" + url.PathEscape(name) }
