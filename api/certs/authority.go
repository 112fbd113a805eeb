// Package certs is the certificate authority that a daemon is to those who talk
// to it by TLS, and how they trust it.
//
// The authority lasts; what it signs for the daemon itself is made when it is
// needed and renewed after two thirds of its life, without a file and without a
// restart. Its clients know the authority by its pin, so neither names nor
// addresses of the daemon need to be known to anybody before.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/tlspin"
)

const (
	authorityLife = 30 * 365 * 24 * time.Hour // longer than machines last
	serverLife    = 90 * 24 * time.Hour
)

// Authority signs certificates.
type Authority struct {
	root *x509.Certificate
	key  crypto.Signer
	now  func() time.Time

	mu     sync.Mutex // guards server
	server *tls.Certificate
}

// Open reads the authority in a directory, which it makes at first: ca.crt for
// everybody, and ca.key, which nobody else may have.
func Open(dir string) (*Authority, error) {
	a := &Authority{now: time.Now}
	file := filepath.Join(dir, "ca.key")
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.create(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of the certificate authority: %w", err)
	}
	// The certificate is in the same file, so that the two are of one another.
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return nil, errs.E(errs.Invalid, "the certificate authority in %s is broken: %w; remove the file for a new one, which clients and nodes must be told of", file, err)
	}
	a.root, a.key = pair.Leaf, pair.PrivateKey.(crypto.Signer) //nolint:forcetypeassert // so says tls.Certificate
	return a, atomicfile.Write(filepath.Join(dir, "ca.crt"), a.PEM(), 0o644)
}

func (a *Authority) create(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the certificate authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := a.now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "buoy " + strings.ToLower(rand.Text()[:8])},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := a.sign(template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), a.PEM()...)
	return errors.Join(
		atomicfile.Write(filepath.Join(dir, "ca.key"), both, 0o600),
		atomicfile.Write(filepath.Join(dir, "ca.crt"), a.PEM(), 0o644),
	)
}

func (a *Authority) sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return der, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// Pin is what clients know the authority by: the SHA-256 of its public key, in hex.
func (a *Authority) Pin() string { return tlspin.Of(a.root) }

// Pool trusts the authority.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}

// Client signs a request for a certificate of a client, whose name in it is uri.
func (a *Authority) Client(request []byte, uri *url.URL, expires time.Time) ([]byte, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errs.E(errs.Invalid, "the certificate request is not in PEM: want -----BEGIN CERTIFICATE REQUEST-----")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "the certificate request is broken: %w", err)
	}
	der, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: uri.String()}, URIs: []*url.URL{uri},
		NotBefore: a.root.NotBefore, NotAfter: expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, a.root, req.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Server is how a daemon answers by TLS. names are its own, for clients that
// trust the authority but do not pin it.
func (a *Authority) Server(names func() []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.Pool(),
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.own(names) },
	}
}

// own is the daemon's certificate now. A clock that was wrong when it was made
// and is right now is one of the reasons to make another one.
func (a *Authority) own(names func() []string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := tlspin.Floor(a.now(), a.root)
	if c := a.server; c != nil && c.Leaf.NotAfter.Sub(now) > serverLife/3 && c.Leaf.NotAfter.Sub(now) <= serverLife {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "buoyd"}, NotBefore: a.root.NotBefore, NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range names() {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := a.sign(template, a.root, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a.server = &tls.Certificate{Certificate: [][]byte{der, a.root.Raw}, PrivateKey: key, Leaf: leaf}
	return a.server, nil
}
