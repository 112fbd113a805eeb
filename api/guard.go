package api

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guardHost refuses what a browser sends to a loopback listener in the belief
// that it is somebody else's host (DNS rebinding). By TLS it would have seen
// from the certificate whose host it is.
func (s *Server) guardHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if ok && addr.Network() == "tcp" && r.TLS == nil && !s.knownHost(r.Host) {
			Error(w, http.StatusForbidden, fmt.Sprintf("%q is not a host name of this server", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) knownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	// Browsers always send one; HTTP/1.0 clients need not.
	return host == "" || loopback(host) || slices.ContainsFunc(s.cfg.Hosts, func(known string) bool {
		return strings.EqualFold(known, host)
	})
}

// loopback says whether host is a name or an address of this machine that
// nobody else can reach.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// guardOrigin refuses changes that a web page of another origin asks for.
func guardOrigin() func(http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		Error(w, http.StatusForbidden, "a web page of another origin may not do this")
	}))
	return guard.Handler
}
