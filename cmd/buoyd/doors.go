package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/buoy-edge/buoy/api/audit"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/api/certs"
	"github.com/buoy-edge/buoy/proxy"
)

// doorConfig is what the configuration says of who gets in.
type doorConfig struct {
	certs []proxy.CertFile
	names []string
	admin string
}

func (c *doorConfig) register(f *flag.FlagSet) {
	f.Var(several(&c.certs, readPair), "listen-tls", "`CERT,KEY` files that are shown at --listen in place of buoyd's own; they are read again when they change; may be repeated")
	f.Var(one(&c.admin, readHash), "admin-token-hash", "`SHA256`, in hex, of a token of yours that is an admin's, for machines that nobody can make one on (default: none)")
	f.Var(several(&c.names, text), "listen-name", "`name` or address of this machine in buoyd's own certificate, for clients that do not pin it; may be repeated")
}

func readHash(s string) (string, error) {
	if sum, err := hex.DecodeString(s); s != "" && (err != nil || len(sum) != sha256.Size) {
		return "", errors.New("it is not the 64 hexadecimal digits of a SHA-256")
	}
	return strings.ToLower(s), nil
}

// doors are who gets in, and how that is proven.
type doors struct {
	tokens    *auth.Tokens
	gate      *auth.Gate
	audit     *audit.Log
	authority *certs.Authority // nil with --dev: nothing is encrypted on loopback
	tls       *tls.Config
}

// auditFile is where the record of what was done is.
func auditFile(cfg config) string { return filepath.Join(cfg.data, "audit", "audit.log") }

func newDoors(cfg config, log *slog.Logger) (d doors, err error) {
	if err := os.MkdirAll(filepath.Dir(auditFile(cfg)), 0o700); err != nil {
		return d, fmt.Errorf("make the audit log: %w", err)
	}
	if d.audit, err = audit.Open(auditFile(cfg), log); err != nil {
		return d, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.audit.Close())
		}
	}()
	if d.tokens, err = auth.OpenTokens(filepath.Join(cfg.data, "tokens.json")); err != nil {
		return d, err
	}
	if d.gate, err = auth.NewGate(auth.Config{Tokens: d.tokens, Admin: cfg.doors.admin, Loopback: cfg.dev}); err != nil {
		return d, err
	}
	if cfg.dev {
		return d, nil
	}
	if d.authority, err = certs.Open(filepath.Join(cfg.data, "pki")); err != nil {
		return d, err
	}
	d.tls = d.authority.Server(func() []string { return ownNames(cfg.doors.names) })
	if len(cfg.doors.certs) > 0 {
		shown, err := proxy.NewCertificates(cfg.doors.certs, log)
		if err != nil {
			return d, err
		}
		d.tls.GetCertificate = shown.Shown
	}
	return d, nil
}

// pin is what clients know this daemon by; "" where it has shown them a
// certificate of somebody else's authority, or none.
func (d doors) pin(cfg config) string {
	if d.authority == nil || len(cfg.doors.certs) > 0 {
		return ""
	}
	return d.authority.Pin()
}

// ownNames are the names and addresses of this machine.
func ownNames(given []string) []string {
	names := append([]string{"localhost"}, given...)
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			names = append(names, n.IP.String())
		}
	}
	return names
}
