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
)

// fleetConfig is what the command line says of the fleet: whose controller this
// is, and what the node tells its own.
type fleetConfig struct {
	controller string // "", "self", or a URL
	joinToken  string // itself, or "@FILE"
	address    string
	labels     map[string]string
	ports      [2]uint16
	interval   time.Duration

	http, https []string
	certs       [][2]string
	trusted     []netip.Prefix

	oscPath  string
	oscAllow []netip.Prefix
	rate     int
	hostRate int
}

// self is the controller that is in the same process.
const self = "self"

// fleetFlags are the flags as they come.
type fleetFlags struct {
	labels, http, https, certs, trusted, oscAllow list
	ports                                         string
}

func (c *fleetConfig) register(f *flag.FlagSet) *fleetFlags {
	var in fleetFlags
	f.StringVar(&c.controller, "controller", "", "`URL` of the controller that this node reports to, or \"self\" to be a controller (default: none; with --dev self)")
	f.StringVar(&c.joinToken, "join-token", "", "`token` with which this node registers there, or @FILE (default: $BUOY_JOIN_TOKEN)")
	f.StringVar(&c.address, "address", "", "`address` where the controller reaches ports that this node publishes (default: the one that it calls from)")
	f.Var(&in.labels, "label", "`KEY=VALUE` of this node, for placement; may be repeated")
	f.StringVar(&in.ports, "port-range", "20000-29999", "`FIRST-LAST` port to publish replicas at")
	f.DurationVar(&c.interval, "report-interval", 30*time.Second, "`time` between reports of nodes that have nothing new to say")
	f.Var(&in.http, "http", "`HOST:PORT` where the balancer answers HTTP for apps; may be repeated")
	f.Var(&in.https, "https", "`HOST:PORT` where it answers HTTPS; may be repeated")
	f.Var(&in.certs, "tls", "`CERT,KEY` files of the balancer, which are read again when they change; may be repeated")
	f.Var(&in.trusted, "trust-proxy", "`prefix` of proxies in front of the balancer whose X-Forwarded-For and PROXY header are believed; may be repeated")
	f.StringVar(&c.oscPath, "osc-path", "/osc", "`path` of the OSC API")
	f.Var(&in.oscAllow, "osc-fetch", "`prefix` of addresses on loopback or link-local that OSC descriptors may be fetched from; may be repeated")
	f.IntVar(&c.rate, "rate-limit", 1000, "requests an hour that the apps API answers to an address other than loopback; 0: any number")
	f.IntVar(&c.hostRate, "host-rate-limit", 50, "requests a second that are answered to a host, or an engine instance, on average over ten; 0: any number")
	return &in
}

func (c *fleetConfig) complete(in *fleetFlags, dev bool) error {
	if c.controller == "" && dev {
		c.controller = self
	}
	switch {
	case c.controller == "" || c.controller == self:
	default:
		u, err := url.Parse(c.controller)
		if err != nil || u.Scheme != "unix" && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("--controller %q is not http://HOST:PORT, https://HOST:PORT, unix:///PATH or self", c.controller)
		}
		if c.joinToken == "" {
			c.joinToken = os.Getenv("BUOY_JOIN_TOKEN")
		}
	}
	if (len(in.https) > 0) != (len(in.certs) > 0) {
		return errors.New("--https and --tls belong together")
	}
	if c.rate < 0 {
		return fmt.Errorf("--rate-limit %d is negative", c.rate)
	}
	if c.hostRate < 0 {
		return fmt.Errorf("--host-rate-limit %d is negative", c.hostRate)
	}
	if c.interval < time.Second {
		return fmt.Errorf("--report-interval %s is less than a second", c.interval)
	}
	c.http, c.https = in.http, in.https
	return errors.Join(c.completeLists(in), c.completePorts(in.ports), c.completeOSC(in))
}

func (c *fleetConfig) completeLists(in *fleetFlags) error {
	c.labels = map[string]string{}
	for _, l := range in.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return fmt.Errorf("--label %q is not KEY=VALUE", l)
		}
		c.labels[k] = v
	}
	for _, pair := range in.certs {
		cert, key, ok := strings.Cut(pair, ",")
		if !ok {
			return fmt.Errorf("--tls %q is not CERT,KEY", pair)
		}
		for _, f := range []*string{&cert, &key} {
			var err error
			if *f, err = filepath.Abs(*f); err != nil {
				return err
			}
		}
		c.certs = append(c.certs, [2]string{cert, key})
	}
	if c.address != "" {
		if _, err := netip.ParseAddr(c.address); err != nil {
			return fmt.Errorf("--address %q is not an IP address", c.address)
		}
	}
	var err error
	c.trusted, err = prefixes("--trust-proxy", in.trusted)
	return err
}

func prefixes(name string, texts []string) (out []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s %q is not a prefix like 10.0.0.0/8", name, text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (c *fleetConfig) completePorts(text string) error {
	first, last, ok := strings.Cut(text, "-")
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || err1 != nil || err2 != nil || a == 0 || b < a {
		return fmt.Errorf("--port-range %q is not FIRST-LAST", text)
	}
	c.ports = [2]uint16{uint16(a), uint16(b)}
	return nil
}

func (c *fleetConfig) completeOSC(in *fleetFlags) (err error) {
	c.oscPath = "/" + strings.Trim(c.oscPath, "/")
	if c.oscPath == "/" || strings.ContainsAny(c.oscPath, "{}* ") {
		return fmt.Errorf("--osc-path %q is not a path like /osc", c.oscPath)
	}
	c.oscAllow, err = prefixes("--osc-fetch", in.oscAllow)
	return err
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
	if c.controller != self && len(c.http)+len(c.https) > 0 {
		return errors.New("--http and --https are a controller's: add --controller self, or leave them to the controller that this node reports to")
	}
	return nil
}

// token reads the join token.
func (c *fleetConfig) token() (string, error) {
	file, ok := strings.CutPrefix(c.joinToken, "@")
	if !ok {
		return c.joinToken, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the join token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
