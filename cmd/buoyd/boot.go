package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/buoy-edge/buoy/node/boot/pxe"
)

const bootUsage = `Usage: buoy boot serve --interface NAME [flags]

Boot the machines on a link over the network, into buoy. Their addresses come
from the DHCP server that the link has, or, with --dhcp, from here. It runs in
the foreground until SIGINT or SIGTERM, needs root, and answers on that link alone.

Flags:
`

// bootConfig is the command line of "boot serve".
type bootConfig struct {
	pxe   pxe.Config
	token secret
}

// bootOthers is the verb "boot".
func bootOthers(ctx context.Context, args []string, stderr io.Writer) error {
	if len(args) == 0 || args[0] != "serve" {
		return usageError{errors.New(`boot has one verb: "boot serve"; see "buoy boot serve --help"`)}
	}
	c, err := parseBoot(args[1:], stderr)
	if err != nil {
		return usageError{err}
	}
	c.pxe.Log = slog.New(slog.NewTextHandler(stderr, nil))
	s, err := pxe.New(c.pxe)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// usageError is about the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newBootConfig() (*bootConfig, *flag.FlagSet) {
	c := &bootConfig{pxe: pxe.Config{Port: 8067, Dir: "/usr/share/buoy/boot", Leases: filepath.Join(defaultData, "boot", "leases.json")}}
	f := flag.NewFlagSet("boot serve", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller says what is wrong
	f.StringVar(&c.pxe.Link, "interface", "", "`name` of the interface whose link machines are booted on; required")
	f.StringVar(&c.pxe.Dir, "dir", c.pxe.Dir, "`directory` that \"make boot\" has made: kernels, initramfs, iPXE")
	f.Var(one(&c.pxe.Port, readPort), "http-port", "`port` of HTTP")
	f.Var(one(&c.pxe.Lease, parsed(netip.ParsePrefix, "a prefix like 10.9.0.128/25")), "dhcp", "`prefix` to give addresses out of, part of the interface's network, where there is no DHCP server")
	f.Var(one(&c.pxe.Router, parsed(netip.ParseAddr, "an IP address")), "router", "with --dhcp: `address` of the router (default: none)")
	f.Var(several(&c.pxe.DNS, parsed(netip.ParseAddr, "an IP address")), "dns", "with --dhcp: `address` of a DNS server; may be repeated")
	f.StringVar(&c.pxe.Leases, "leases", c.pxe.Leases, "with --dhcp: `file` to keep in mind who has which address")
	f.Var(several(&c.pxe.Params, text), "param", "`KEY=VALUE` for the command line of every machine's kernel; may be repeated")
	f.StringVar(&c.pxe.Machines, "machines", "", "`file` with lines \"MAC PARAMETER…\" of machines to boot, and \"* PARAMETER…\" for all others (default: all are booted); read again when it changes")
	f.Var(one(&c.token, func(s string) (secret, error) { return secret(s), nil }), "join-token", "`token` for machines to join their controller with, or @FILE")
	return c, f
}

func readPort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("it is not a port")
	}
	return uint16(n), nil
}

func parseBoot(args []string, usage io.Writer) (*bootConfig, error) {
	c, f := newBootConfig()
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(usage, bootUsage)
		f.SetOutput(usage)
		f.PrintDefaults()
	}
	if err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is out of place: there are only flags", f.Arg(0))
	}
	if c.pxe.Link == "" {
		return nil, errors.New("--interface is missing: it says which link machines are booted on")
	}
	if !c.pxe.Lease.IsValid() {
		for _, name := range []string{"router", "dns", "leases"} {
			if isGiven(f, name) {
				return nil, fmt.Errorf("--%s goes with --dhcp", name)
			}
		}
	}
	c.pxe.Token, err = (&fleetConfig{joinToken: c.token}).token()
	return c, err
}

func isGiven(f *flag.FlagSet, name string) (given bool) {
	f.Visit(func(g *flag.Flag) { given = given || g.Name == name })
	return given
}
