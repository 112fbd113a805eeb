package hosts

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

const maxLabels = 256

// hostIn translates the facts that a host registers with. from is the address
// it calls from, if it has one.
func hostIn(d hostapi.HostDetail, from netip.Addr) (app.Host, error) {
	if err := checkDetail(d); err != nil {
		return app.Host{}, err
	}
	h := app.Host{
		Name: cmp.Or(d.Name, d.AgentLabel), Labels: d.Labels,
		Facts: app.Facts{
			Arch: d.Arch, OS: d.OS, Kernel: d.Kernel, Version: d.AgentVersionNumber,
			MilliCPU: int64(d.NumCPU) * 1000, Memory: d.Memory, GPUs: gpusIn(d), Addrs: d.IPs,
			AgentLabel: d.AgentLabel, ServerTypeID: d.ServerTypeID, RunModes: d.RunModes,
		},
	}
	if saneID(d.HostID) {
		h.ID = d.HostID
	}
	if h.Name == "" && plain(d.HostID) {
		h.Name = d.HostID
	}
	var err error
	h.Addr, err = addrIn(d.Address, from)
	return h, err
}

// addrIn is where the ports of a host are reached: where it says, where it
// calls from, or, at the unix socket, this machine. The balancer connects to it
// for strangers, so who calls from elsewhere cannot name this machine, or what
// only this machine's links have.
func addrIn(said string, from netip.Addr) (string, error) {
	if said == "" {
		if from.IsValid() {
			return from.WithZone("").String(), nil
		}
		return "127.0.0.1", nil
	}
	a, err := netip.ParseAddr(said)
	a = a.Unmap()
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return "", errs.E(errs.Invalid, "field \"info.address\" is %.60q; it must be an IP address that others reach", said)
	}
	near := !from.IsValid() || from.IsLoopback()
	if !near && a != from && (a.IsLoopback() || a.IsLinkLocalUnicast()) {
		return "", errs.E(errs.Invalid, "field \"info.address\" is %s, which from here is another machine; the host calls from %s", a, from)
	}
	return a.String(), nil
}

// saneID says that a host may have the id it wants: one that is a part of a
// path, a file name and a label without more ado.
func saneID(id string) bool {
	if id == "" || len(id) > 64 || id[0] == '.' || id[0] == '-' {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func checkDetail(d hostapi.HostDetail) error {
	for _, w := range []struct{ field, text string }{
		{"name", d.Name},
		{"agentLabel", d.AgentLabel},
		{"arch", d.Arch},
		{"os", d.OS},
		{"kernel", d.Kernel},
		{"gpu_type", d.GPUType},
		{"agentVersionNumber", d.AgentVersionNumber},
		{"serverTypeID", d.ServerTypeID},
		{"runModes", d.RunModes},
	} {
		if !plain(w.text) {
			return errs.E(errs.Invalid, "field \"info.%s\" has control characters or more than %d bytes", w.field, maxWord)
		}
	}
	if len(d.Labels) > maxLabels || len(d.IPs) > maxLabels || len(d.GPUs) > maxGPUs {
		return errs.E(errs.Invalid, "fields \"info.labels\" and \"info.ips\" may have %d entries, \"info.gpus\" %d", maxLabels, maxGPUs)
	}
	for key, value := range d.Labels {
		if key == "" || !plain(key) || !plain(value) {
			return errs.E(errs.Invalid, "field \"info.labels\": %.60q is no label; names and values have at most %d bytes", key+"="+value, maxWord)
		}
	}
	for _, ip := range d.IPs {
		if !plain(ip) {
			return errs.E(errs.Invalid, "field \"info.ips\": %.60q is no address", ip)
		}
	}
	for _, g := range d.GPUs {
		if !plain(g.Model) || !plain(g.UUID) || g.Memory < 0 {
			return errs.E(errs.Invalid, "field \"info.gpus\": %.60q is no graphics card", g.Model)
		}
	}
	return inRange(amount{"info.numCPU", int64(d.NumCPU), maxCPUs}, amount{"info.memory", d.Memory, maxBytes}, amount{"info.numGPU", int64(d.NumGPU), maxGPUs})
}

func plain(s string) bool { return len(s) <= maxWord && !strings.ContainsFunc(s, unicode.IsControl) }

// gpusIn are the cards, as many of one type as there are if they are not named.
func gpusIn(d hostapi.HostDetail) []app.GPU {
	if len(d.GPUs) == 0 {
		return slices.Repeat([]app.GPU{{Model: d.GPUType}}, d.NumGPU)
	}
	gpus := make([]app.GPU, len(d.GPUs))
	for i, g := range d.GPUs {
		gpus[i] = app.GPU(g)
	}
	return gpus
}

// detailOut are the facts of a host and what has become of it.
func detailOut(h app.HostView) hostapi.HostDetail {
	f := h.Facts
	d := hostapi.HostDetail{
		HostID: h.ID, AgentLabel: f.AgentLabel, AgentVersionNumber: f.Version, IPs: some(f.Addrs),
		Memory: f.Memory, NumCPU: cpus(f), VCPUAvailable: vcpuAvailable(h.Host),
		NumGPU: len(f.GPUs), GPUAvailable: h.Report.GPUsFree, NumEngines: h.Replicas,
		RunModes: f.RunModes, ServerTypeID: f.ServerTypeID, ServerTypeName: f.ServerTypeID,
		IsActive: h.Mode != app.Terminate && h.Liveness != app.Lost, IsEngine: true,
		CreatedDateTime: moment(h.Registered), ModifiedDateTime: moment(h.Changed), LastUpdateDateTime: moment(h.Seen),
		Name: h.Name, Labels: h.Labels, Address: h.Addr, Arch: f.Arch, OS: f.OS, Kernel: f.Kernel,
		Mode: hostapi.Mode(h.Mode), Liveness: string(h.Liveness), Linked: h.Linked,
		Free: &hostapi.Free{MilliCPU: max(h.Free.MilliCPU, 0), Memory: max(h.Free.Memory, 0), GPUs: max(h.Free.GPUs, 0)},
	}
	for _, g := range f.GPUs {
		d.GPUs = append(d.GPUs, hostapi.GPU(g))
	}
	if len(f.GPUs) > 0 {
		d.GPUType = f.GPUs[0].Model
	}
	if h.Report.At.IsZero() { // it has not said yet
		d.GPUAvailable = d.Free.GPUs
	}
	switch h.Mode {
	case app.Drain:
		d.Drain, d.DrainReason, d.DrainDetail = true, h.Reason, h.Detail
	case app.Terminate:
		d.TerminationReason, d.TerminationDetail = h.Reason, h.Detail
		d.TerminationDateTime = moment(h.Terminated)
	case app.Continue, app.Pause:
	}
	return d
}

// moment is a time, nil if there is none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// some is list, or an empty one.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
