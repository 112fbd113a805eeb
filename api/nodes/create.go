package nodes

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node"
)

// maxGrace is the longest stopGrace in seconds, a day.
const maxGrace = 24 * 60 * 60

// specIn translates a create request; ports that name no address are published
// at publish. It checks what gets lost on the way; the rest is the node's to
// judge.
func specIn(c createContainer, publish netip.Addr) (node.Spec, error) {
	name, err := same("id", c.ID, "name", c.Name)
	if err != nil {
		return node.Spec{}, err
	}
	if !container.ValidName(name) {
		return node.Spec{}, errs.E(errs.Invalid,
			"field \"name\" is %q; it must be 1 to 63 letters, digits, dots, dashes and underscores", name)
	}
	image, err := same("flist", c.Flist, "image", c.Image)
	if err != nil {
		return node.Spec{}, err
	}
	if image == "" {
		return node.Spec{}, errs.E(errs.Invalid, "field \"flist\" (or \"image\") is missing; it says what to run")
	}
	s := node.Spec{
		Name: name, Image: image, Storage: c.Storage, Lazy: node.Lazy(c.Lazy), Entrypoint: c.Entrypoint,
		HostNetworking: c.HostNetworking, DNS: c.DNS, Filesystems: c.Filesystems,
		Keep: c.Keep, Standby: c.Standby, Labels: c.Labels,
	}
	if s.Run, err = runIn(c); err != nil {
		return s, err
	}
	for _, one := range c.Secrets {
		s.Secrets = append(s.Secrets, node.Secret{Env: one.Env, Path: one.Path, Value: one.Value})
	}
	if err := devicesIn(c.Devices, &s); err != nil {
		return s, err
	}
	if s.GPUs, err = gpusIn(c.GPUs); err != nil {
		return s, err
	}
	if s.NICs, err = nicsIn(c.NICs); err != nil {
		return s, err
	}
	if s.Ports, err = portsIn(c.Ports, publish); err != nil {
		return s, err
	}
	if c.Restart != "" { // left out is not "no": see the restart policies in docs/containers.md
		if s.Restart, err = container.ParseRestart(c.Restart); err != nil {
			return s, err
		}
	}
	if s.Health, err = healthIn(c.Health); err != nil {
		return s, err
	}
	for _, p := range c.InitProcesses {
		ip, err := initProcessIn(p)
		if err != nil {
			return s, err
		}
		s.InitProcesses = append(s.InitProcesses, ip)
	}
	return s, noNUL(slices.Concat([]string{image, c.Storage}, c.Entrypoint, c.Filesystems)...)
}

// same is the value of a field that has two names.
func same(key1, value1, key2, value2 string) (string, error) {
	if value1 != "" && value2 != "" && value1 != value2 {
		return "", errs.E(errs.Invalid, "fields %q and %q mean the same, but one is %q and the other %q",
			key1, key2, value1, value2)
	}
	return cmp.Or(value1, value2), nil
}

func runIn(c createContainer) (container.Spec, error) {
	s := container.Spec{
		Args: c.Command, Env: slices.Concat(c.Environment, c.Env), Cwd: c.Pwd, User: c.User,
		Hostname: cmp.Or(c.Hostname, c.ID, c.Name), Init: c.Init, TTY: c.TTY, Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		Sysctls: c.Sysctls, ReadOnly: c.ReadOnly, Privileged: c.Privileged, NewPrivileges: c.NewPrivileges,
		CapAdd: c.CapAdd, CapDrop: c.CapDrop, Unconfined: c.Unconfined, UserNS: c.UserNS,
		ShmSize: int64(c.ShmSize), StopSignal: c.StopSignal, StopGraceMillis: int64(math.Round(c.StopGrace * 1000)),
		Limits: container.Limits{
			MilliCPU: c.Limits.MilliCPU, CPUShares: c.Limits.CPUShares, CPUSet: c.Limits.CPUSet,
			Memory: int64(c.Limits.Memory), Swap: int64(c.Limits.Swap), PIDs: c.Limits.PIDs,
		},
		Logs: container.LogLimits{MaxSize: int64(c.Logs.MaxSize), MaxFiles: c.Logs.MaxFiles},
	}
	for _, m := range c.Mounts {
		s.Mounts = append(s.Mounts, container.Mount{
			Type: container.MountType(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Size: int64(m.Size),
		})
		if m.Size < 0 {
			return s, errs.E(errs.Invalid, "field \"mounts.size\" is negative")
		}
	}
	for _, u := range c.Ulimits {
		s.Ulimits = append(s.Ulimits, container.Ulimit(u))
	}
	switch {
	case !(c.StopGrace >= 0 && c.StopGrace <= maxGrace):
		return s, errs.E(errs.Invalid, "field \"stopGrace\" is %v; it must be 0 to %d seconds", c.StopGrace, maxGrace)
	case c.ShmSize < 0:
		return s, errs.E(errs.Invalid, "field \"shmSize\" is negative")
	case c.Limits.Memory < 0:
		return s, errs.E(errs.Invalid, "field \"limits.memory\" is negative; leave it out for no limit")
	}
	return s, goodEnv(s.Env)
}

func initProcessIn(p coreSystem) (node.InitProcess, error) {
	cmd, err := commandIn(p)
	if err != nil {
		return node.InitProcess{}, err
	}
	if p.User != "" {
		return node.InitProcess{}, errs.E(errs.Invalid, "field \"initProcesses.user\" is not supported; they run as the container's user")
	}
	return node.InitProcess{Args: cmd.Args, Env: cmd.Env, Cwd: cmd.Cwd, Stdin: p.Stdin}, nil
}
