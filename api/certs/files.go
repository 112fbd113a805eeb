package certs

import (
	"crypto/tls"
	"os"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// FromFiles shows the certificate in a file, with those above it, whose key is in
// another, both PEM. They are read again when the certificate's has changed; if
// that does not work, what was there before stays.
func FromFiles(cert, key string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	var (
		mu   sync.Mutex // guards what follows
		seen time.Time
		pair *tls.Certificate
	)
	read := func() error {
		st, err := os.Stat(cert)
		if err != nil || st.ModTime().Equal(seen) {
			return err
		}
		next, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return err
		}
		seen, pair = st.ModTime(), &next
		return nil
	}
	if err := read(); err != nil {
		return nil, errs.E(errs.Invalid, "read certificate %s with key %s: %w", cert, key, err)
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		_ = read() // a renewal under way: what is there will do
		return pair, nil
	}, nil
}
