package proxy

import (
	"net/url"
	"path"
	"slices"
	"strings"
)

// table says whose a request or a connection is. It never changes; a draft
// becomes the next one. Where an app's requests go is in the app, so that
// replicas come and go without another table.
type table struct {
	sites   parts[site]    // by host name, as rules have it
	streams parts[[]owned] // by door.knock
	apps    parts[*app]    // by name, those with rules or without
}

// site is what a host answers, the longest path first.
type site []place

type place struct {
	path string
	app  *app
}

type owned struct {
	door
	app *app
}

// maxName is how long a name may be to be looked for label by label.
const maxName = 256

// find is where a request goes; path is without the query. nil: none.
func (t *table) find(host, path []byte) *service {
	a := t.owner(host, path)
	if a == nil {
		return nil
	}
	return a.now.Load().web
}

// owner is whose a request is.
func (t *table) owner(host, path []byte) *app {
	var buf [256]byte
	name := hostname(append(buf[:0], '*'), host)
	if crooked(path) {
		path = straight(path)
	}
	if a := t.sites.get(name[1:]).find(path); a != nil {
		return a
	}
	for i := 1; i < len(name) && len(name) <= maxName; i++ {
		if name[i] != '.' {
			continue
		}
		name[i-1] = '*' // what is before has been looked for
		if a := t.sites.get(name[i-1:]).find(path); a != nil {
			return a
		}
	}
	return t.sites.get(nil).find(path)
}

// stream is the service at a door; nil: none.
func (t *table) stream(d door) *service {
	var buf [64]byte
	for _, o := range t.streams.get(d.knock(buf[:0])) {
		if o.door == d {
			return o.app.now.Load().streams[d]
		}
	}
	return nil
}

func (s site) find(path []byte) *app {
	for i := range s {
		n := len(s[i].path)
		if len(path) >= n && string(path[:n]) == s[i].path && (n == len(path) || n == 0 || path[n] == '/') {
			return s[i].app
		}
	}
	return nil
}

// hostname appends what a Host header names, without port and in lower case.
func hostname(to, host []byte) []byte {
	if i := slices.Index(host, ']'); i > 0 && host[0] == '[' {
		return appendLower(to, host[1:i])
	}
	if i := slices.Index(host, ':'); i >= 0 {
		host = host[:i]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	return appendLower(to, host)
}

func appendLower(to, b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		to = append(to, c)
	}
	return to
}

// crooked says whether a path may be spelled otherwise than rules are.
func crooked(p []byte) bool {
	for i, c := range p {
		if c == '%' || (c == '.' || c == '/') && i > 0 && p[i-1] == '/' {
			return true
		}
	}
	return false
}

// straight is the path as rules spell it: decoded, without dots. What cannot
// be decoded stays as it is.
func straight(p []byte) []byte {
	s, err := url.PathUnescape(string(p))
	if err != nil {
		return p
	}
	return []byte(clean(s))
}

func clean(p string) string { return path.Clean("/" + strings.TrimLeft(p, "/")) }
