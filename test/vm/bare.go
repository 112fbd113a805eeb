package vm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"

	"github.com/buoy-edge/buoy/internal/cpio"
	"github.com/buoy-edge/buoy/internal/tlspin"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// bootFiles are what "make boot" makes, without names. QEMU opens them anew.
type bootFiles struct {
	kernel, initrd *os.File
	unpacked       *os.File // the kernel as QEMU starts it: its CPU takes three seconds to unpack it
}

// makeBoot makes them once a test run, of the programs of this tree.
var makeBoot = sync.OnceValues(func() (f bootFiles, err error) {
	root, err := findUp("go.mod")
	if err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp("", "buoy-vm-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(filepath.Join(root, "scripts", "boot"), dir)
	cmd.Env = append(os.Environ(), "BIN="+os.Getenv("BUOY_BIN"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return f, fmt.Errorf("make boot: %w: %s", err, out)
	}
	var err1, err2 error
	f.kernel, err1 = os.Open(filepath.Join(dir, "amd64", "vmlinuz"))
	f.initrd, err2 = os.Open(filepath.Join(dir, "amd64", "initrd.img"))
	if err := errors.Join(err1, err2); err != nil {
		return f, err
	}
	packed, err := packedKernel(f.kernel.Name())
	if err != nil {
		return f, err
	}
	if f.unpacked, err = os.CreateTemp(dir, "unpacked-"); err != nil {
		return f, err
	}
	cmd = exec.Command("xz", "-dc", "--single-stream")
	cmd.Stdin, cmd.Stdout = packed, f.unpacked
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("unpack the kernel: %w", err)
	}
	return f, nil
})

// packedKernel is what a bzImage has inside, packed by xz, and behind it the rest.
func packedKernel(image string) (io.Reader, error) {
	raw, err := os.ReadFile(image)
	if err != nil {
		return nil, err
	}
	at := bytes.Index(raw, []byte("\xfd7zXZ\x00"))
	if at < 0 {
		return nil, fmt.Errorf("the kernel is not packed by xz any more: find out how, or have tests start it as it is")
	}
	return bytes.NewReader(raw[at:]), nil
}

// writeBare writes the first file system of a bare machine: the test's files, as
// docs/bare-metal.md has it, and what "make boot" has made.
func (m *Machine) writeBare(made *os.File) error {
	a := cpio.NewWriter(m.initrd)
	for _, f := range m.cfg.Files {
		if err := f.into(a); err != nil {
			return err
		}
	}
	all, err := made.Stat()
	if err := errors.Join(err, a.Close()); err != nil {
		return err
	}
	_, err = io.Copy(m.initrd, io.NewSectionReader(made, 0, all.Size()-m.cfg.Lacks))
	return err
}

// RealBoot is what "make boot" makes, as files of a machine that boots others.
func RealBoot(t testing.TB, dir string) []File {
	t.Helper()
	Require(t)
	f, err := makeBoot()
	if err != nil {
		t.Fatal(err)
	}
	return []File{
		{Path: filepath.Join(dir, "vmlinuz"), From: fmt.Sprintf("/proc/self/fd/%d", f.kernel.Fd())},
		{Path: filepath.Join(dir, "initrd.img"), From: fmt.Sprintf("/proc/self/fd/%d", f.initrd.Fd())},
	}
}

// Bundle makes a bundle of the programs as another version for an upgrade over
// the air, and the key by which a node takes it.
func Bundle(t testing.TB, version string) (bundle string, key File) {
	t.Helper()
	root, dir := moduleRoot(t), t.TempDir()
	for _, args := range [][]string{
		{"make", "--no-print-directory", "programs", "BIN=" + dir + "/bin", "VERSION=" + version},
		{"openssl", "genpkey", "-algorithm", "ed25519", "-out", dir + "/key"},
		{"openssl", "pkey", "-in", dir + "/key", "-pubout", "-out", dir + "/key.pem"},
		{"scripts/bundle", dir + "/bin", version, "amd64", dir + "/key", dir + "/bundle"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "ZSTD_CLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	return dir + "/bundle", File{Path: "/etc/buoy/upgrade-keys/key.pem", From: dir + "/key.pem"}
}

// BlankDisk returns a disk of so many MiB on which nothing is yet, that lasts as
// long as the test.
func BlankDisk(t testing.TB, serial string, size int64) *Disk {
	t.Helper()
	Require(t)
	f, err := scratch(t)
	if err == nil {
		err = f.Truncate(size << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Disk{Label: serial, file: f}
}

// APIPort is where a bare machine answers, if its Kernel has BareAPI.
const APIPort = 8443

// bareToken is an admin's on bare machines.
const bareToken = "a-token-of-the-tests"

// BareAPI are arguments of the kernel that make API work.
func BareAPI() []string {
	return []string{
		fmt.Sprintf("buoy.listen=0.0.0.0:%d", APIPort), fmt.Sprintf("buoy.admin-token-hash=%x", sha256.Sum256([]byte(bareToken))),
		"buoy.reserve=" + guestReserve,
	}
}

// shownPin is what a console says of the certificate to expect.
var shownPin = regexp.MustCompile(` pin=([0-9a-f]{64})`)

// API waits until a bare machine answers, and is a client of it. It knows the
// machine as a person would, by what is on the console.
func (m *Machine) API() *Node {
	m.t.Helper()
	var pin string
	m.await(bootLimit, "the console shows the pin", func() bool {
		all := shownPin.FindAllStringSubmatch(m.ConsoleOfBoot(), -1)
		if len(all) > 0 {
			pin = all[len(all)-1][1]
		}
		return pin != ""
	})
	transport := &http.Transport{TLSClientConfig: tlspin.Config(func() []string { return []string{pin} })}
	client, err := buoy.New("https://"+m.Addr(APIPort), buoy.WithToken(bareToken), buoy.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(transport.CloseIdleConnections)
	m.Await("buoyd is ready", func() bool {
		h, err := client.Health(m.t.Context())
		return err == nil && h.Ready
	})
	return &Node{Client: client, m: m}
}

// Plug puts the cable of eth0 in, or pulls it out, of a bare machine.
func (m *Machine) Plug(in bool) {
	m.t.Helper()
	word := "off"
	if in {
		word = "on"
	}
	m.tell("set_link n0 " + word)
}

// PressPower presses the power button of a bare machine.
func (m *Machine) PressPower() {
	m.t.Helper()
	m.tell("system_powerdown")
}

// tell has QEMU do something.
func (m *Machine) tell(command string) {
	m.t.Helper()
	if _, err := io.WriteString(m.run.monitor, command+"\n"); err != nil {
		m.t.Fatalf("tell QEMU %q: %v", command, err)
	}
}

// openMonitor makes a pair of sockets: ours, and QEMU's.
func (r *run) openMonitor() (theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	r.monitor = os.NewFile(uintptr(fds[0]), "monitor")
	r.wg.Go(func() {
		_, _ = io.Copy(io.Discard, r.monitor) // it says again what it is told, until QEMU ends
		r.monitor.Close()
	})
	return os.NewFile(uintptr(fds[1]), "monitor"), nil
}
