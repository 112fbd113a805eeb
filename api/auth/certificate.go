package auth

import (
	"net/http"
	"net/url"
	"strings"
)

// CertificateURI is the name in a client certificate of ours by which the caller
// is found whose it is, buoy://caller/ID; the rest of it means nothing.
func CertificateURI(id string) *url.URL {
	return &url.URL{Scheme: "buoy", Host: "caller", Path: "/" + id}
}

// certificate is the id in a certificate that a client has shown and the
// listener has verified.
func certificate(r *http.Request) (id string, ok bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", false
	}
	for _, u := range r.TLS.VerifiedChains[0][0].URIs {
		if u.Scheme == "buoy" && u.Host == "caller" {
			return strings.TrimPrefix(u.Path, "/"), true
		}
	}
	return "", false
}
