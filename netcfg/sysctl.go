package netcfg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

const (
	ipForward = "/proc/sys/net/ipv4/ip_forward"
	bootID    = "/proc/sys/kernel/random/boot_id"
)

// setSysctls turns forwarding on, and lets the host reach containers from
// 127.0.0.1 over our bridge (the chain "guard" pays for that).
func (n *Net) setSysctls(s *sock, bridge netlink.Link) (changed []string, err error) {
	local := filepath.Join("/proc/sys/net/ipv4/conf", n.cfg.Bridge, "route_localnet")
	if on, err := n.sysctlOn(local); err != nil {
		return nil, err
	} else if !on {
		if err := n.writeSysctl(local, "1"); err != nil {
			return nil, err
		}
		changed = append(changed, "route_localnet")
	}
	on, err := n.sysctlOn(ipForward)
	if err != nil {
		return changed, err
	}
	remembered, err := n.rememberForward(s, on)
	if err != nil {
		return changed, fmt.Errorf("remember ip_forward: %w", err)
	}
	if alias := n.bridgeAlias(remembered); bridge.Attrs().Alias != alias {
		if err := s.LinkSetAlias(bridge, alias); err != nil {
			return changed, err
		}
		changed = append(changed, "alias")
	}
	if on {
		return changed, nil
	}
	return append(changed, "ip_forward"), n.writeSysctl(ipForward, "1")
}

// rememberForward writes down that ip_forward was 0 before us, so that Reset
// can put it back: on disk before it is changed. One that finds it on because
// of another instance takes over what that one remembers, for whoever leaves
// last has to put it back.
func (n *Net) rememberForward(s *sock, on bool) (wasOffBefore bool, err error) {
	if off, err := n.forwardWasOff(); err != nil || off {
		return off, err
	}
	if on {
		links, err := dumpLinks(s.Handle)
		if err != nil {
			return false, err
		}
		for _, l := range links {
			wasOffBefore = wasOffBefore || n.otherBridge(l) && strings.HasSuffix(l.Attrs().Alias, wasOff)
		}
		if !wasOffBefore {
			return false, nil
		}
	}
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(n.cfg.StateDir, 0o755); err != nil {
		return false, err
	}
	return true, atomicfile.Write(n.forwardFile(), boot, 0o644)
}

func (n *Net) forwardFile() string { return filepath.Join(n.cfg.StateDir, "ip_forward_was_0") }

// forwardWasOff reads what rememberForward wrote. After a reboot it says
// nothing: the sysctl is whatever the machine starts with.
func (n *Net) forwardWasOff() (bool, error) {
	noted, err := os.ReadFile(n.forwardFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	boot, err := os.ReadFile(bootID)
	return bytes.Equal(noted, boot), err
}

// restoreForward undoes setSysctls, unless another instance needs it.
func (n *Net) restoreForward(s *sock) error {
	off, err := n.forwardWasOff()
	if err != nil {
		return err
	}
	if off {
		links, err := dumpLinks(s.Handle)
		if err != nil {
			return err
		}
		needed := false
		for _, l := range links {
			needed = needed || n.otherBridge(l)
		}
		if !needed {
			if err := n.writeSysctl(ipForward, "0"); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(n.forwardFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (n *Net) sysctlOn(path string) (on bool, err error) {
	err = n.onHost(func() error {
		b, err := os.ReadFile(path)
		on = strings.TrimSpace(string(b)) == "1"
		return err
	})
	return on, err
}

func (n *Net) writeSysctl(path, value string) error {
	return n.onHost(func() error { return os.WriteFile(path, []byte(value), 0) })
}
