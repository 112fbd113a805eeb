package flist

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Keys of our own packers: rows of the metadata of era C, tags of era D.
const (
	// ConfigKey has the Config as JSON.
	ConfigKeyC = "buoy.config"
	ConfigKeyD = "config"
	// RouterKeyC has what would be in router.yaml if 0-fs did not refuse that file for any store it does not know.
	RouterKeyC = "buoy.router"
)

// setC reads the metadata table of era C. What is known and is not what it should be is refused: to run an image with half
// of its environment is worse.
func (m *Meta) setC(texts map[string]string) error {
	var c Config
	known := map[string]func(string) error{
		"backend":    m.setBackend,
		"entrypoint": func(s string) error { return json.Unmarshal([]byte(s), &c.Entrypoint) },
		"environ":    c.setEnviron,
		"port":       c.setPorts,
		"volume":     c.setVolumes,
		RouterKeyC:   func(s string) error { return m.setRouter([]byte(s)) },
	}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		s, ok := texts[key]
		if !ok || s == "" {
			continue
		}
		if err := known[key](s); err != nil {
			return errs.E(errs.Invalid, "its metadata %s: %s", key, brief(err))
		}
		if key != "backend" && key != RouterKeyC {
			m.Config = &c
		}
	}
	return m.setTexts(texts, ConfigKeyC, func(key string) bool { return known[key] != nil })
}

// check refuses what no program can be given.
func (c *Config) check() error {
	for _, s := range slices.Concat(c.Env, c.Entrypoint, c.Cmd, c.Volumes, []string{c.WorkingDir, c.User}) {
		if strings.Contains(s, "\x00") {
			return errs.E(errs.Invalid, "its configuration has a NUL in %.40q", s)
		}
	}
	return nil
}

// setTexts keeps the texts that are not known, and reads our own configuration, which says more than the format can.
func (m *Meta) setTexts(texts map[string]string, configKey string, known func(key string) bool) error {
	for key, s := range texts {
		switch {
		case key == configKey:
			var c Config
			if err := json.Unmarshal([]byte(s), &c); err != nil {
				return errs.E(errs.Invalid, "its configuration: %s", brief(err))
			}
			m.Config = &c
		case !known(key):
			if m.Texts == nil {
				m.Texts = map[string]string{}
			}
			m.Texts[key] = s
		}
	}
	if m.Config != nil {
		return m.Config.check()
	}
	return nil
}

var hostName = regexp.MustCompile(`^[0-9A-Za-z._:-]+$`)

// setBackend reads where the packer put the chunks. A socket is a file of the packer's machine, not of ours.
func (m *Meta) setBackend(s string) error {
	var b struct {
		Host, Namespace, Password, Token string
		Port                             int
	}
	if err := json.Unmarshal([]byte(s), &b); err != nil {
		return err
	}
	if b.Host == "" {
		return nil
	}
	if b.Port == 0 {
		b.Port = 9900
	}
	if len(b.Host) > 253 || !hostName.MatchString(b.Host) || b.Port < 0 || b.Port > 65535 {
		return fmt.Errorf("there is no host %.40q with port %d", b.Host, b.Port)
	}
	u := url.URL{Scheme: "zdb", Host: net.JoinHostPort(b.Host, strconv.Itoa(b.Port))}
	if b.Password == "" {
		b.Password = b.Token
	}
	if b.Password != "" {
		u.User = url.UserPassword("", b.Password)
	}
	if b.Namespace != "" {
		u.Path = "/" + b.Namespace
	}
	m.Backend = u.String()
	return nil
}

func (c *Config) setEnviron(s string) error {
	var env map[string]string
	if err := json.Unmarshal([]byte(s), &env); err != nil {
		return err
	}
	c.Env = environment(env)
	return nil
}

// environment is "NAME=value", sorted.
func environment(env map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// setPorts reads {"tcp/80": 8080}: the ports of the image are the names.
func (c *Config) setPorts(s string) error {
	var ports map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &ports); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		proto, port, ok := strings.Cut(name, "/")
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || err != nil || n == 0 || (proto != "tcp" && proto != "udp") {
			return fmt.Errorf("there is no port %.40q", name)
		}
		c.Ports = append(c.Ports, fmt.Sprintf("%d/%s", n, proto))
	}
	return nil
}

func (c *Config) setVolumes(s string) error {
	var volumes map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &volumes); err != nil {
		return err
	}
	c.Volumes = slices.Sorted(maps.Keys(volumes))
	return nil
}

// readD reads the tags and routes of era D; either table may be missing.
func (m *Meta) readD(ctx context.Context, d *database) error {
	if d.tables["tag"] {
		texts := map[string]string{}
		err := d.scan(ctx, "tag", "key, value", func(row []driver.Value) error {
			texts[text(row[0])] = text(row[1])
			return nil
		})
		if err != nil {
			return err
		}
		if err := m.setTexts(texts, ConfigKeyD, func(string) bool { return false }); err != nil {
			return err
		}
	}
	if !d.tables["route"] {
		return nil
	}
	return d.scan(ctx, "route", `start, "end", url`, func(row []driver.Value) error {
		start, okStart := row[0].(int64)
		end, okEnd := row[1].(int64)
		if !okStart || !okEnd || start < 0 || end > 255 || len(m.Routes) >= maxRoutes {
			return errs.E(errs.Invalid, "a route leads chunks %v to %v somewhere, or it has more than %d", row[0], row[1], maxRoutes)
		}
		from, to := hex.EncodeToString([]byte{byte(start)}), hex.EncodeToString([]byte{byte(end)})
		m.Routes = append(m.Routes, Route{From: from, To: to, URL: text(row[2])})
		return nil
	})
}
