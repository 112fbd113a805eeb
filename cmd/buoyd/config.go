package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/buoy-edge/buoy/api"
)

// Where a node keeps its things when nothing else is said.
const (
	defaultData = "/var/lib/buoy"
	defaultRun  = "/run/buoy"
)

// config is the command line.
type config struct {
	data, run   string
	listen      []string
	nodeID      string
	bridge      string
	prefix      netip.Prefix
	prefix6     netip.Prefix
	uplink      string
	cniConf     string
	cniPlugins  []string
	publish     netip.Addr
	dev         bool
	allowReboot bool
	yes         bool
	images      imageConfig
	flist       flistConfig
	fleet       fleetConfig
	level       slog.Level
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// maxSocket is the longest path of a unix socket, sun_path without its NUL.
const maxSocket = 107

var idPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)

// parse reads the command line and fills in what it leaves open.
func parse(args []string, usage io.Writer) (config, error) {
	var c config
	var listen, plugins list
	var cidr, cidr6, publish, level string
	f := flag.NewFlagSet("buoyd", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller says what is wrong
	f.StringVar(&c.data, "data", defaultData, "`directory` of what lasts: images, writable layers, logs, desired state")
	f.StringVar(&c.run, "run", defaultRun, "`directory` of what lasts until reboot; best on a tmpfs")
	f.Var(&listen, "listen", "`HOST:PORT` on loopback to answer at as well (with --dev); may be repeated")
	f.StringVar(&c.nodeID, "node-id", "", "`id` of this node (default: the MAC of the NIC with the default route)")
	f.StringVar(&c.bridge, "bridge", "", "`name` of the bridge of containers' default NICs (default: buoy0)")
	f.StringVar(&cidr, "cidr", "", "IPv4 `prefix` of that bridge (default: 172.18.0.0/16)")
	f.StringVar(&cidr6, "cidr6", "", "IPv6 `prefix` of that bridge, /64 to /120 (default: none)")
	f.StringVar(&c.uplink, "uplink", "", "`link` of the machine that VLANs, VXLANs and macvlans are made on (default: the one with the default route)")
	f.StringVar(&c.cniConf, "cni-conf", "/etc/cni/net.d", "`directory` of the CNI networks")
	f.Var(&plugins, "cni-plugins", "`directory` of CNI plugins; may be repeated (default: /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni)")
	f.StringVar(&publish, "publish", "", "`address` that ports are published at unless they name one (default: all; with --dev 127.0.0.1)")
	f.BoolVar(&c.dev, "dev", false, "a developer's machine: answer on loopback without token, refuse to reboot")
	f.BoolVar(&c.allowReboot, "allow-reboot", false, "reboot this machine through the API in spite of --dev")
	f.BoolVar(&c.yes, "yes", false, "for reset: really do it")
	c.images.register(f)
	c.flist.register(f)
	fleet := c.fleet.register(f)
	f.StringVar(&level, "log-level", "info", "`level`: debug, info, warn or error")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(usage, "Usage: buoyd [reset | version] [flags]")
		f.SetOutput(usage)
		f.PrintDefaults()
	}
	if err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("%q is out of place; the commands are reset and version, and they come before the flags", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["data"] != given["run"] {
		return c, errors.New("--data and --run belong together: give both, or neither for " + defaultData + " and " + defaultRun)
	}
	c.cniPlugins = plugins
	if c.level, err = levelOf(level); err != nil {
		return c, err
	}
	if err := c.flist.check(); err != nil {
		return c, err
	}
	if err := c.complete(listen, cidr, cidr6, publish); err != nil {
		return c, err
	}
	return c, c.fleet.complete(fleet, c.dev)
}

func levelOf(text string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(text, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("--log-level %q is not debug, info, warn or error", text)
}

func (c *config) complete(listen []string, cidr, cidr6, publish string) (err error) {
	for _, dir := range []*string{&c.data, &c.run} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if len(listen) > 0 && !c.dev {
		return errors.New("--listen needs --dev in this version: a TCP port without TLS and tokens is for a developer's machine; use the unix socket")
	}
	if socket := filepath.Join(c.run, "buoy.sock"); len(socket) > maxSocket {
		return fmt.Errorf("--run %s is too long: the path of a socket in it has more than %d bytes", c.run, maxSocket)
	}
	c.listen = append([]string{filepath.Join(c.run, "buoy.sock")}, listen...)
	for _, addr := range listen {
		if err := api.CheckAddr(addr); err != nil {
			return err
		}
	}
	if c.nodeID != "" && !idPattern.MatchString(c.nodeID) {
		return fmt.Errorf("--node-id %q is not of 1 to 63 letters, digits, '.', '_' and '-'", c.nodeID)
	}
	if c.bridge == "" {
		c.bridge = c.defaultBridge()
	}
	c.prefix = c.defaultPrefix()
	if cidr != "" {
		if c.prefix, err = netip.ParsePrefix(cidr); err != nil {
			return fmt.Errorf("--cidr %q is not a prefix like 172.18.0.0/16", cidr)
		}
	}
	if cidr6 != "" {
		if c.prefix6, err = netip.ParsePrefix(cidr6); err != nil {
			return fmt.Errorf("--cidr6 %q is not a prefix like fd12:3456:789a::/64", cidr6)
		}
	}
	c.publish = netip.IPv4Unspecified()
	if c.dev {
		c.publish = netip.MustParseAddr("127.0.0.1")
	}
	if publish != "" {
		if c.publish, err = netip.ParseAddr(publish); err != nil {
			return fmt.Errorf("--publish %q is not an IP address", publish)
		}
	}
	return nil
}

// instance names everything of ours that is not in a directory of ours: cgroups,
// links, nftables. Several instances on a machine differ by their run directory.
func (c *config) instance() string {
	if c.run == defaultRun {
		return "buoy"
	}
	sum := sha256.Sum256([]byte(c.run))
	return "b" + hex.EncodeToString(sum[:])[:7]
}

func (c *config) defaultBridge() string {
	if c.run == defaultRun {
		return "buoy0"
	}
	return "br-" + c.instance()
}

// defaultPrefix is Zero-OS's for the one instance of a machine. Others get a
// part of 10.64.0.0/10 by their run directory, so that they do not meet.
func (c *config) defaultPrefix() netip.Prefix {
	if c.run == defaultRun {
		return netip.MustParsePrefix("172.18.0.0/16")
	}
	sum := sha256.Sum256([]byte(c.run))
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 | sum[0]&63, sum[1] & 0xf0, 0}), 20)
}
