package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/cpio"
	"github.com/buoy-edge/buoy/test/vm/agent"
)

const qemu = "qemu-system-x86_64"

// Require skips t unless it may start machines.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(Env) == "" {
		t.Skipf("SKIPPED: needs QEMU and %s=1 (make test-vm sets it)", Env)
	}
	if runtime.GOARCH != "amd64" {
		t.Fatalf("%s is set but guests are x86-64, and the programs here are for %s", Env, runtime.GOARCH)
	}
	if _, err := exec.LookPath(qemu); err != nil {
		t.Fatalf("%s is set but %v: install qemu-system-x86, as \"make test-vm\" does", Env, err)
	}
}

// scratch is a file without a name, so that it goes with the processes that
// hold it, whatever happens to them.
func scratch(t testing.TB) (*os.File, error) {
	f, err := os.CreateTemp("", "buoy-vm-") //nolint:usetesting // t.TempDir stays when a test is killed
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { f.Close() })
	return f, os.Remove(f.Name())
}

// NewDisk returns an empty disk of so many MiB, with ext4, that lasts as long as the test.
func NewDisk(t testing.TB, label string, size int64) *Disk {
	t.Helper()
	Require(t)
	f, err := scratch(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size << 20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "/proc/self/fd/3")
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return &Disk{Label: label, file: f}
}

// DebianDisk returns a disk with Debian and systemd, for Config.Root. It lasts as
// long as the test.
func DebianDisk(t testing.TB) *Disk {
	t.Helper()
	Require(t)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(moduleRoot(t), "scripts", "vmroot"))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("make a disk: %v: %s", err, stderr.Bytes())
	}
	f, err := scratch(t)
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), "cp", "--sparse=always", strings.TrimSpace(string(out)), "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy a disk: %v: %s", err, out)
	}
	return &Disk{Label: "root", file: f}
}

// writeInitrd writes the guest's first file system.
func (m *Machine) writeInitrd() error {
	program, err := guestProgram()
	if err != nil {
		return err
	}
	modules, err := m.kernel.Closure(append(usualModules, m.cfg.Modules...))
	if err != nil {
		return err
	}
	a := cpio.NewWriter(m.initrd)
	setup := agent.Setup{Name: m.cfg.Name, Cgroup: m.cfg.Cgroup}
	if m.cfg.Root != nil {
		setup.Root = m.cfg.Root.Label
	}
	for _, mod := range modules {
		file := path.Join("/lib/modules", mod.Name+".ko")
		a.File(file, 0o644, mod.Data)
		setup.Modules = append(setup.Modules, file)
	}
	raw, err := json.Marshal(setup)
	if err != nil {
		return err
	}
	a.File(agent.SetupFile, 0o644, raw)
	a.File("/init", 0o755, program)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var/lib"} {
		a.Dir(dir, 0o755)
	}
	files := append(m.cfg.Files, Busybox(m.t, "/")...)
	if m.cfg.Root == nil && !m.cfg.NoBuoy {
		files = append(files, Buoy(m.t)...)
	}
	files = append(files,
		File{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		File{Path: "/etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		File{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost " + m.cfg.Name + "\n")})
	for _, f := range files {
		if err := f.into(a); err != nil {
			return err
		}
	}
	return a.Close()
}

// run is a machine from power on to power off.
type run struct {
	cmd     *exec.Cmd
	ended   chan struct{} // closed when QEMU has ended
	booted  chan struct{} // closed when the agent has answered
	log     console
	monitor *os.File // our end, of a bare machine
	wg      sync.WaitGroup
}

func (r *run) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func (r *run) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	r.wg.Wait()
}

// launch starts QEMU.
func (m *Machine) launch() (*run, error) {
	r := &run{ended: make(chan struct{}), booted: make(chan struct{})}
	r.cmd = exec.CommandContext(context.WithoutCancel(m.t.Context()), qemu, m.args()...) // Cleanup may still ask the guest
	says := io.MultiWriter(&m.log, &r.log)
	r.cmd.Stdout, r.cmd.Stderr = says, says
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true} // no Ctrl-C: Cleanup ends it
	r.cmd.ExtraFiles = []*os.File{m.initrd}
	for _, d := range m.cfg.Disks {
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, d.file)
	}
	for _, w := range m.cfg.Wires {
		end, err := w.plug(m)
		if err != nil {
			return nil, err
		}
		defer end.Close()
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, end)
	}
	if m.cfg.Bare {
		end, err := r.openMonitor()
		if err != nil {
			return nil, err
		}
		defer end.Close()
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, m.bare, end)
	}
	started := make(chan error)
	r.wg.Go(func() {
		// The death signal comes when the thread ends that has started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(r.ended)
		err := r.cmd.Start()
		started <- err
		if err == nil {
			_ = r.cmd.Wait() // how it ended is on the console
		}
		for _, w := range m.cfg.Wires {
			w.unplug(m)
		}
	})
	if err := <-started; err != nil {
		return nil, err
	}
	if !m.cfg.Bare {
		r.wg.Go(func() { m.watchBoot(r) })
	}
	return r, nil
}

// firstFD is the number that the first of ExtraFiles has in QEMU.
const firstFD = 3

func (m *Machine) args() []string {
	accel := os.Getenv("BUOY_VM_ACCEL")
	if accel == "" {
		accel = "tcg,thread=multi" // KVM may be there and yet hang, so it has to be asked for
	}
	kernelArgs := append([]string{"console=ttyS0", "quiet", "panic=-1"}, m.cfg.Kernel...)
	args := []string{
		"-machine", "pc", "-accel", accel, "-cpu", "max", "-smp", fmt.Sprint(m.cfg.CPUs), "-m", fmt.Sprint(m.cfg.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
		"-no-reboot", // a second boot inside one QEMU is slower than a new QEMU
		"-device", "virtio-rng-pci",
	}
	switch m.cfg.Firmware {
	case "":
		image := m.kernel.Image
		if m.cfg.Bare {
			image = fmt.Sprintf("/proc/self/fd/%d", firstFD+1+len(m.cfg.Disks)+len(m.cfg.Wires))
		}
		args = append(args, "-kernel", image, "-append", strings.Join(kernelArgs, " "), "-initrd", fmt.Sprintf("/proc/self/fd/%d", firstFD))
	case FirmwareBIOS:
		args = append(args, "-machine", "graphics=off") // what firmware says is on the console
	case FirmwarePXE:
		args = append(args, "-machine", "graphics=off", "-kernel", m.firmware, "-append", "dhcp net1 && chain tftp://${next-server}/undionly.kpxe")
	case FirmwareUEFI:
		args = append(args, "-bios", m.firmware)
	}
	user := []string{"user,id=n0"}
	for guest, host := range m.ports {
		user = append(user, fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:%d", host, guest))
	}
	nic := func(n int, netdev string) {
		device := fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s", n, MAC(m.cfg.Name, n))
		if n != 1 || m.cfg.Firmware != FirmwareBIOS {
			device += ",romfile="
		}
		if n == 1 && m.cfg.Image == "" && (m.cfg.Firmware == FirmwareBIOS || m.cfg.Firmware == FirmwareUEFI) {
			device += ",bootindex=0"
		}
		args = append(args, "-netdev", netdev, "-device", device)
	}
	if m.cfg.Image != "" {
		args = append(args, "-drive", "file="+m.cfg.Image+",format=raw,if=none,id=image,snapshot=on", "-device", "qemu-xhci", "-device", "usb-storage,drive=image,bootindex=0")
	}
	fd := firstFD + 1
	nic(0, strings.Join(user, ","))
	for i, d := range m.cfg.Disks {
		args = append(args,
			"-drive", fmt.Sprintf("file=/proc/self/fd/%d,format=raw,if=none,id=d%d", fd, i),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=%s", i, d.Label))
		fd++
	}
	for i := range m.cfg.Wires {
		nic(i+1, fmt.Sprintf("dgram,id=n%d,local.type=fd,local.str=%d", i+1, fd))
		fd++
	}
	if m.cfg.Bare {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fd+1), "-mon", "chardev=monitor,mode=readline", "-device", "i6300esb")
	}
	if m.cfg.RTC != "" {
		args = append(args, "-rtc", "base="+m.cfg.RTC)
	}
	return args
}

// watchBoot asks the agent until it answers. QEMU takes connections before the
// guest does, so it is the answer that counts, and attempts are short.
func (m *Machine) watchBoot(r *run) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.wg.Go(func() {
		defer cancel()
		<-r.ended
	})
	a := agent.NewClient(fmt.Sprintf("127.0.0.1:%d", m.ports[agent.Port]))
	for ctx.Err() == nil {
		attempt, done := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := a.Boot(attempt)
		done()
		if err == nil {
			close(r.booted)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// bootLimit is how long a boot may take: 4 s on an idle machine, some times
// that where others are at work. With firmware it may take twice that.
const bootLimit = 90 * time.Second

// agent waits until the guest has booted.
func (m *Machine) agent(ctx context.Context) (*agent.Client, error) {
	r := m.run
	patience := bootLimit
	if m.cfg.Firmware != "" {
		patience *= 2
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-r.booted:
		return agent.NewClient(m.Addr(agent.Port)), nil
	case <-r.ended:
		return nil, fmt.Errorf("%s has ended; its console:\n%s", m.cfg.Name, m.Console())
	case <-limit.C:
		return nil, fmt.Errorf("%s has not booted in %v; its console:\n%s", m.cfg.Name, patience, m.Console())
	case <-ctx.Done():
		return nil, fmt.Errorf("%s has not booted: %w", m.cfg.Name, ctx.Err())
	}
}

// freePort is a port that nobody listens at. It is not one that the kernel
// gives to connections (32768 and up), so it is still free a moment later.
func freePort(t testing.TB) int {
	t.Helper()
	var lc net.ListenConfig
	for range 100 {
		port := 20000 + rand.IntN(10000)
		l, err := lc.Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
}

// console keeps the end of what a guest says.
type console struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

const consoleLen = 64 << 10

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf.Len() > 2*consoleLen {
		_, _ = io.CopyN(io.Discard, &c.buf, consoleLen) // never fails
	}
	return c.buf.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(c.buf.String(), "\r", "")
}
