package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api/apps"
	"github.com/buoy-edge/buoy/proxy"
)

// fleetConfig is what the configuration says of the fleet: whose controller this
// is, and what the node tells its own.
type fleetConfig struct {
	controller string // "", "self", or a URL
	joinToken  secret // itself, or "@FILE"
	address    string
	labels     map[string]string
	given      []label
	ports      portRange
	interval   time.Duration

	http, https []string
	certs       []proxy.CertFile
	trusted     []netip.Prefix

	oscPath  string
	oscAllow []netip.Prefix
	rate     int
	hostRate int
}

// self is the controller that is in the same process.
const self = "self"

func (c *fleetConfig) register(f *flag.FlagSet) {
	c.ports = portRange{20000, 29999}
	f.Var(one(&c.controller, readController), "controller", "`URL` of the controller that this node reports to, or \"self\" to be a controller (default: none; with --dev self)")
	f.Var(one(&c.joinToken, func(s string) (secret, error) { return secret(s), nil }), "join-token", "`token` with which this node registers there, or @FILE (default: $BUOY_JOIN_TOKEN)")
	f.Var(one(&c.address, readAddress), "address", "`address` where the controller reaches ports that this node publishes (default: the one that it calls from)")
	f.Var(several(&c.given, readLabel), "label", "`KEY=VALUE` of this node, for placement; may be repeated")
	f.Var(one(&c.ports, readPorts), "port-range", "`FIRST-LAST` port to publish replicas at")
}

func (c *fleetConfig) registerController(f *flag.FlagSet) {
	c.interval, c.oscPath, c.rate, c.hostRate = 30*time.Second, "/osc", 1000, 50
	f.Var(one(&c.interval, atLeast(time.Second)), "report-interval", "`time` between reports of nodes that have nothing new to say")
	f.Var(several(&c.http, text), "http", "`HOST:PORT` where the balancer answers HTTP for apps; may be repeated")
	f.Var(several(&c.https, text), "https", "`HOST:PORT` where it answers HTTPS; may be repeated")
	f.Var(several(&c.certs, readPair), "tls", "`CERT,KEY` files of the balancer, which are read again when they change; may be repeated")
	f.Var(several(&c.trusted, readPrefix), "trust-proxy", "`prefix` of proxies in front of the balancer whose X-Forwarded-For and PROXY header are believed; may be repeated")
	f.Var(one(&c.oscPath, readPath), "osc-path", "`path` of the OSC API")
	f.Var(several(&c.oscAllow, readPrefix), "osc-fetch", "`prefix` of addresses on loopback or link-local that OSC descriptors may be fetched from; may be repeated")
	f.IntVar(&c.rate, "rate-limit", c.rate, "requests an hour that the apps API answers to an address other than loopback; 0: any `number`")
	f.IntVar(&c.hostRate, "host-rate-limit", c.hostRate, "requests a second that are answered to a host, or an engine instance, on average over ten; 0: any `number`")
}

func readController(s string) (string, error) {
	u, err := url.Parse(s)
	if s != "" && s != self && (err != nil || u.Scheme != "unix" && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https")) {
		return "", errors.New("it is not http://HOST:PORT, https://HOST:PORT, unix:///PATH or self")
	}
	return s, nil
}

func readAddress(s string) (string, error) {
	if _, err := netip.ParseAddr(s); s != "" && err != nil {
		return "", errors.New("it is not an IP address")
	}
	return s, nil
}

type label struct{ key, value string }

func readLabel(s string) (l label, err error) {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" {
		return l, errors.New("it is not KEY=VALUE")
	}
	return label{k, v}, nil
}

// portRange is the first and the last of some ports.
type portRange [2]uint16

func (r portRange) String() string { return fmt.Sprintf("%d-%d", r[0], r[1]) }

func readPorts(s string) (r portRange, err error) {
	first, last, ok := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || err1 != nil || err2 != nil || a == 0 || b < a {
		return r, errors.New("it is not FIRST-LAST")
	}
	return portRange{uint16(a), uint16(b)}, nil
}

// readPair reads the names of a certificate's and its key's file.
func readPair(s string) (pair proxy.CertFile, err error) {
	cert, key, ok := strings.Cut(s, ",")
	if !ok {
		return pair, errors.New("it is not CERT,KEY")
	}
	cert, err1 := filepath.Abs(cert)
	key, err2 := filepath.Abs(key)
	return proxy.CertFile{Cert: cert, Key: key}, errors.Join(err1, err2)
}

func readPrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("it is not a prefix like 10.0.0.0/8")
	}
	return p.Masked(), nil
}

func readPath(s string) (string, error) {
	path := "/" + strings.Trim(s, "/")
	if path == "/" || strings.ContainsAny(path, "{}* ") {
		return "", errors.New("it is not a path like /osc")
	}
	if strings.HasPrefix(path, "/host") || strings.HasPrefix(path, "/engine") { // see auth.RuleOf
		return "", errors.New("paths of hosts and engines have their own tokens: take one like /osc")
	}
	return path, nil
}

func (c *fleetConfig) complete(dev bool) error {
	if c.controller == "" && dev {
		c.controller = self
	}
	if c.controller != "" && c.controller != self && c.joinToken == "" {
		c.joinToken = secret(os.Getenv("BUOY_JOIN_TOKEN"))
	}
	c.labels = map[string]string{}
	for _, l := range c.given {
		c.labels[l.key] = l.value
	}
	if len(c.https) > 0 && len(c.certs) == 0 {
		return misfit("https", "needs --tls")
	}
	if len(c.certs) > 0 && len(c.https) == 0 {
		return misfit("tls", "needs --https")
	}
	if c.rate < 0 {
		return misfit("rate-limit", "%d is negative", c.rate)
	}
	if c.hostRate < 0 {
		return misfit("host-rate-limit", "%d is negative", c.hostRate)
	}
	return nil
}

// limits are those of the apps API: a tenth of an hour's requests may come in a minute.
func (c *fleetConfig) limits() apps.Limits {
	if c.rate == 0 {
		return apps.Limits{PerHour: -1, PerMinute: -1}
	}
	return apps.Limits{PerHour: c.rate, PerMinute: max(c.rate/10, 1)}
}

// check says what does not go together; a reset does not care.
func (c *fleetConfig) check() error {
	const whose = "is a controller's: add --controller self, or leave it to the controller that this node reports to"
	switch {
	case c.controller == self:
	case len(c.http) > 0:
		return misfit("http", whose)
	case len(c.https) > 0:
		return misfit("https", whose)
	}
	return nil
}

// token reads the join token.
func (c *fleetConfig) token() (string, error) {
	file, ok := strings.CutPrefix(string(c.joinToken), "@")
	if !ok {
		return string(c.joinToken), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the join token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
