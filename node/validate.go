package node

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu/cdi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
)

// Validate says what is wrong with s as far as that can be said without looking
// at the machine.
func (s Spec) Validate() error {
	if !container.ValidName(s.Name) {
		return errs.E(errs.Invalid, "name %q is not of 1 to 63 letters, digits, '.', '_' and '-'", s.Name)
	}
	if s.Image == "" {
		return errs.E(errs.Invalid, "the image (flist) is missing")
	}
	if err := s.validateStorage(); err != nil {
		return err
	}
	if err := s.Run.Validate(); err != nil {
		return err
	}
	if err := s.validateNetwork(); err != nil {
		return err
	}
	for _, f := range s.Filesystems {
		pool, fs, ok := strings.Cut(f, ":")
		if !ok || !container.ValidName(pool) || !container.ValidName(fs) {
			return errs.E(errs.Invalid, "filesystem %q is not \"pool:filesystem\"", f)
		}
	}
	for _, server := range s.DNS {
		if a, err := netip.ParseAddr(server); err != nil || a.Zone() != "" {
			return errs.E(errs.Invalid, "dns server %q is not an IP address", server)
		}
	}
	if err := s.validateDevices(); err != nil {
		return err
	}
	if err := s.validateHealth(); err != nil {
		return err
	}
	if err := s.validateSecrets(); err != nil {
		return err
	}
	for _, p := range s.InitProcesses {
		if len(p.Args) == 0 || p.Args[0] == "" {
			return errs.E(errs.Invalid, "an init process has no name")
		}
		if err := (container.Spec{Args: p.Args, Env: p.Env, Cwd: p.Cwd}).Validate(); err != nil {
			return err
		}
	}
	return nil
}

// maxCDI bounds the devices of CDI that a container may have.
const maxCDI = 64

func (s Spec) validateDevices() error {
	if len(s.CDI) > maxCDI {
		return errs.E(errs.Invalid, "%d devices of CDI are named; %d is the most", len(s.CDI), maxCDI)
	}
	for _, name := range s.CDI {
		if !cdi.Qualified(name) {
			return errs.E(errs.Invalid, "device %.80q is not vendor.com/class=name", name)
		}
	}
	if s.GPUs == nil {
		return nil
	}
	return s.GPUs.Validate()
}

func (s Spec) validateHealth() error {
	if s.Health == nil {
		return nil
	}
	if err := s.Health.Validate(); err != nil {
		return err
	}
	return container.Spec{Args: s.Health.Args}.Validate()
}

// validateStorage checks what has a meaning for flists only.
func (s Spec) validateStorage() error {
	ref, err := images.ParseRef(s.Image)
	if err != nil {
		return err
	}
	switch s.Lazy {
	case "", LazyAuto, LazyAlways, LazyNever:
	default:
		return errs.E(errs.Invalid, "lazy %q is not auto, always or never", s.Lazy)
	}
	if ref.Kind == images.Flist {
		return validStore(s.Storage)
	}
	if s.Lazy == LazyAlways {
		return errs.E(errs.Invalid, "lazy is for flists, and image %q is none: leave it out", s.Image)
	}
	if s.Storage == "" {
		return nil
	}
	return errs.E(errs.Invalid, "storage %q is the chunk store of an flist, and image %q is none: leave it out", s.Storage, s.Image)
}

// validStore checks the form of a chunk store's URL; the rest is judged by
// those who open it.
func validStore(text string) error {
	if text == "" {
		return nil
	}
	if u, err := url.Parse(text); err != nil || u.Scheme == "" || u.Host == "" && u.Path == "" {
		return errs.E(errs.Invalid, "storage is not a URL like redis://HOST:PORT, zdb://HOST:PORT/NAMESPACE or dir:///PATH")
	}
	return nil
}

func (s Spec) validateNetwork() error {
	for k := range s.Run.Sysctls {
		if s.HostNetworking && strings.HasPrefix(k, "net.") {
			return errs.E(errs.Invalid, "sysctl %q would change the node's network: the container has none of its own", k)
		}
	}
	if s.HostNetworking {
		return nil // NICs and ports have no meaning then, as in Zero-OS
	}
	for i, nic := range s.NICs {
		if err := nic.Validate(); err != nil {
			return err
		}
		for _, other := range s.NICs[:i] {
			if nic.Name != "" && nic.Name == other.Name {
				return errs.E(errs.Invalid, "two NICs are called %q", nic.Name)
			}
			if nic.Key() == other.Key() {
				return errs.E(errs.Invalid, "%s: the container has one already", nic)
			}
		}
	}
	if len(s.Ports) > 0 && !s.hasDefaultNIC() {
		return errs.E(errs.Invalid, "ports need a NIC of type default")
	}
	seen := map[netcfg.Port]bool{}
	for _, p := range s.Ports {
		if seen[p] {
			return errs.E(errs.Invalid, "port %s is published twice", p)
		}
		seen[p] = true
	}
	return nil
}

// hasDefaultNIC says whether s has a NIC on the node's own bridge.
func (s Spec) hasDefaultNIC() bool {
	return !s.HostNetworking && slices.ContainsFunc(s.NICs, func(nic netcfg.NIC) bool { return nic.Type == netcfg.NICDefault })
}
