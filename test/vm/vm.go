// Package vm gives tests whole machines: QEMU guests with a kernel of their
// own, joined by wires that can be cut, with disks that outlive a power cut.
//
//	m := vm.Start(t, vm.Config{Name: "a", Forward: []int{80}})
//	out, err := m.Run(t.Context(), "uname", "-r")
//
// A guest is a kernel of Debian's and a file system in memory with busybox, the
// programs of this tree and what the test adds. It ends with the test, however
// that ends, and leaves nothing. Nothing of it needs root, nor KVM, which is
// used only where BUOY_VM_ACCEL=kvm asks for it.
package vm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/kmod"
	"github.com/buoy-edge/buoy/test/vm/agent"
)

// Env is the variable that allows tests to start machines: they take minutes,
// and memory. What machines need and cannot be had fails a test then.
const Env = "BUOY_TEST_VM"

// Layouts of a guest's cgroups.
const (
	CgroupV2     = "v2"
	CgroupV1     = "v1"
	CgroupHybrid = "hybrid" // v1 with a v2 hierarchy without controllers beside it
)

// Config is a machine as it is bought.
type Config struct {
	Name    string // required: its host name; MAC addresses are made of it
	Memory  int    // MiB; 512
	CPUs    int    // 1
	Cgroup  string // CgroupV2
	Wires   []*Wire
	Disks   []*Disk
	Root    *Disk    // a system of its own, as DebianDisk has it, takes over; Files are not in it, and other disks are not mounted
	Forward []int    // TCP ports of the guest that the host may reach at Addr
	Files   []File   // beside the usual ones, whose place they may take
	NoBuoy  bool     // the programs of this tree are not among the usual ones
	Modules []string // beside the usual ones
	Kernel  []string // further arguments of the kernel

	Bare  bool   // it boots what "make boot" makes, with Files alone beside it, so it has no agent; see API and Console
	Lacks int64  // so many bytes at the end of that initramfs have got lost
	RTC   string // what the clock of its hardware shows at power on, as date(1) has it; the host's time

	Firmware string // one of Firmware…: it boots Image, or what there is on its first wire, BootFiles for example
	Image    string // a disk, as a file of the host that is not written to
}

// What machines have that boot by themselves.
const (
	FirmwareBIOS = "bios" // with iPXE in the ROM of the NIC
	FirmwarePXE  = "pxe"  // a BIOS with PXE that loads undionly.kpxe by TFTP, as most NICs have it
	FirmwareUEFI = "uefi" // with PXE of its own
)

// Disk is found in the guest as /disk/LABEL, where it is mounted. A machine that
// is started again, or another one, finds on it what was written to it.
type Disk struct {
	Label string // required: 1 to 16 bytes
	file  *os.File
}

// Machine is one guest. Its eth0 is QEMU's network, where the host is 10.0.2.2;
// eth1 and on are its wires. Methods that ask the guest wait until it has
// booted. Those without an error end the test, so only its goroutine may call them.
type Machine struct {
	t        testing.TB
	cfg      Config
	kernel   *kmod.Tree
	initrd   *os.File
	bare     *os.File    // the kernel, if it is a bare machine
	firmware string      // if it is not SeaBIOS's and the NIC's own
	ports    map[int]int // of the guest: of the host
	log      console
	run      *run // the present one, or the last
}

// Start starts a machine. It does not wait until it has booted, so several boot
// side by side.
func Start(t testing.TB, cfg Config) *Machine {
	t.Helper()
	Require(t)
	cfg.Memory, cfg.CPUs, cfg.Cgroup = cmp.Or(cfg.Memory, 512), cmp.Or(cfg.CPUs, 1), cmp.Or(cfg.Cgroup, CgroupV2)
	if cfg.Root != nil {
		cfg.Disks = append(slices.Clone(cfg.Disks), cfg.Root)
	}
	m := &Machine{t: t, cfg: cfg, ports: map[int]int{}}
	var err error
	if m.kernel, err = findKernel(); err != nil {
		t.Fatal(err)
	}
	if m.initrd, err = scratch(t); err != nil {
		t.Fatal(err)
	}
	switch {
	case cfg.Bare:
		var f bootFiles
		f, err = makeBoot()
		m.bare = f.unpacked
		if err == nil {
			err = m.writeBare(f.initrd)
		}
	case cfg.Firmware == "":
		err = m.writeInitrd()
	case cfg.Firmware == FirmwarePXE:
		m.firmware = filepath.Join(unpacked(t, "ipxe"), "boot/ipxe.lkrn")
	case cfg.Firmware == FirmwareUEFI:
		m.firmware = filepath.Join(unpacked(t, "ovmf"), "usr/share/ovmf/OVMF.fd")
	}
	if err != nil {
		t.Fatalf("initramfs of %s: %v", cfg.Name, err)
	}
	for _, port := range append(cfg.Forward, agent.Port) {
		m.ports[port] = freePort(t)
	}
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("the console of %s:\n%s", cfg.Name, m.Console())
		}
	})
	m.PowerOn()
	return m
}

// PowerOn starts a machine that is off. Only its disks are as they were.
func (m *Machine) PowerOn() {
	m.t.Helper()
	if m.run != nil && !m.run.over() {
		m.t.Fatalf("%s is on", m.cfg.Name)
	}
	r, err := m.launch()
	if err != nil {
		m.t.Fatalf("start %s: %v", m.cfg.Name, err)
	}
	m.run = r
}

// Kill cuts the power. What the guest had not told its disks to keep is lost.
func (m *Machine) Kill() {
	m.t.Helper()
	if m.run != nil {
		m.run.kill()
	}
}

// Shutdown ends the guest as its init system would: programs are asked to end,
// disks are unmounted.
func (m *Machine) Shutdown(ctx context.Context) error {
	a, err := m.agent(ctx)
	if err != nil {
		return err
	}
	return errors.Join(a.Off(ctx), m.AwaitOff(ctx))
}

// AwaitOff waits until the guest has shut down, or wants to reboot, at which it
// is switched off too: PowerOn is then the second half of the reboot.
func (m *Machine) AwaitOff(ctx context.Context) error {
	select {
	case <-m.run.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is still on: %w", m.cfg.Name, ctx.Err())
	}
}

// commandLimit ends commands whose ctx has no end, so that a test that waits in
// vain says for what.
const commandLimit = 2 * time.Minute

// Run runs a command in the guest to its end and gives its standard output. An
// exit code other than 0 is an *agent.ExitError, which tells what it wrote.
func (m *Machine) Run(ctx context.Context, argv ...string) (stdout string, err error) {
	r, err := m.Exec(ctx, agent.Command{Args: argv})
	return string(r.Stdout), err
}

// Exec is Run with an environment, a directory, an input, and both outputs.
func (m *Machine) Exec(ctx context.Context, c agent.Command) (agent.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	a, err := m.agent(ctx)
	if err != nil {
		return agent.Result{}, err
	}
	r, err := a.Run(ctx, c)
	if err != nil {
		err = fmt.Errorf("%s: %w", m.cfg.Name, err)
	}
	return r, err
}

// Must is Run for what must succeed. It gives the output without white space
// around it.
func (m *Machine) Must(argv ...string) string {
	m.t.Helper()
	out, err := m.Run(m.t.Context(), argv...)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// Process is one that goes on in the guest's background.
type Process struct {
	PID int
	m   *Machine
	a   *agent.Client
}

// Spawn starts a command in the background.
func (m *Machine) Spawn(ctx context.Context, argv ...string) (*Process, error) {
	a, err := m.agent(ctx)
	if err != nil {
		return nil, err
	}
	pid, err := a.Start(ctx, agent.Command{Args: argv})
	return &Process{PID: pid, m: m, a: a}, err
}

// Wait waits for the end and gives the exit code, 128 + signal if one killed it.
func (p *Process) Wait(ctx context.Context) (int, error) {
	r, err := p.a.Wait(ctx, p.PID)
	return r.Code, err
}

// Output is what it has written so far.
func (p *Process) Output(ctx context.Context) (string, error) { return p.a.Output(ctx, p.PID) }

// Signal sends a signal, named as kill(1) does.
func (p *Process) Signal(ctx context.Context, name string) error {
	_, err := p.m.Run(ctx, "kill", "-"+name, fmt.Sprint(p.PID))
	return err
}

// Put writes a file of the guest.
func (m *Machine) Put(ctx context.Context, path string, perm fs.FileMode, data []byte) error {
	a, err := m.agent(ctx)
	if err != nil {
		return err
	}
	return a.Put(ctx, path, perm, bytes.NewReader(data))
}

// Get reads a file of the guest.
func (m *Machine) Get(ctx context.Context, path string) ([]byte, error) {
	a, err := m.agent(ctx)
	if err != nil {
		return nil, err
	}
	return a.Get(ctx, path)
}

// Dial opens a connection from inside the guest, for example to "unix" and
// "/run/buoy/buoy.sock", or to what listens on the guest's loopback.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	a, err := m.agent(ctx)
	if err != nil {
		return nil, err
	}
	return a.Dial(ctx, network, address)
}

// Addr is where the host reaches a forwarded port of the guest. Connections are
// taken also while nobody listens in the guest, and closed then.
func (m *Machine) Addr(port int) string {
	m.t.Helper()
	if m.ports[port] == 0 {
		m.t.Fatalf("port %d of %s is not forwarded", port, m.cfg.Name)
	}
	return fmt.Sprintf("127.0.0.1:%d", m.ports[port])
}

// Console is the end of what the guest has written there, over all its boots.
func (m *Machine) Console() string { return m.log.String() }

// ConsoleOfBoot is the same since the machine was last powered on.
func (m *Machine) ConsoleOfBoot() string { return m.run.log.String() }

// Says waits until the console of this boot has that.
func (m *Machine) Says(text string) {
	m.t.Helper()
	m.Await("the console says "+text, func() bool { return strings.Contains(m.ConsoleOfBoot(), text) })
}

// MAC is the address of the nth NIC, eth0 being 0, of the machine of that name.
func MAC(name string, n int) net.HardwareAddr {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	sum := h.Sum32()
	return net.HardwareAddr{0x52, 0x54, 0, byte(sum >> 8), byte(sum), byte(n)} // QEMU's prefix
}
