package proxy

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// CertFile is a certificate, with those above it, and its key, both PEM.
type CertFile struct{ Cert, Key string }

// Certificates are read again when their files have changed: at most once a
// second, when a client comes.
type Certificates struct {
	files []CertFile
	log   *slog.Logger

	mu     sync.Mutex // guards the fields below
	looked time.Time
	stamps []stamp
	config *tls.Config
}

// stamp tells one content of a file from another.
type stamp struct {
	size int64
	time time.Time
}

// NewCertificates reads all files.
func NewCertificates(files []CertFile, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{files: files, log: log}
	return c, c.load()
}

// Shown is what a client is shown: the first that it can use, or the first of all.
// It is for tls.Config.GetCertificate.
func (c *Certificates) Shown(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := c.current().Certificates
	for i := range all {
		if hello.SupportsCertificate(&all[i]) == nil {
			return &all[i], nil
		}
	}
	return &all[0], nil
}

// load reads all files.
func (c *Certificates) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(c.stamp())
}

// current is what the next client is shown. If the files have become
// unreadable that is what was there before.
func (c *Certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= time.Second {
		c.looked = now
		if stamps := c.stamp(); !equal(stamps, c.stamps) {
			c.stamps = stamps // one complaint for each change
			if err := c.read(stamps); err != nil {
				c.log.Warn("certificates cannot be read, those from before are used", "error", err)
			}
		}
	}
	return c.config
}

func (c *Certificates) stamp() []stamp {
	var all []stamp
	for _, f := range c.files {
		for _, path := range []string{f.Cert, f.Key} {
			var s stamp
			if st, err := os.Stat(path); err == nil {
				s = stamp{st.Size(), st.ModTime()}
			}
			all = append(all, s)
		}
	}
	return all
}

// read makes a new configuration, whose session tickets are its own.
func (c *Certificates) read(stamps []stamp) error {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	for _, f := range c.files {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return errs.E(errs.Invalid, "read certificate %s with key %s: %w", f.Cert, f.Key, err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	c.config, c.stamps = config, stamps
	return nil
}

func equal(a, b []stamp) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].size != b[i].size || !a[i].time.Equal(b[i].time) {
			return false
		}
	}
	return true
}
