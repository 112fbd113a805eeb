package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Result is what the plugins gave the container.
type Result struct {
	Addrs    []netip.Prefix
	Gateways []netip.Addr
	Routes   []Route
	DNS      []netip.Addr
	Search   []string
	MAC      net.HardwareAddr // nil: they do not say
	Links    []string         // made on the machine's side
}

// Route is a way to a network.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // zero: directly
}

// checkResult refuses what libcni would stumble over: it takes the entries of
// a result's lists to be there.
func checkResult(b []byte) error {
	var r struct {
		Interfaces, IPs, Routes []*json.RawMessage
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	for _, list := range [][]*json.RawMessage{r.Interfaces, r.IPs, r.Routes} {
		for _, e := range list {
			if e == nil {
				return errors.New("a list in it has an entry null")
			}
		}
	}
	return nil
}

// translate reads a result for the attachment it belongs to.
func translate(made types.Result, a Attachment) (r Result, err error) {
	if made == nil {
		return r, nil
	}
	in, err := types100.NewResultFromResult(made)
	if err != nil {
		return r, fmt.Errorf("read the plugins' result: %w", err)
	}
	for _, i := range in.Interfaces {
		switch {
		case i.Sandbox == "":
			r.Links = append(r.Links, i.Name)
		case i.Name == a.Ifname && i.Mac != "":
			if r.MAC, err = net.ParseMAC(i.Mac); err != nil {
				return r, fmt.Errorf("read the plugins' result: %w", err)
			}
		}
	}
	for _, ip := range in.IPs {
		// One of an interface on the machine's side is not the container's.
		if n := ip.Interface; n != nil && *n >= 0 && *n < len(in.Interfaces) && in.Interfaces[*n].Sandbox == "" {
			continue
		}
		p, ok := prefix(ip.Address)
		if !ok {
			return r, fmt.Errorf("read the plugins' result: address %q is none", ip.Address.String())
		}
		r.Addrs = append(r.Addrs, p)
		if g, ok := addr(ip.Gateway); ok {
			r.Gateways = append(r.Gateways, g)
		}
	}
	for _, to := range in.Routes {
		p, ok := prefix(to.Dst)
		if !ok {
			return r, fmt.Errorf("read the plugins' result: route to %q is none", to.Dst.String())
		}
		via, _ := addr(to.GW)
		r.Routes = append(r.Routes, Route{p.Masked(), via})
	}
	for _, s := range in.DNS.Nameservers {
		if server, err := netip.ParseAddr(s); err == nil {
			r.DNS = append(r.DNS, server)
		}
	}
	r.Search = in.DNS.Search
	if a.MAC != nil && r.MAC != nil && a.MAC.String() != r.MAC.String() {
		return r, errs.E(errs.Invalid, "its plugins gave %s the MAC %s instead of %s; leave out the MAC, or add the plugin tuning to the network",
			a.Ifname, r.MAC, a.MAC)
	}
	return r, nil
}

func addr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

func prefix(n net.IPNet) (netip.Prefix, bool) {
	a, ok := addr(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, bits), true
}
