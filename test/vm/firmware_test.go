package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// harbour is a machine that boots others over a wire, and is their controller.
type harbour struct {
	*Machine
	wire  *Wire
	node  *Node
	token string
}

// shipName is that of the machine with that firmware.
func shipName(firmware string) string { return "ship-" + firmware }

const controllerURL = "https://10.9.0.1:8443"

// run runs a program in the harbour until the test ends, or this part of it.
func (h *harbour) run(t *testing.T, args ...string) *Process {
	t.Helper()
	p, err := h.Spawn(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			said, _ := p.Output(ctx)
			t.Logf("%s said:\n%s", args[0], said)
		}
		const terminated = 128 + 15 // of programs that do not mind signals
		if err := p.Signal(ctx, "TERM"); err != nil {
			t.Error(err)
		}
		if code, err := p.Wait(ctx); code != 0 && code != terminated || err != nil {
			t.Errorf("%s ended with %d, %v", args[0], code, err)
		}
	})
	return p
}

// boot serves the harbour's wire.
func (h *harbour) boot(t *testing.T, dir string, args ...string) {
	t.Helper()
	server := h.run(t, append([]string{
		"buoy", "boot", "serve", "--interface", "eth1", "--dir", dir, "--join-token", "@/var/lib/buoy/join-token",
		"--param", "console=ttyS0", "--param", "quiet", "--param", "panic=-1", "--param", "buoy.controller=" + controllerURL,
	}, args...)...)
	h.Await("machines can boot", func() bool {
		said, err := server.Output(t.Context())
		return err == nil && strings.Contains(said, "boots machines")
	})
}

// ship boots a machine from the wire and checks what its kernel was told.
func (h *harbour) ship(t *testing.T, firmware string, params ...string) *Machine {
	t.Helper()
	name := shipName(firmware)
	ship := Start(t, Config{Name: name, Memory: 1024, Wires: []*Wire{h.wire}, Firmware: firmware})
	line := strings.Fields(ship.Must("cat", "/proc/cmdline"))
	for _, want := range append(params, "BOOTIF=01-"+strings.ReplaceAll(MAC(name, 1).String(), ":", "-")) {
		if !strings.Contains(" "+strings.Join(line, " ")+" ", " "+want+" ") {
			t.Errorf("the kernel was told %q, and not %s", line, want)
		}
	}
	return ship
}

// joined checks that the ship has the join token, and nobody else there can read it.
func (h *harbour) joined(t *testing.T, ship *Machine) {
	t.Helper()
	const file = "/etc/buoy/conf.d/boot.yaml"
	if got := ship.Must("sh", "-c", "stat -c '%a %u' "+file+"; tail -n 1 "+file); got != fmt.Sprintf("600 0\njoin-token: %q", h.token) {
		t.Errorf("secret: %s", got)
	}
}

// joins boots a machine into what "make boot" makes: by itself it becomes a node
// of the harbour, which has a container started there.
func (h *harbour) joins(t *testing.T, firmware string) {
	t.Helper()
	name := shipName(firmware)
	ship := Start(t, Config{Name: name, Memory: 1024, Wires: []*Wire{h.wire}, Firmware: firmware})
	id := fmt.Sprintf("%x", []byte(MAC(name, 1)))
	n := &Node{Client: h.node.On(id), m: ship}
	ship.await(2*bootLimit, "the harbour reaches it", func() bool {
		_, err := n.Containers(t.Context())
		return err == nil
	})
	if nodes, err := h.node.Nodes(t.Context()); err != nil || !slices.ContainsFunc(nodes, func(n buoy.Node) bool { return n.ID == id }) {
		t.Errorf("it is none of the harbour's nodes, %+v, %v", nodes, err)
	}
	cargo := sleeper("cargo")
	cargo.Flist = "http://" + cargoAt + "/busybox.tar"
	n.create(t, cargo)
	line := strings.Fields(n.inside("cargo", "cat /proc/cmdline"))
	for _, want := range []string{"buoy.label=rack=7", "buoy.controller=" + controllerURL, "BOOTIF=01-" + strings.ReplaceAll(MAC(name, 1).String(), ":", "-")} {
		if !slices.Contains(line, want) {
			t.Errorf("the kernel was told %q, and not %s", line, want)
		}
	}
}

// cargoAt is where the harbour has an image.
const cargoAt = "10.9.0.1:8070"

// TestNetboot boots machines from a wire: beside the DHCP server that is there,
// without one, and by plain files.
func TestNetboot(t *testing.T) {
	t.Parallel()
	examples := filepath.Join(moduleRoot(t), "examples", "netboot")
	files := append(Program(t, "/usr/sbin/dnsmasq"), IPXE(t, "/srv/buoy/ipxe")...)
	files = append(files, BootFiles(t, "/srv/buoy/amd64", Config{Name: "ship", Cgroup: CgroupV2, NoBuoy: true})...)
	files = append(files, RealBoot(t, "/srv/real/amd64")...) // which no firmware but the quickest has to load
	files = append(files,
		File{Path: "/srv/images/busybox.tar", Data: Rootfs(t, Busybox(t, "/")...)},
		File{Path: "/srv/buoy/boot.ipxe", From: filepath.Join(examples, "boot.ipxe")},
		File{Path: "/etc/dnsmasq.conf", From: filepath.Join(examples, "dnsmasq.conf")},
		File{Path: "/etc/buoy/machines", Data: fmt.Appendf(nil, "%s buoy.label=rack=7 buoy.plain-http=%s buoy.reserve=%s\n%s buoy.label=rack=8\n",
			MAC(shipName(FirmwareBIOS), 1), cargoAt, guestReserve, MAC(shipName(FirmwareUEFI), 1))})
	wire := NewWire(t)
	h := &harbour{Machine: Start(t, Config{Name: "harbour", Memory: 1024, Wires: []*Wire{wire}, Files: files}), wire: wire}
	h.Must("sh", "-c", "ip addr add 10.9.0.1/24 dev eth1 && ip addr add fd00:9::1/64 dev eth1 && ip link set eth1 up")
	h.node = h.Buoyd("--node-id", "harbour", "--controller", "self", "--listen", "10.9.0.1:8443")
	h.token = h.Must("cat", "/var/lib/buoy/join-token")
	dnsmasq := []string{
		"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--user=root", "--pid-file=", "--dhcp-leasefile=/tmp/leases",
		"--enable-ra", "--dhcp-range=::,constructor:eth1,ra-only", // iPXE waits 16 seconds for a router of IPv6
	}

	t.Run("beside a DHCP server", func(t *testing.T) {
		h.run(t, append(dnsmasq, "--conf-file=/dev/null", "--port=0", "--interface=eth1", "--bind-interfaces", "--dhcp-range=10.9.0.50,10.9.0.60,2m")...)
		t.Run("into buoy", func(t *testing.T) {
			h.run(t, "httpd", "-f", "-p", cargoAt, "-h", "/srv/images")
			h.boot(t, "/srv/real", "--machines", "/etc/buoy/machines")
			h.joins(t, FirmwareBIOS)
		})
		t.Run("uefi", func(t *testing.T) {
			h.boot(t, "/srv/buoy", "--machines", "/etc/buoy/machines")
			h.joined(t, h.ship(t, FirmwareUEFI, "buoy.controller="+controllerURL, "buoy.label=rack=8"))
		})
	})
	t.Run("without one", func(t *testing.T) {
		h.run(t, append(dnsmasq, "--conf-file=/dev/null", "--port=0", "--interface=eth1")...) // of IPv6 alone
		h.boot(t, "/srv/buoy", "--dhcp", "10.9.0.128/25", "--router", "10.9.0.1", "--leases", "/tmp/boot-leases")
		h.joined(t, h.ship(t, FirmwarePXE))
		if leases := h.Must("cat", "/tmp/boot-leases"); !strings.Contains(leases, MAC(shipName(FirmwarePXE), 1).String()) || !strings.Contains(leases, "10.9.0.1") {
			t.Errorf("leases: %s", leases)
		}
	})
	t.Run("by plain files", func(t *testing.T) {
		h.run(t, append(dnsmasq, "--conf-file=/etc/dnsmasq.conf")...)
		h.run(t, "httpd", "-f", "-h", "/srv/buoy")
		h.ship(t, FirmwareUEFI, "console=ttyS0")
	})
}

// TestBootImage boots machines from a disk.
func TestBootImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range BootFiles(t, dir, Config{Name: "stick", Cgroup: CgroupV2, NoBuoy: true}) {
		if f.From != "" {
			var err error
			if f.Data, err = os.ReadFile(f.From); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(f.Path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
	}
	// As docs/bare-metal.md has it.
	sh("sh", "-ec", `mkdir -p etc/buoy/conf.d; echo "join-token: hush" >etc/buoy/conf.d/boot.yaml; chmod 600 etc/buoy/conf.d/boot.yaml
		find etc | busybox cpio -o -H newc -R 0:0 | cat - initrd.img >both; mv both initrd.img`)
	image := filepath.Join(dir, "image")
	sh(filepath.Join(moduleRoot(t), "scripts", "bootimage"), dir, image, "console=ttyS0", "quiet", "panic=-1", "buoy.rack=7")
	for _, firmware := range []string{FirmwareBIOS, FirmwareUEFI} {
		t.Run(firmware, func(t *testing.T) {
			m := Start(t, Config{Name: "stick-" + firmware, Memory: 1024, Firmware: firmware, Image: image})
			if line := m.Must("cat", "/proc/cmdline"); !strings.Contains(line, " buoy.rack=7") {
				t.Errorf("the kernel was told %q", line)
			}
			if got := m.Must("sh", "-c", "stat -c '%a %u' /etc/buoy/conf.d/boot.yaml; cat /etc/buoy/conf.d/boot.yaml"); got != "600 0\njoin-token: hush" {
				t.Errorf("configuration: %s", got)
			}
		})
	}
}
