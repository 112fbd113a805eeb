package pack

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/errs"
)

// metadataC are the rows of era C's table of metadata: those that zflist knows, what they cannot say, and other texts.
func metadataC(m flist.Meta) (map[string]string, error) {
	rows := map[string]any{}
	if b, ok := backendC(m.Backend); ok {
		rows["backend"] = b
	}
	others := maps.Clone(m.Texts)
	if slices.ContainsFunc(routesOf(m), foreign) {
		router, err := routerYAML(m)
		if err != nil {
			return nil, fmt.Errorf("metadata %s: %w", flist.RouterKeyC, err)
		}
		if others == nil {
			others = map[string]string{}
		}
		others[flist.RouterKeyC] = string(router)
	}
	if c := m.Config; c != nil {
		rows[flist.ConfigKeyC] = c
		if start := slices.Concat(c.Entrypoint, c.Cmd); len(start) > 0 {
			rows["entrypoint"] = start
		}
		env, ports, volumes := map[string]string{}, map[string]int{}, map[string]struct{}{}
		for _, e := range c.Env {
			if name, value, ok := strings.Cut(e, "="); ok {
				env[name] = value
			}
		}
		for _, p := range c.Ports { // a range of ports is in our own row alone
			port, proto, _ := strings.Cut(p, "/")
			if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 && (proto == "tcp" || proto == "udp") {
				ports[fmt.Sprintf("%s/%d", proto, n)] = int(n)
			}
		}
		for _, v := range c.Volumes {
			volumes[v] = struct{}{}
		}
		if len(env) > 0 {
			rows["environ"] = env
		}
		if len(ports) > 0 {
			rows["port"] = ports
		}
		if len(volumes) > 0 {
			rows["volume"] = volumes
		}
	}
	return texts(others, rows)
}

// tagsD are era D's.
func tagsD(m flist.Meta) (map[string]string, error) {
	rows := map[string]any{}
	if m.Config != nil {
		rows[flist.ConfigKeyD] = m.Config
	}
	return texts(m.Texts, rows)
}

func texts(others map[string]string, rows map[string]any) (map[string]string, error) {
	all := maps.Clone(others)
	if all == nil {
		all = map[string]string{}
	}
	for key, value := range rows {
		b, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("metadata %s: %w", key, err)
		}
		all[key] = string(b)
	}
	return all, nil
}

// backend is the store of an flist as zflist writes it.
type backend struct {
	Host      string `json:"host"`
	Port      int    `json:"port"`
	Namespace string `json:"namespace,omitempty"`
	Password  string `json:"password,omitempty"`
}

// backendC is the store at a URL as zflist says it; false if it cannot, as it knows 0-db and redis over TCP alone.
func backendC(raw string) (backend, bool) {
	u, ok := respURL(raw)
	if !ok {
		return backend{}, false
	}
	b := backend{Host: u.Hostname(), Port: 9900, Namespace: strings.Trim(u.Path, "/")}
	if u.Scheme == "redis" {
		b.Port = 6379
	}
	if n, err := strconv.Atoi(u.Port()); err == nil {
		b.Port = n
	}
	if u.User != nil {
		b.Password, ok = u.User.Password()
		if !ok {
			b.Password = u.User.Username() // as in router.yaml
		}
	}
	return b, true
}

// respURL says whether a URL is one that the genuine programs know.
func respURL(raw string) (*url.URL, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !slices.Contains([]string{"redis", "zdb", "ardb"}, u.Scheme) {
		return nil, false
	}
	return u, true
}

// WithoutPassword is a store's URL without what opens it.
func WithoutPassword(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil {
		return raw
	}
	u.User = nil
	return u.String()
}

// routesOf are m's routes, and its backend behind them unless it is one of them.
func routesOf(m flist.Meta) []flist.Route {
	routes, last := slices.Clone(m.Routes), 0
	for _, r := range routes {
		last = max(last, r.Pool+1)
	}
	if m.Backend != "" && !slices.ContainsFunc(routes, func(r flist.Route) bool { return sameStore(r.URL, m.Backend) }) {
		routes = append(routes, flist.Route{Pool: last, From: "00", To: "ff", URL: m.Backend})
	}
	return routes
}

// sameStore compares URLs, knowing that era C's backend has no scheme.
func sameStore(a, b string) bool {
	x, okX := backendC(a)
	y, okY := backendC(b)
	return a == b || okX && okY && x == y
}

// foreign says whether 0-fs could not find its chunks there: it opens redis and 0-db, without a namespace.
func foreign(r flist.Route) bool {
	u, ok := respURL(r.URL)
	return !ok || strings.Trim(u.Path, "/") != ""
}

// routerYAML is the file in which 0-fs looks for the stores; nil for none.
func routerYAML(m flist.Meta) ([]byte, error) {
	type router struct {
		Pools  map[string]map[string]string `yaml:"pools"`
		Lookup []string                     `yaml:"lookup"`
		Cache  []string                     `yaml:"cache,omitempty"`
	}
	r := router{Pools: map[string]map[string]string{}}
	routes := routesOf(m)
	slices.SortStableFunc(routes, func(a, b flist.Route) int { return a.Pool - b.Pool })
	for _, route := range routes {
		span := route.From + ":" + route.To
		name := strconv.Itoa(route.Pool)
		if route.Cache {
			name += "c"
		}
		for r.Pools[name][span] != "" { // a pool has a range once
			name += "+"
		}
		if r.Pools[name] == nil {
			r.Pools[name] = map[string]string{}
			r.Lookup = append(r.Lookup, name)
			if route.Cache {
				r.Cache = append(r.Cache, name)
			}
		}
		r.Pools[name][span] = routerURL(route.URL)
	}
	if len(routes) == 0 {
		return nil, nil
	}
	return yaml.Marshal(r)
}

// routerURL has the password where 0-fs looks for it.
func routerURL(raw string) string {
	b, ok := backendC(raw)
	u, _ := respURL(raw)
	if !ok || b.Password == "" {
		return raw
	}
	u.User, u.Host = url.User(b.Password), net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
	return u.String()
}

// firstBytes is a route as era D can say it.
func firstBytes(r flist.Route) (from, to int, err error) {
	a, errA := hex.DecodeString(r.From)
	b, errB := hex.DecodeString(r.To)
	if errA != nil || errB != nil || len(a) == 0 || len(b) == 0 {
		return 0, 0, errs.E(errs.Invalid, "route %q: %q to %q is no range of chunks", r.URL, r.From, r.To)
	}
	return int(a[0]), int(b[0]), nil
}
