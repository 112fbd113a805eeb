package nodes

import (
	"cmp"
	"net/netip"
	"net/url"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
)

// statusOut says what a container is doing in the two words that Zero-OS has.
func statusOut(s node.Status) string {
	switch s {
	case node.Running, node.Stopping:
		return "running"
	case node.Creating, node.Standby, node.Restarting, node.Halted, node.Deleting:
		return "halted"
	}
	return "halted"
}

func containerItemOut(c node.Container, publish netip.Addr) containerItem {
	return containerItem{
		Flist: c.Spec.Image, Hostname: hostname(c), ID: c.Spec.Name, Status: statusOut(c.Status), Name: c.Spec.Name,
		State: string(c.Status), Reason: c.Reason, Message: c.Message, Image: c.Spec.Image, Created: c.Created.UTC(),
		Ports: portsOut(c.Spec.Ports, publish), Labels: c.Spec.Labels, Health: healthOut(c.Health),
	}
}

func hostname(c node.Container) string { return cmp.Or(c.Spec.Run.Hostname, c.Spec.Name) }

func containerOut(c node.Container, publish netip.Addr) containerObject {
	o := containerObject{
		NICs: nicsOut(c), Filesystems: some(c.Spec.Filesystems), Flist: c.Spec.Image,
		HostNetworking: c.Spec.HostNetworking, Hostname: hostname(c),
		InitProcesses: each(c.Spec.InitProcesses, initProcessOut), Ports: portsOut(c.Spec.Ports, publish),
		Status: statusOut(c.Status), Storage: storageOut(c.Spec.Storage), ID: c.Spec.Name, Name: c.Spec.Name,

		State: string(c.Status), Reason: c.Reason, Message: c.Message, Image: c.Spec.Image, Digest: c.Digest,
		PID: c.PID, Address: c.Address(), Created: c.Created.UTC(), Started: c.Started.UTC(), Finished: c.Finished.UTC(),
		OOMKilled: c.OOM, Restarts: c.Restarts, Restart: restartOut(c.Spec.Restart), Labels: c.Spec.Labels,
		Command: some(c.Spec.Run.Args), Limits: limitsOut(c.Spec), TTY: c.Spec.Run.TTY, Stdin: c.Spec.Run.Stdin, Lazy: string(c.Spec.Lazy), Fetch: fetchOut(c.Fetch),
		Health: healthOut(c.Health),
	}
	for _, s := range c.Spec.Secrets {
		o.Secrets = append(o.Secrets, secret{Env: s.Env, Path: s.Path})
	}
	for _, h := range c.GPUs {
		o.GPUs = append(o.GPUs, gpuHoldOut(h))
	}
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	// A container that runs again still tells when its last run ended, but an
	// exit code beside "running" would mislead.
	if c.PID == 0 && !c.Finished.IsZero() {
		o.ExitCode = &c.ExitCode
	}
	return o
}

// storageOut is a store's URL without its password.
func storageOut(text string) string {
	if u, err := url.Parse(text); err == nil && u.User != nil {
		return u.Redacted()
	}
	return text
}

func fetchOut(f *node.Fetch) *fetch {
	if f == nil {
		return nil
	}
	return &fetch{Done: f.Done, Total: f.Total, Complete: f.Complete, Path: f.Path, Error: f.Error, Failed: f.Failed.UTC()}
}

func limitsOut(s node.Spec) limits {
	l := s.Run.Limits
	return limits{
		MilliCPU: l.MilliCPU, CPUShares: l.CPUShares, CPUSet: l.CPUSet,
		Memory: size(l.Memory), Swap: size(l.Swap), PIDs: l.PIDs,
	}
}

// portsOut are ports as they are asked for, "8080:80", "127.0.0.1:53:53/udp":
// without the address where that is what a port without one is published at.
func portsOut(ports []netcfg.Port, publish netip.Addr) []string {
	return each(ports, func(p netcfg.Port) string {
		if p.Iface == "" && !p.Within.IsValid() && p.Host.Addr() == publish && publish.Is4() {
			return strings.TrimPrefix(p.String(), publish.String()+":")
		}
		return p.String()
	})
}

func initProcessOut(p node.InitProcess) coreSystem {
	c := coreSystem{Pwd: p.Cwd, Args: []string{}, Environment: some(p.Env), Stdin: p.Stdin}
	if len(p.Args) > 0 {
		c.Name, c.Args = p.Args[0], some(p.Args[1:])
	}
	return c
}

// restartOut is the policy as it was asked for: none is not "no", which keeps a
// container down after a reboot.
func restartOut(r container.Restart) string {
	if r.Policy == "" {
		return ""
	}
	return r.String()
}
