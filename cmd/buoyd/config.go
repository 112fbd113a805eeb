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
	"github.com/buoy-edge/buoy/internal/size"
	"github.com/buoy-edge/buoy/node/boot"
)

// Where a node keeps its things when nothing else is said.
const (
	defaultData = "/var/lib/buoy"
	defaultRun  = "/run/buoy"
)

// config is what the command line and the configuration file say.
type config struct {
	data, run   string
	tcp         []string // to listen at, besides the socket
	listen      []string // the socket, and these
	nodeID      string
	bridge      string
	prefix      netip.Prefix
	prefix6     netip.Prefix
	uplink      string
	cniConf     string
	cdiDirs     []string
	gpuRoot     string
	cniPlugins  []string
	publish     netip.Addr
	dev         bool
	allowReboot bool
	logLevel    string
	logBudget   size.Bytes
	keyFile     string // of the keys that seal secrets; "": see secretKeys
	images      imageConfig
	flist       flistConfig
	events      eventsConfig
	doors       doorConfig
	fleet       fleetConfig
	upgrade     upgradeConfig

	started starter // of serve

	file string // the configuration file that the command line names
	yes  bool

	// Of a machine that has booted from our initramfs; nil on others.
	reboot func() error
	damage func(tell func(boot.Damage)) error

	flags *flag.FlagSet
	from  map[string]string // where in a file the value of a flag comes from
	files []string          // that were read
}

// section is flags that belong together.
type section struct {
	title    string
	register func(*flag.FlagSet)
}

// sections are all flags that are keys of the configuration file, too.
func (c *config) sections() []section {
	return []section{
		{"The daemon", c.registerDaemon},
		{"Who gets in", c.doors.register},
		{"Network", c.registerNetwork},
		{"Images", c.images.register},
		{"Flists", c.flist.register},
		{"Events", c.events.register},
		{"Upgrades over the air", c.upgrade.register},
		{"Fleet", c.fleet.register},
		{"Balancer and APIs of a controller", c.fleet.registerController},
	}
}

// maxSocket is the longest path of a unix socket, sun_path without its NUL.
const maxSocket = 107

var idPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func (c *config) registerDaemon(f *flag.FlagSet) {
	f.StringVar(&c.data, "data", defaultData, "`directory` of what lasts: images, writable layers, logs, desired state")
	f.StringVar(&c.run, "run", defaultRun, "`directory` of what lasts until reboot; best on a tmpfs")
	f.Var(several(&c.tcp, readListen), "listen", "`HOST:PORT` to answer at besides the socket: by TLS, to those who have a token; with --dev on loopback, to everybody; may be repeated")
	f.Var(one(&c.nodeID, readID), "node-id", "`id` of this node (default: the MAC of the NIC with the default route)")
	f.BoolVar(&c.dev, "dev", false, "a developer's machine: answer on loopback without token, refuse to reboot")
	f.BoolVar(&c.allowReboot, "allow-reboot", false, "reboot this machine through the API in spite of --dev")
	f.Var(several(&c.cdiDirs, text), "cdi-specs", "`directory` of specs of devices (CDI), the last counts most; may be repeated (default: /etc/cdi, /var/run/cdi)")
	f.StringVar(&c.gpuRoot, "gpu-root", "/", "`directory` that is looked for GPUs and their drivers as if it were /, like that of a container that brings a driver")
	f.StringVar(&c.keyFile, "secrets-key", "", "`file` of the keys that seal secrets on the disk (default: $CREDENTIALS_DIRECTORY/"+keyCredential+" if it is there, else DATA/"+keyFile+", which is made)")
	f.Var(one(&c.logBudget, readSize), "log-budget", "`size` of all containers' logs together (default 0: a tenth of the disk, 2GiB at most)")
	c.logLevel = "info"
	f.Var(one(&c.logLevel, choice("debug", "info", "warn", "error")), "log-level", "`level`: debug, info, warn or error")
}

func (c *config) registerNetwork(f *flag.FlagSet) {
	f.StringVar(&c.bridge, "bridge", "", "`name` of the bridge of containers' default NICs (default: buoy0)")
	f.Var(one(&c.prefix, parsed(netip.ParsePrefix, "a prefix like 172.18.0.0/16")), "cidr", "IPv4 `prefix` of that bridge (default: 172.18.0.0/16)")
	f.Var(one(&c.prefix6, parsed(netip.ParsePrefix, "a prefix like fd12:3456:789a::/64")), "cidr6", "IPv6 `prefix` of that bridge, /64 to /120 (default: none)")
	f.StringVar(&c.uplink, "uplink", "", "`link` of the machine that VLANs, VXLANs and macvlans are made on (default: the one with the default route)")
	f.StringVar(&c.cniConf, "cni-conf", "/etc/cni/net.d", "`directory` of the CNI networks")
	f.Var(several(&c.cniPlugins, text), "cni-plugins", "`directory` of CNI plugins; may be repeated (default: /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni)")
	f.Var(one(&c.publish, parsed(netip.ParseAddr, "an IP address")), "publish", "`address` that ports are published at unless they name one (default: all; with --dev 127.0.0.1)")
}

func readListen(s string) (string, error) { return s, api.CheckAddr(s, false) }

func readID(s string) (string, error) {
	if s != "" && (len(s) > 63 || !idPattern.MatchString(s)) {
		return "", errors.New("it is not of 1 to 63 letters, digits, '.', '_' and '-'")
	}
	return s, nil
}

// newConfig has the flags and their defaults.
func newConfig() *config {
	c := &config{flags: flag.NewFlagSet("buoyd", flag.ContinueOnError), from: map[string]string{}}
	c.flags.SetOutput(io.Discard) // the caller says what is wrong
	for _, s := range c.sections() {
		s.register(c.flags)
	}
	c.flags.StringVar(&c.file, "config", "", "`file` to read what the command line leaves open from (default: "+defaultFile+" if it is there, unless --data or --run is given)")
	c.flags.BoolVar(&c.yes, "yes", false, "for reset: really do it")
	return c
}

// parse reads the command line, then the configuration file for what that
// leaves open, and completes both.
func parse(args []string, usage io.Writer) (config, error) {
	c := newConfig()
	err := c.flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(usage, "Usage: buoyd ["+strings.Join(verbs, " | ")+"] [flags]")
		c.flags.SetOutput(usage)
		c.flags.PrintDefaults()
	}
	if err != nil {
		return *c, err
	}
	if c.flags.NArg() > 0 {
		return *c, fmt.Errorf("%q is out of place; the commands are %s, and they come before the flags", c.flags.Arg(0), strings.Join(verbs, ", "))
	}
	given := c.given()
	settings, files, err := c.settings()
	if err != nil {
		return *c, err
	}
	// Again, since what is given on the command line replaces what is in a
	// file, also where it may be repeated.
	c = newConfig()
	c.files = files
	for _, s := range settings {
		if given[s.key] {
			continue
		}
		if err := c.set(s); err != nil {
			return *c, err
		}
	}
	if err := c.flags.Parse(args); err != nil {
		return *c, err
	}
	return *c, c.located(c.complete())
}

// given are the flags that have been set.
func (c *config) given() map[string]bool {
	given := map[string]bool{}
	c.flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return given
}

// level is that of the log.
func (c *config) level() (l slog.Level) {
	_ = l.UnmarshalText([]byte(c.logLevel)) // it is one of four
	return l
}

func (c *config) complete() (err error) {
	if given := c.given(); given["data"] != given["run"] {
		return errors.New("--data and --run belong together: give both, or neither for " + defaultData + " and " + defaultRun)
	}
	for _, dir := range []*string{&c.data, &c.run} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	for _, addr := range c.tcp {
		if err := api.CheckAddr(addr, c.dev); err != nil {
			return misfit("listen", "%s: with --dev, everybody who reaches it may do all, so it must be one of loopback; without, TLS and a token are asked for", addr)
		}
	}
	if c.dev && len(c.doors.certs) > 0 {
		return misfit("listen-tls", "does not go with --dev, which speaks plain HTTP on loopback")
	}
	if socket := filepath.Join(c.run, "buoy.sock"); len(socket) > maxSocket {
		return misfit("run", "%s is too long: the path of a socket in it has more than %d bytes", c.run, maxSocket)
	}
	c.listen = append([]string{filepath.Join(c.run, "buoy.sock")}, c.tcp...)
	if c.bridge == "" {
		c.bridge = c.defaultBridge()
	}
	if !c.prefix.IsValid() {
		c.prefix = c.defaultPrefix()
	}
	if !c.publish.IsValid() {
		c.publish = netip.IPv4Unspecified()
		if c.dev {
			c.publish = netip.MustParseAddr("127.0.0.1")
		}
	}
	return c.fleet.complete(c.dev)
}

// misfitError is about a value that does not go with others.
type misfitError struct{ flag, text string }

func (e *misfitError) Error() string { return "--" + e.flag + " " + e.text }

func misfit(name, format string, args ...any) error {
	return &misfitError{name, fmt.Sprintf(format, args...)}
}

// located says of an error where in a file the value is.
func (c *config) located(err error) error {
	if m, ok := errors.AsType[*misfitError](err); ok && c.from[m.flag] != "" {
		return fmt.Errorf("%s: %s %s", c.from[m.flag], m.flag, m.text)
	}
	return err
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
