package nodes

import (
	"net/http"
	"net/netip"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
)

// bridge is a bridge of the node: Zero-OS's Bridge, then its BridgeCreate.
type bridge struct {
	Name    string        `json:"name"`
	Setting bridgeSetting `json:"setting"`
	Status  string        `json:"status"` // up or down; taken and dropped in requests

	HWAddr      string `json:"hwaddr"`
	NetworkMode string `json:"networkMode"` // none, static or dnsmasq
	NAT         bool   `json:"nat"`
}

// bridgeSetting is empty in mode none.
type bridgeSetting struct {
	CIDR  string `json:"cidr"` // the bridge's address
	Start string `json:"start"`
	End   string `json:"end"`
}

func (b bridge) in() (out netcfg.Bridge, err error) {
	out = netcfg.Bridge{Name: b.Name, HWAddr: b.HWAddr, Mode: netcfg.BridgeMode(b.NetworkMode), NAT: b.NAT}
	if b.NetworkMode == "" {
		return out, errs.E(errs.Invalid, "field \"networkMode\" is missing; use none, static or dnsmasq")
	}
	if s := b.Setting.CIDR; s != "" {
		if out.Prefix, err = netip.ParsePrefix(s); err != nil {
			return out, errs.E(errs.Invalid, "field \"setting.cidr\" is %q, which is not an address with its length, like 192.168.7.1/24", s)
		}
	}
	for _, f := range []struct {
		name, text string
		addr       *netip.Addr
	}{{"start", b.Setting.Start, &out.Start}, {"end", b.Setting.End, &out.End}} {
		if f.text == "" {
			continue
		}
		if *f.addr, err = netip.ParseAddr(f.text); err != nil {
			return out, errs.E(errs.Invalid, "field \"setting.%s\" is %q, which is not an IP address", f.name, f.text)
		}
	}
	return out, nil
}

func bridgeOut(b node.Bridge) bridge {
	o := bridge{Name: b.Name, Status: "down", HWAddr: b.HWAddr, NetworkMode: string(b.Mode), NAT: b.NAT}
	if b.Up {
		o.Status = "up"
	}
	if b.Prefix.IsValid() {
		o.Setting = bridgeSetting{CIDR: b.Prefix.String(), Start: text(b.Start), End: text(b.End)}
	}
	return o
}

func (d *Dialect) listBridges(w http.ResponseWriter, _ *http.Request) error {
	api.JSON(w, http.StatusOK, each(d.node.Bridges(), bridgeOut))
	return nil
}

func (d *Dialect) createBridge(w http.ResponseWriter, r *http.Request) error {
	req, err := api.Decode[bridge](w, r)
	if err != nil {
		return err
	}
	b, err := req.in()
	if err != nil {
		return err
	}
	if err := d.node.CreateBridge(r.Context(), b); err != nil {
		return err
	}
	w.Header().Set("Location", "/nodes/"+d.id+"/bridges/"+b.Name)
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (d *Dialect) getBridge(w http.ResponseWriter, r *http.Request) error {
	b, err := d.node.Bridge(api.Param(r, "bridgeid"))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, bridgeOut(b))
	return nil
}

func (d *Dialect) deleteBridge(w http.ResponseWriter, r *http.Request) error {
	if err := absentIsFine(d.node.DeleteBridge(r.Context(), api.Param(r, "bridgeid"))); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
