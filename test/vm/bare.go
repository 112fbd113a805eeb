package vm

import (
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

	"github.com/buoy-edge/buoy/internal/tlspin"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// bootFiles are what "make boot" makes, without names. QEMU opens them anew.
type bootFiles struct{ kernel, initrd *os.File }

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
	return f, errors.Join(err1, err2)
})

// cut copies a file but for so many bytes at its end.
func cut(to, from *os.File, lacks int64) error {
	all, err := from.Stat()
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, 0, all.Size()-lacks))
	return err
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
	m.Await("the console shows the pin", func() bool {
		all := shownPin.FindAllStringSubmatch(m.ConsoleOfBoot(), -1)
		if len(all) > 0 {
			pin = all[len(all)-1][1]
		}
		return pin != ""
	})
	transport := &http.Transport{TLSClientConfig: tlspin.Config(func() []string { return []string{pin} }), DisableKeepAlives: true}
	client, err := buoy.New("https://"+m.Addr(APIPort), buoy.WithToken(bareToken), buoy.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		m.t.Fatal(err)
	}
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
