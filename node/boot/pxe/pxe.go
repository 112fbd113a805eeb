// Package pxe boots machines over the network: it tells their firmware where
// to find iPXE, and iPXE where kernel, initramfs and parameters are. All of it
// happens on one link, and nothing is answered anywhere else.
//
// DHCP names a file, TFTP gives it, and from then on it is HTTP. Addresses come
// from the DHCP server that the link has, beside which this is a ProxyDHCP
// server, or from here.
package pxe

import (
	"context"
	"log/slog"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg/dhcp"
)

// Config says who is booted, with what, and where.
type Config struct {
	Link string // required; has an IPv4 address
	Dir  string // required; of kernels, initramfs and iPXE
	Port uint16 // of HTTP; 8067

	Lease  netip.Prefix // addresses to give out, of Link's network; zero: another DHCP server does
	Router netip.Addr   // to tell with them; zero: none
	DNS    []netip.Addr
	Leases string // required with Lease: the file where they are kept

	Params   []string // of every machine's kernel
	Machines string   // file of machines and their parameters; "": all are booted
	Token    string   // with which machines join a fleet; "": none
	Log      *slog.Logger
}

// Server boots machines.
type Server struct {
	cfg      Config
	files    files
	machines *machines
	arrivals *arrivals

	link link // since Run
}

// New checks cfg and reads the list of machines.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Port == 0 {
		cfg.Port = 8067
	}
	if cfg.Link == "" || cfg.Dir == "" {
		return nil, errs.E(errs.Invalid, "booting machines wants a link and a directory of files")
	}
	if cfg.Lease.IsValid() && cfg.Leases == "" {
		return nil, errs.E(errs.Invalid, "addresses are given out only if there is a file to keep leases in")
	}
	m, err := newMachines(cfg.Machines, cfg.Params)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, files: files{cfg.Dir}, machines: m, arrivals: &arrivals{}}, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) (err error) {
	if s.link, err = findLink(s.cfg.Link, s.cfg.Lease); err != nil {
		return err
	}
	if err := s.files.check(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	parts, addresses := []part{s.openHTTP, s.openTFTP, s.openEar}, "another DHCP server's"
	if s.cfg.Lease.IsValid() {
		parts, addresses = append(parts, s.openDHCP), s.cfg.Lease.String()
	} else {
		parts = append(parts, s.openBINL)
	}
	ready := true
	for _, open := range parts {
		serve, err := open(ctx)
		if err != nil {
			serve, ready = func() error { return err }, false // which ends the others
		}
		group.Go(serve)
	}
	if ready {
		s.cfg.Log.InfoContext(ctx, "boots machines", "link", s.link.name, "address", s.link.addr.Addr(), "http", s.cfg.Port, "addresses", addresses)
	}
	group.Go(func() error { return s.watch(ctx) })
	return group.Wait()
}

// part opens a socket; serve answers at it until ctx ends.
type part func(ctx context.Context) (serve func() error, err error)

// openDHCP is the one DHCP server of the link.
func (s *Server) openDHCP(ctx context.Context) (func() error, error) {
	first, last := ends(s.cfg.Lease, s.link.addr)
	server, err := dhcp.NewServer(dhcp.Config{
		Link: s.link.name, Addr: s.link.addr, Start: first, End: last, Router: s.cfg.Router, DNS: s.cfg.DNS,
		Store: leases{s.cfg.Leases}, More: s.boot, Log: s.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := server.Listen(ctx); err != nil {
		return nil, explain(err)
	}
	return func() error {
		<-ctx.Done()
		return server.Close()
	}, nil
}
