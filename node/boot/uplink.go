package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/dhcp"
)

const (
	cableTime   = 5 * time.Second  // some NICs take three to hear the other end
	silenceTold = 10 * time.Second // without an address, until it is said
	silenceMore = 5 * time.Minute  // until it is said again
)

// findUplink chooses the management NIC. It waits for one that may still come,
// not for long: containers wait for it. Other NICs are left as they are; those
// that had to be up to hear whether they have a cable are down again.
func (m *Machine) findUplink(ctx context.Context) (n nic, err error) {
	c := choice{asked: m.cfg.Uplink, booted: m.params.BootIF, before: m.uplinkBefore()}
	var raised []string
	defer func() {
		for _, name := range raised {
			if name == n.name {
				continue
			}
			if _, err := setLink(name, false); err != nil {
				m.cfg.Log.WarnContext(ctx, "a NIC that is not used is up", "error", err)
			}
		}
	}()
	for began := time.Now(); ; {
		all, err := readNICs("/sys/class/net")
		if err != nil {
			return nic{}, err
		}
		n, sure, err := c.choose(all)
		if waited := time.Since(began); sure || waited > cableTime && m.devices.quiet(calm) || waited > mostCalm {
			if err != nil {
				return nic{}, err
			}
			return n, m.keepUplink(n)
		}
		if c.asked != "" {
			all = nil // it is waited for by its name, whatever has a cable
		}
		for _, n := range all {
			changed, err := setLink(n.name, true)
			if err != nil {
				m.cfg.Log.WarnContext(ctx, "NIC is not used", "error", err)
			}
			if changed {
				raised = append(raised, n.name)
			}
		}
		select {
		case <-ctx.Done():
			return nic{}, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// uplinkFile says which NIC it was, since the node is called by it.
func (m *Machine) uplinkFile() string { return filepath.Join(m.cfg.Dir, "uplink") }

func (m *Machine) uplinkBefore() net.HardwareAddr {
	mac, err := net.ParseMAC(readLine(m.uplinkFile()))
	if err != nil {
		return nil
	}
	return mac
}

func (m *Machine) keepUplink(n nic) error {
	if readLine(m.uplinkFile()) == n.mac.String() {
		return nil
	}
	return atomicfile.Write(m.uplinkFile(), []byte(n.mac.String()+"\n"), 0o644)
}

// leaseFile keeps the lease over a restart of buoyd, and is gone when the machine is.
const leaseFile = "/run/boot-lease.json"

// network gets the management NIC an address and keeps it, for as long as ctx
// lasts. If there is no NIC it is waited for.
func (m *Machine) network(ctx context.Context, n nic) error {
	for n.name == "" && ctx.Err() == nil {
		var err error
		if n, err = m.findUplink(ctx); err != nil {
			m.cfg.Log.DebugContext(ctx, "no network yet", "error", err)
		}
	}
	if ctx.Err() == nil {
		m.cfg.Log.InfoContext(ctx, "management NIC", "nic", n.name, "mac", n.mac.String())
		return m.keepLease(ctx, n)
	}
	return nil
}

func (m *Machine) keepLease(ctx context.Context, n nic) error {
	o := dhcp.Options{
		Netns: "/proc/self/ns/net", Link: n.name, Hostname: m.hostname(), Log: m.cfg.Log,
		Enter: func(_ string, f func() error) error { return f() },
	}
	var lease dhcp.Lease
	if raw, err := os.ReadFile(leaseFile); err == nil {
		if err := json.Unmarshal(raw, &lease); err != nil {
			m.cfg.Log.WarnContext(ctx, "the lease is asked for anew", "error", err)
		}
	}
	m.leased(ctx, n, lease)
	got := make(chan struct{}, 1)
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.tellSilence(watch, n, lease.Addr.IsValid(), got)
	}()
	err := dhcp.Keep(ctx, o, lease, func(l dhcp.Lease) {
		m.leased(ctx, n, l)
		if l.Addr.IsValid() {
			select {
			case got <- struct{}{}:
			default:
			}
		}
	})
	cancel()
	<-done
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("keep the address of %s: %w", n.name, err)
}

// tellSilence says, now and then, that there is no address.
func (m *Machine) tellSilence(ctx context.Context, n nic, have bool, got <-chan struct{}) {
	if have {
		return
	}
	for wait := silenceTold; ; wait = silenceMore {
		select {
		case <-ctx.Done():
			return
		case <-got:
			return
		case <-time.After(wait):
			why := "no DHCP server answers: is the cable in the right port, and a DHCP server on that network?"
			if readLine("/sys/class/net/"+n.name+"/carrier") != "1" {
				why = "it does not hear the other end: is the cable in?"
			}
			m.cfg.Log.WarnContext(ctx, "no address yet; containers run without, and it is asked for until there is one", "nic", n.name, "mac", n.mac.String(), "why", why)
		}
	}
}

// leased makes the machine's network what a lease says. The zero lease is none.
func (m *Machine) leased(ctx context.Context, n nic, l dhcp.Lease) {
	link := netcfg.MachineLink{Name: n.name, Addr: l.Addr, MTU: l.MTU}
	if l.Router.IsValid() {
		link.Router = l.Router
	}
	for _, r := range l.Routes {
		link.Routes = append(link.Routes, netcfg.Route(r))
	}
	err := netcfg.SetMachineLink(link)
	if err != nil && link.MTU != 0 { // one that the NIC does not take
		link.MTU = 0
		err = errors.Join(err, netcfg.SetMachineLink(link))
	}
	if err != nil {
		m.cfg.Log.ErrorContext(ctx, "NIC is not as its lease says", "nic", n.name, "error", err)
	}
	if !l.Addr.IsValid() {
		if err := os.Remove(leaseFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.cfg.Log.ErrorContext(ctx, "lease is not forgotten", "error", err)
		}
		return
	}
	raw, err := json.Marshal(l)
	if err == nil {
		err = atomicfile.Write(leaseFile, raw, 0o644)
	}
	err = errors.Join(err, atomicfile.Write("/etc/resolv.conf", resolvConf(l), 0o644))
	if err != nil {
		m.cfg.Log.ErrorContext(ctx, "lease is not kept", "error", err)
	}
	if m.addr.Swap(&l.Addr) == nil || *m.addr.Load() != l.Addr {
		m.cfg.Log.InfoContext(ctx, "address", "nic", n.name, "address", l.Addr, "router", l.Router, "server", l.Server, "dns", l.DNS)
	}
	m.clock.servers(l.NTP)
}

func resolvConf(l dhcp.Lease) []byte {
	var b strings.Builder
	for _, s := range l.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(l.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(l.Search, " "))
	}
	return []byte(b.String())
}
