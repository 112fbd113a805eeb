// Package tlspin trusts a server by the certificate authority behind it, whose
// public key is known beforehand: its pin, the SHA-256 of the key in hex.
package tlspin

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Of is the pin of an authority.
func Of(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Check says what is wrong with a pin.
func Check(pin string) error {
	if raw, err := hex.DecodeString(pin); err != nil || len(raw) != sha256.Size {
		return errs.E(errs.Invalid, "%q is no pin of a certificate authority: want 64 hexadecimal digits", pin)
	}
	return nil
}

// Config trusts servers of an authority with one of the pins, asked for at each
// handshake, whatever the servers' names are: such an authority signs for one
// daemon. While there are no pins, it trusts what the system trusts.
func Config(pins func() []string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			if have := pins(); len(have) > 0 {
				return verify(s.PeerCertificates, have, time.Now())
			}
			return system(s)
		},
	}
}

// system is what crypto/tls does if it is not told to skip it.
func system(s tls.ConnectionState) error {
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: s.ServerName, Intermediates: between})
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return errs.E(errs.Unavailable, "the server's certificate is of no authority that this machine trusts; give its pin if it is a buoyd: %w", err)
	}
	return err
}

func verify(chain []*x509.Certificate, pins []string, now time.Time) error {
	roots := x509.NewCertPool()
	var root *x509.Certificate
	for _, c := range chain[1:] {
		if c.IsCA && slices.ContainsFunc(pins, func(p string) bool { return strings.EqualFold(p, Of(c)) }) {
			root = c
			roots.AddCert(c)
		}
	}
	if root == nil {
		return errs.E(errs.Unavailable, "the server is not of the certificate authority that is pinned here: it is another daemon, or somebody is in between")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: Floor(now, root), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return errs.E(errs.Unavailable, "the server's certificate is valid until %s, and the clock here says %s: set the one that is wrong",
			chain[0].NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	if err != nil {
		return fmt.Errorf("verify the server's certificate: %w", err)
	}
	return nil
}

// Floor is now, or the time at which an authority was made where the clock says
// that this is still to come: machines without a battery start in 1970.
func Floor(now time.Time, root *x509.Certificate) time.Time {
	if now.Before(root.NotBefore) {
		return root.NotBefore.Add(time.Second)
	}
	return now
}

// Join makes a token that carries a pin, and Cut takes it apart; a token
// without a pin is all secret.
func Join(secret, pin string) string { return secret + "." + pin }

// Cut is the opposite of Join.
func Cut(token string) (secret, pin string) {
	if i := strings.LastIndexByte(token, '.'); i >= 0 && Check(token[i+1:]) == nil {
		return token[:i], token[i+1:]
	}
	return token, ""
}
