package hosts

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// What is beyond these is not a machine but a mistake.
const (
	maxCPUs       = 1 << 16
	maxGPUs       = 1 << 12
	maxBytes      = 1 << 60
	maxContainers = 1 << 20
	maxMessage    = 1 << 10 // bytes of a message; what follows is cut off
	maxWord       = 256     // bytes of a name, an id or a reason
)

// reportIn translates the report of a host whose published ports are reached
// at addr.
func reportIn(s hostapi.HostStatus, addr string) (app.Report, error) {
	if err := checkStatus(s); err != nil {
		return app.Report{}, err
	}
	r := app.Report{
		Boot: s.Boot, Seq: s.Sequence, Time: s.Time, Same: s.Same, Total: s.NumContainers,
		CPU: min(s.CPUUtilized, 100), MemoryUsed: s.MemoryUsed, MemoryFree: s.MemoryAvailable,
		DiskFree: s.DiskAvailableOptAiware, DiskTotal: s.DiskTotal, RootFree: s.DiskAvailableRoot, GPUsFree: s.GPUAvailable,
		Others: app.Reserved(s.Others),
	}
	if len(s.ContainerStatus) == 0 {
		return r, nil
	}
	here, err := netip.ParseAddr(addr)
	if err != nil {
		return r, fmt.Errorf("the address that the host has registered: %w", err)
	}
	seen := make(map[string]bool, len(s.ContainerStatus))
	r.Containers = make([]app.Container, 0, len(s.ContainerStatus))
	for i := range s.ContainerStatus {
		c := &s.ContainerStatus[i]
		if c.LaunchID == "" {
			continue // nobody here has ordered it
		}
		if seen[c.LaunchID] {
			return r, errs.E(errs.Invalid, "field \"containerStatus[%d].launchID\": launch %q is there twice", i, c.LaunchID)
		}
		seen[c.LaunchID] = true
		one, err := containerIn(c, here)
		if err != nil {
			return r, errs.E(errs.Invalid, "field \"containerStatus[%d]\", launch %.60q: %w", i, c.LaunchID, err)
		}
		r.Containers = append(r.Containers, one)
	}
	return r, nil
}

func checkStatus(s hostapi.HostStatus) error {
	if s.Same != 0 && len(s.ContainerStatus) > 0 {
		return errs.E(errs.Invalid, "fields \"same\" and \"containerStatus\" exclude each other")
	}
	if !plain(s.Boot) {
		return errs.E(errs.Invalid, "field \"boot\" has control characters or more than %d bytes", maxWord)
	}
	// 101: sums of rounded shares come to a little more than all.
	if !(s.CPUUtilized >= 0 && s.CPUUtilized <= 101) {
		return errs.E(errs.Invalid, "field \"CPUUtilized\" is %v; it must be 0 to 100, percent of all processors together", s.CPUUtilized)
	}
	return inRange(
		amount{"numCPU", int64(s.NumCPU), maxCPUs},
		amount{"vCPUAvailable", s.VCPUAvailable, maxCPUs * 1024},
		amount{"memoryAvailable", s.MemoryAvailable, maxBytes},
		amount{"memoryUsed", s.MemoryUsed, maxBytes},
		amount{"diskAvailableRoot", s.DiskAvailableRoot, maxBytes},
		amount{"diskAvailableOptAiware", s.DiskAvailableOptAiware, maxBytes},
		amount{"diskTotal", s.DiskTotal, maxBytes},
		amount{"numGPU", int64(s.NumGPU), maxGPUs},
		amount{"GPUAvailable", int64(s.GPUAvailable), maxGPUs},
		amount{"numContainers", int64(s.NumContainers), maxContainers},
		amount{"numEngineInstances", int64(s.NumEngineInstances), maxContainers},
		amount{"others.milliCPU", s.Others.MilliCPU, maxCPUs * 1000},
		amount{"others.memory", s.Others.Memory, maxBytes},
		amount{"others.gpus", int64(s.Others.GPUs), maxGPUs},
	)
}

// amount is a field that has a number of things.
type amount struct {
	field string
	n     int64
	most  int64
}

func inRange(amounts ...amount) error {
	for _, a := range amounts {
		if a.n < 0 || a.n > a.most {
			return errs.E(errs.Invalid, "field %q is %d; it must be 0 to %d", a.field, a.n, a.most)
		}
	}
	return nil
}

// containerIn translates a container of a host with address here. Its errors
// name the field.
func containerIn(c *hostapi.ContainerStatus, here netip.Addr) (app.Container, error) {
	if err := checkContainer(c); err != nil {
		return app.Container{}, err
	}
	a := app.Container{
		Launch: c.LaunchID, App: c.EngineID, Name: c.DockerContainerID, ID: c.DockerContainerID,
		State:   cmp.Or(c.State, "running"), // aiWARE's own agent lists only what runs
		Address: c.Address, Started: c.Started, Finished: c.Finished,
		Reason: c.Reason, Message: cut(c.Message), Restarts: c.Restarts, Digest: c.Digest,
		CPU: c.CPUUtilization, Memory: c.MemoryUsed, OOM: c.OOM, Throttled: c.Throttled,
	}
	if c.ExitCode != nil {
		a.ExitCode = *c.ExitCode
	}
	if h := c.Health; h != nil {
		a.Health, a.Failures, a.Checked, a.CheckErr = h.Status, h.Failures, h.LastCheck, cut(h.LastError)
		a.Response = time.Duration(h.ResponseTime * float64(time.Second))
	}
	for key, value := range c.Ports {
		port, at, err := portIn(key, value, here)
		if err != nil {
			return a, err
		}
		if a.Ports == nil {
			a.Ports = make(map[uint16]netip.AddrPort, len(c.Ports))
		}
		a.Ports[port] = at
	}
	return a, nil
}

var digests = regexp.MustCompile(`^[a-z0-9]+:[0-9a-f]+$`)

func isDigest(s string) bool {
	_, hex, _ := strings.Cut(s, ":")
	return len(hex) >= 32 && len(hex) <= 128 && digests.MatchString(s)
}

func checkContainer(c *hostapi.ContainerStatus) error {
	for _, w := range []struct{ field, text string }{
		{"launchID", c.LaunchID},
		{"dockerContainerId", c.DockerContainerID},
		{"reason", c.Reason},
		{"state", c.State},
		{"engineID", c.EngineID},
		{"address", c.Address},
		{"digest", c.Digest},
	} {
		if !plain(w.text) {
			return fmt.Errorf("%s has control characters or more than %d bytes", w.field, maxWord)
		}
	}
	switch {
	case c.Digest != "" && !isDigest(c.Digest): // it pins the image for other hosts
		return fmt.Errorf("digest is %.60q; it must be like sha256:0123…", c.Digest)
	case !(c.CPUUtilization >= 0 && c.CPUUtilization <= 100*maxCPUs):
		return fmt.Errorf("CPUUtilization is %v; it must be percent of one processor", c.CPUUtilization)
	case !(c.Throttled >= 0 && c.Throttled <= 100):
		return fmt.Errorf("throttled is %v; it must be 0 to 100", c.Throttled)
	}
	if err := inRange(amount{"memoryUsed", c.MemoryUsed, maxBytes}, amount{"restarts", int64(c.Restarts), math.MaxInt32}); err != nil {
		return err
	}
	if h := c.Health; h != nil {
		switch {
		case h.Status != "" && h.Status != "unknown" && h.Status != "healthy" && h.Status != "unhealthy":
			return fmt.Errorf("health.status %.60q is none", h.Status)
		case !(h.ResponseTime >= 0 && h.ResponseTime <= 86400):
			return fmt.Errorf("health.responseTime is %v; it must be seconds", h.ResponseTime)
		}
		return inRange(amount{"health.failures", int64(h.Failures), math.MaxInt32})
	}
	return nil
}

// portIn reads "80": "10.0.0.7:20004". Where the address is none in particular,
// it is here.
func portIn(key, value string, here netip.Addr) (uint16, netip.AddrPort, error) {
	number, _, _ := strings.Cut(key, "/") // "53/udp"
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 {
		return 0, netip.AddrPort{}, fmt.Errorf("ports: %.60q is no port", key)
	}
	if strings.HasPrefix(value, ":") {
		value = "0.0.0.0" + value
	}
	at, err := netip.ParseAddrPort(value)
	if err != nil || at.Port() == 0 {
		return 0, netip.AddrPort{}, fmt.Errorf("ports: port %d is published at %.60q, which is no ADDRESS:PORT", port, value)
	}
	switch a := at.Addr().Unmap(); {
	case a.IsUnspecified():
		at = netip.AddrPortFrom(here, at.Port())
	case a != here.Unmap():
		// The balancer goes where this leads, on behalf of strangers.
		return 0, netip.AddrPort{}, fmt.Errorf("ports: port %d is published at %s; a host publishes at the address it has registered, %s, alone", port, a, here)
	}
	return uint16(port), at, nil
}

// cut shortens a message to what is kept of it, between two characters. Of
// control characters, which would tell terminals what to do, line ends stay.
func cut(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, s)
}

// statusOut is the last report of a host.
func statusOut(h app.Host) hostapi.HostStatus {
	r := h.Report
	s := hostapi.HostStatus{
		HostID: h.ID, CPUUtilized: r.CPU, NumCPU: cpus(h.Facts), VCPUAvailable: vcpuAvailable(h),
		MemoryAvailable: r.MemoryFree, MemoryUsed: r.MemoryUsed, DiskAvailableRoot: r.RootFree, DiskAvailableOptAiware: r.DiskFree,
		NumGPU: len(h.Facts.GPUs), GPUAvailable: r.GPUsFree, NumContainers: r.Total, NumEngineInstances: running(r),
		ContainerStatus: make([]hostapi.ContainerStatus, len(r.Containers)),
		Boot:            r.Boot, Sequence: r.Seq, Time: r.Time, DiskTotal: r.DiskTotal, Others: hostapi.Reserved(r.Others),
	}
	for i := range r.Containers {
		s.ContainerStatus[i] = containerOut(&r.Containers[i])
	}
	return s
}

func containerOut(c *app.Container) hostapi.ContainerStatus {
	s := hostapi.ContainerStatus{
		DockerContainerID: c.Name, EngineID: c.App, LaunchID: c.Launch, CPUUtilization: c.CPU, MemoryUsed: c.Memory,
		State: c.State, Reason: c.Reason, Message: c.Message, Address: c.Address, Digest: c.Digest,
		Started: c.Started, Finished: c.Finished, OOM: c.OOM, Restarts: c.Restarts, Throttled: c.Throttled,
	}
	if !c.Finished.IsZero() {
		s.ExitCode = new(c.ExitCode)
	}
	if c.Health != "" {
		s.Health = &hostapi.Health{
			Status: c.Health, Failures: c.Failures, LastCheck: c.Checked, LastError: c.CheckErr, ResponseTime: c.Response.Seconds(),
		}
	}
	for port, at := range c.Ports {
		if s.Ports == nil {
			s.Ports = map[string]string{}
		}
		s.Ports[strconv.Itoa(int(port))] = at.String()
	}
	return s
}

func cpus(f app.Facts) int { return int((f.MilliCPU + 999) / 1000) }

// vcpuAvailable is the free share of the processors, 1024 for each.
func vcpuAvailable(h app.Host) int64 {
	return int64(math.Round(float64(h.Facts.MilliCPU) / 1000 * (1 - h.Report.CPU/100) * 1024))
}

func running(r app.Report) (n int) {
	for i := range r.Containers {
		if r.Containers[i].State == "running" {
			n++
		}
	}
	return n
}
