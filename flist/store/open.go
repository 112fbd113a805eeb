package store

import (
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Options are how stores are asked. The zero value is good.
type Options struct {
	Parallel int            // calls at once for each store; 16 if 0
	Timeout  time.Duration  // how long a store may be silent within a call, connecting included; 10s if 0
	Patience time.Duration  // how long Router.Fetch goes on when its context has no deadline; 2 minutes if 0
	RootCAs  *x509.CertPool // who signs the certificates of stores; nil: the system's
	Share    *Share         // routers with the same one share their stores, limits and troubles; nil: nobody does
}

func (o Options) defaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = 16 // at 10ms a chunk, that many readers take 1,600 chunks a second, more than two cores decrypt
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 2 * time.Minute
	}
	return o
}

// Open is the store at a URL; it touches no network. errs.Invalid if nothing speaks that URL. These are spoken:
//
//	redis rediss zdb ardb   scheme://[[user]:password@]host[:port][/database or namespace]
//	redis+unix zdb+unix     scheme://[:password@]/path/of/socket[?namespace=]
//	dir file                scheme:///path
//	http https              scheme://[user:password@]host[:port][/path]
//	s3 s3s s3+tls           scheme://[key:secret@]host[:port]/bucket[?region=]
//	buoy+http buoy+https    scheme://host:port/nodes/ID, another node of ours
func Open(rawURL string, opt Options) (Store, error) { return open(rawURL, opt) }

// Write is the store at a URL for putting chunks there: all but http, https and other nodes. What was put is durable
// once Close has returned nil.
func Write(rawURL string, opt Options) (Writer, error) {
	g, err := open(rawURL, opt)
	if err != nil {
		return nil, err
	}
	if _, ok := g.backend.(putter); !ok {
		return nil, errs.E(errs.Invalid, "store %s: chunks can only be read from there", g)
	}
	return g, nil
}

func open(rawURL string, opt Options) (*gate, error) {
	opt = opt.defaults()
	u, err := url.Parse(rawURL)
	if err != nil { // whose text holds the password
		return nil, errs.E(errs.Invalid, "the URL of a store cannot be read: scheme://host/path is expected")
	}
	name := plainName(u)
	var b backend
	switch u.Scheme {
	case "dir", "file":
		b, err = openDir(u)
	case "redis", "rediss", "zdb", "ardb", "redis+unix", "zdb+unix":
		b, err = openRESP(u, opt)
	case "http", "https", "buoy+http", "buoy+https":
		b, err = openHTTP(u, opt)
	case "s3", "s3s", "s3+tls":
		b, err = openS3(u, opt)
	default:
		err = errs.E(errs.Invalid, "%q is not a kind of store that is known: redis, rediss, zdb, dir, http, https, s3, s3s, buoy+http", u.Scheme)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "store %s: %w", name, err)
	}
	return newGate(name, b, opt), nil
}

// plainName is the URL without what may be secret: who, and the query.
func plainName(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// hostPort is where to connect to.
func hostPort(u *url.URL, port string) (string, error) {
	if u.Hostname() == "" {
		return "", errs.E(errs.Invalid, "it names no host")
	}
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// secret is the password of a URL; of "password@host", too, as 0-fs spells it.
func secret(u *url.URL) (user, password string) {
	if u.User == nil {
		return "", ""
	}
	if p, ok := u.User.Password(); ok {
		return u.User.Username(), p
	}
	return "", u.User.Username()
}

func trimmed(u *url.URL) string { return strings.Trim(u.Path, "/") }
