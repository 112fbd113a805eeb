package pxe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/buoy-edge/buoy/internal/testns"
)

// serveEnv has this program be a server, for it has to be in a namespace as a whole.
const serveEnv = "BUOY_TEST_PXE"

func TestMain(m *testing.M) {
	text := os.Getenv(serveEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var cfg Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		panic(err)
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := New(cfg)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
		cancel()
	}()
	if err := s.Run(ctx); err != nil {
		slog.Error("server", "error", err) //nolint:sloglint // it is a program of its own here
		os.Exit(1)
	}
	os.Exit(0)
}

// A quay is a server with two links, of which it serves one:
//
//	box eth0 ── eth1 10.9.0.1/24 server 10.8.0.1/24 eth2 ── eth0 10.8.0.2/24 other
type quay struct {
	t                  *testing.T
	server, box, other string

	ended chan struct{} // closed when the server has
	fails bool          // it is to end with an error
}

func newQuay(t *testing.T, cfg Config) *quay {
	q := &quay{t: t, server: testns.New(t), box: testns.New(t), other: testns.New(t), ended: make(chan struct{})}
	testns.Wire(t, q.server, "eth1", q.box, "eth0")
	testns.Wire(t, q.server, "eth2", q.other, "eth0")
	testns.Sh(t, q.server, "ip addr add 10.9.0.1/24 dev eth1; ip addr add 10.8.0.1/24 dev eth2")
	testns.Sh(t, q.other, "ip addr add 10.8.0.2/24 dev eth0; ip route add default via 10.8.0.1")
	cfg.Link, cfg.Dir = "eth1", t.TempDir()
	put(t, cfg.Dir, "amd64/vmlinuz", "a kernel")
	put(t, cfg.Dir, "amd64/initrd.img", "an initramfs")
	put(t, cfg.Dir, "ipxe/undionly.kpxe", strings.Repeat("iPXE", 1000))
	q.run(cfg)
	return q
}

// run runs a server until the test ends, and then sees that it ends well.
func (q *quay) run(cfg Config) {
	q.t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		q.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(q.t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+string(text))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		q.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		q.t.Fatal(err)
	}
	cmd.Stderr = w
	if err := errors.Join(testns.In(q.server, cmd.Start), w.Close()); err != nil {
		q.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		defer close(q.ended)
		defer close(ready)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			q.t.Log(lines.Text())
			if strings.Contains(lines.Text(), "boots machines") {
				ready <- true
			}
		}
	}()
	q.t.Cleanup(func() {
		stdin.Close()
		<-q.ended
		r.Close()
		if err := cmd.Wait(); (err != nil) != q.fails {
			q.t.Errorf("the server: %v", err)
		}
	})
	if !<-ready {
		q.t.Fatal("the server does not start")
	}
}

// socket is one of a namespace without an address, as firmware has it.
func (q *quay) socket(ns string, at string) *net.UDPConn {
	q.t.Helper()
	var c *net.UDPConn
	err := testns.In(ns, func() (err error) {
		c, err = listenUDP(q.t.Context(), netip.MustParseAddrPort(at), link{name: "eth0"}.share)
		return err
	})
	if err != nil {
		q.t.Fatal(err)
	}
	q.t.Cleanup(func() { c.Close() })
	return c
}

// mac is that of a namespace's eth0.
func (q *quay) mac(ns string) mac {
	q.t.Helper()
	m, err := readMAC(strings.TrimSpace(testns.Sh(q.t, ns, "ip -o link show eth0 | sed 's/.*ether //; s/ .*//'")))
	if err != nil {
		q.t.Fatal(err)
	}
	return m
}

func send(t *testing.T, c *net.UDPConn, m *dhcpv4.DHCPv4, to string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(m.ToBytes(), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// receive is the next message, nil if there is none for so long.
func receive(t *testing.T, c *net.UDPConn, patience time.Duration) *dhcpv4.DHCPv4 {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxPacket)
	n, err := c.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := dhcpv4.FromBytes(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	all      = "255.255.255.255:67"
	patience = 5 * time.Second        // for what comes
	enough   = 200 * time.Millisecond // for what does not
)

// page is what curl gets, or the status.
func (q *quay) page(ns, url string) string {
	q.t.Helper()
	return strings.TrimSpace(testns.Sh(q.t, ns, "curl -s -m 1 -f -o /dev/null -w '%{http_code} %{size_download}' '"+url+"' || true"))
}

func TestProxyLive(t *testing.T) {
	q := newQuay(t, Config{Token: "hush"})
	box, id := q.socket(q.box, "0.0.0.0:68"), q.mac(q.box)
	from := dhcpv4.WithHwAddr(id[:])

	// What is not to be answered is asked first.
	other := q.socket(q.other, "0.0.0.0:68")
	send(t, other, discover(biosClass, iana.INTEL_X86PC), all)
	send(t, other, discover(biosClass, iana.INTEL_X86PC), "10.9.0.1:67")
	send(t, box, discover("MSFT 5.0", iana.INTEL_X86PC, from), all)
	send(t, box, discover(uefiClass, iana.EFI_IA32, from), all)
	send(t, box, discover(uefiClass, iana.EFI_X86_64, from), all) // there is no iPXE for it
	if _, err := box.WriteToUDPAddrPort([]byte("\x01\x01\x06"), netip.MustParseAddrPort(all)); err != nil {
		t.Fatal(err)
	}
	send(t, box, discover(biosClass, iana.INTEL_X86PC, from), all)
	offer := receive(t, box, patience)
	if offer == nil || offer.MessageType() != dhcpv4.MessageTypeOffer || offer.BootFileName != "undionly.kpxe" || !offer.YourIPAddr.IsUnspecified() ||
		offer.ServerIPAddr.String() != "10.9.0.1" {
		t.Fatalf("firmware is told %v", offer)
	}
	if m := receive(t, box, enough); m != nil {
		t.Errorf("one answer too many: %s", m.Summary())
	}
	if m := receive(t, other, enough); m != nil {
		t.Errorf("answered on another link: %s", m.Summary())
	}

	another := mac{2, 0, 0, 0, 0, 9}
	send(t, box, discover(biosClass, iana.INTEL_X86PC, dhcpv4.WithHwAddr(another[:])), all)
	if receive(t, box, patience) == nil {
		t.Error("another machine is not answered")
	}

	testns.Sh(t, q.box, "ip addr add 10.9.0.57/24 dev eth0")
	dir := t.TempDir()
	testns.Sh(t, q.box, "cd "+dir+" && busybox tftp -g -b 1468 -r undionly.kpxe -l got 10.9.0.1")
	if got, err := os.ReadFile(filepath.Join(dir, "got")); err != nil || string(got) != strings.Repeat("iPXE", 1000) {
		t.Errorf("TFTP gave %d bytes: %v", len(got), err)
	}
	if out := testns.Sh(t, q.box, "cd "+dir+" && busybox tftp -g -r ../../etc/passwd -l passwd 10.9.0.1 2>&1 || true"); !strings.Contains(out, "there is no such file") {
		t.Errorf("TFTP says %s", out)
	}

	// By UEFI, after it has an address.
	binl := q.socket(q.box, "10.9.0.57:4011")
	request := discover(biosClass, iana.INTEL_X86PC, from, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest))
	send(t, binl, request, "10.9.0.1:4011")
	if m := receive(t, binl, patience); m == nil || m.MessageType() != dhcpv4.MessageTypeAck || m.BootFileName != "undionly.kpxe" {
		t.Errorf("at port 4011: %v", m)
	}

	const secret = "http://10.9.0.1:8067/secret.img?mac="
	if got := q.page(q.box, secret+another.id()); !strings.HasPrefix(got, "403") {
		t.Errorf("the secret of another machine: %s", got)
	}
	if got := q.page(q.box, secret+id.id()); !strings.HasPrefix(got, "200") {
		t.Errorf("the secret: %s", got)
	}
	// What a program of the machine can say, which now has an address.
	liar := q.socket(q.box, "10.9.0.57:0")
	send(t, liar, discover(biosClass, iana.INTEL_X86PC, from), all)
	send(t, liar, request, "10.9.0.1:4011")
	if m := receive(t, liar, patience); m == nil {
		t.Error("the liar was not heard")
	}
	if got := q.page(q.box, secret+id.id()); !strings.HasPrefix(got, "403") {
		t.Errorf("the secret, to a machine that has long booted: %s", got)
	}

	if got := q.page(q.box, "http://10.9.0.1:8067/amd64/vmlinuz"); got != "200 8" {
		t.Errorf("the kernel: %s", got)
	}
	for _, url := range []string{"http://10.9.0.1:8067/amd64/vmlinuz", "http://10.8.0.1:8067/amd64/vmlinuz", "tftp://10.9.0.1/undionly.kpxe"} {
		if got := q.page(q.other, url); got != "000 0" {
			t.Errorf("%s from another link: %s", url, got)
		}
	}
}

// TestLinkLostLive has links change under a server: it ends, and does not go on unheard.
func TestLinkLostLive(t *testing.T) {
	for name, change := range map[string]string{
		"no address":      "ip addr del 10.9.0.1/24 dev eth1",
		"another address": "ip addr add 10.7.0.1/24 dev eth1; ip addr del 10.9.0.1/24 dev eth1",
		"no link":         "ip link del eth1",
		"another link":    "ip link del eth1; ip link add eth1 type bridge; ip addr add 10.9.0.1/24 dev eth1; ip link set eth1 up",
	} {
		t.Run(name, func(t *testing.T) {
			q := newQuay(t, Config{})
			testns.Sh(t, q.server, change)
			select {
			case <-q.ended:
				q.fails = true
			case <-time.After(patience):
				t.Error("it goes on")
			}
		})
	}
	q := newQuay(t, Config{})
	testns.Sh(t, q.server, "ip link set eth1 down; ip addr add 10.9.1.1/24 dev eth1; ip link set eth1 up")
	box, id := q.socket(q.box, "0.0.0.0:68"), q.mac(q.box)
	var offer *dhcpv4.DHCPv4
	for end := time.Now().Add(patience); offer == nil && time.Now().Before(end); {
		send(t, box, discover(biosClass, iana.INTEL_X86PC, dhcpv4.WithHwAddr(id[:])), all)
		offer = receive(t, box, enough)
	}
	if offer == nil {
		t.Error("a link that was down and is up again is not served")
	}
}

// TestTwoServersLive has a second server at the same link.
func TestTwoServersLive(t *testing.T) {
	q := newQuay(t, Config{})
	dir := t.TempDir()
	put(t, dir, "amd64/vmlinuz", "a kernel")
	put(t, dir, "amd64/initrd.img", "an initramfs")
	text, err := json.Marshal(Config{Link: "eth1", Dir: dir, Port: 8068})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+string(text))
	var said bytes.Buffer
	cmd.Stderr = &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := testns.In(q.server, cmd.Run); err == nil || !strings.Contains(said.String(), "another server of its kind runs here") || strings.Contains(said.String(), "boots machines") {
		t.Errorf("%v: %s", err, &said)
	}
}

func TestLeaseLive(t *testing.T) {
	q := newQuay(t, Config{
		Lease: netip.MustParsePrefix("10.9.0.64/26"), Router: netip.MustParseAddr("10.9.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.9.0.1")},
		Leases: filepath.Join(t.TempDir(), "boot", "leases.json"), Token: "hush",
	})
	box, id := q.socket(q.box, "0.0.0.0:68"), q.mac(q.box)
	from := dhcpv4.WithHwAddr(id[:])
	for _, c := range []struct{ class, file string }{{biosClass, "undionly.kpxe"}, {"udhcp 1.35", ""}} {
		send(t, box, discover(c.class, iana.INTEL_X86PC, from), all)
		m := receive(t, box, patience)
		if m == nil || m.MessageType() != dhcpv4.MessageTypeOffer || m.YourIPAddr.String() != "10.9.0.64" || m.BootFileName != c.file || m.ServerIPAddr.String() != "10.9.0.1" {
			t.Fatalf("%s is offered %v", c.class, m)
		}
		if router := m.Router(); len(router) != 1 || router[0].String() != "10.9.0.1" || len(m.DNS()) != 1 {
			t.Errorf("%s is offered %s", c.class, m.Summary())
		}
		request := discover(c.class, iana.INTEL_X86PC, from, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(m.YourIPAddr)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(m.ServerIdentifier())))
		send(t, box, request, all)
		if m := receive(t, box, patience); m == nil || m.MessageType() != dhcpv4.MessageTypeAck || m.BootFileName != c.file {
			t.Fatalf("%s is given %v", c.class, m)
		}
		if m := receive(t, box, enough); m != nil {
			t.Errorf("one answer too many: %s", m.Summary())
		}
	}
	testns.Sh(t, q.box, "ip addr add 10.9.0.64/24 dev eth0")
	if got := q.page(q.box, "http://10.9.0.1:8067/secret.img?mac="+id.id()); !strings.HasPrefix(got, "200") {
		t.Errorf("the secret: %s", got)
	}
	// A program that has a message brought to the server without broadcasting it.
	send(t, q.socket(q.box, "10.9.0.64:68"), discover(biosClass, iana.INTEL_X86PC, from), "10.9.0.1:67")
	if m := receive(t, box, patience); m == nil {
		t.Error("the liar was not heard")
	}
	if got := q.page(q.box, "http://10.9.0.1:8067/secret.img?mac="+id.id()); !strings.HasPrefix(got, "403") {
		t.Errorf("the secret, to a machine that has long booted: %s", got)
	}
}
