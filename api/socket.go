package api

import (
	"net/http"
	"strings"
)

// Upgrades says whether a request wants to become a WebSocket.
func Upgrades(r *http.Request) bool {
	return HasToken(r.Header, "Connection", "upgrade") && HasToken(r.Header, "Upgrade", "websocket")
}

// HasToken says whether a header is a list in which token is, in any case.
func HasToken(h http.Header, key, token string) bool {
	for _, value := range h.Values(key) {
		for one := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}

// SameOrigin says whether a request is not that of another origin's page. The
// server asks this of what changes anything; a WebSocket begins with a GET, and
// browsers let any page open one.
func SameOrigin(r *http.Request) bool {
	change := r.Clone(r.Context())
	change.Method = http.MethodPost
	return http.NewCrossOriginProtection().Check(change) == nil
}
